//! Keys from where people keep them, keys that end, and keys that change while a watch runs.

mod changes;
mod handed;
mod sources;
