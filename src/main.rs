//! The er-dev program.

fn main() {}
