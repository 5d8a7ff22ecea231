//! The shim program.
fn main() {}
