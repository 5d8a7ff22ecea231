//! The shim as the toolbox runs it: a script on a shell's standard input, one merged pipe back.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking and say why they are skipped"
)]

mod container;
mod endings;
mod once;
mod resident;
mod sandbox;
mod starts;
mod streams;
mod users;
