//! Keys made at run time go through everything that can go wrong, with everything logged, and then nothing that er-dev
//! wrote, kept, answered or handed on has a part of them in it, in whatever writing.

mod crash;
mod faults;
mod needles;
