//! (see the code map in lib.rs)
