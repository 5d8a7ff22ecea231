//! The program that runs one command exactly once, inside a sandbox.

pub mod protocol;
