//! The program that makes sandboxes, exec'd once per server with an empty environment.
//!
//! It has one thread, so that it may fork, and no memory of what it passes on, so that nothing of one sandbox reaches
//! another. It ends with its server, and its sandboxes with it.
//!
//! | process | what it does |
//! |---|---|
//! | runner (`serve`) | reads requests, forks a worker for each, reaps, tells who ended |
//! | worker (`sandbox`) | composes the mounts, clones the sandbox's first process as its sibling, writes its maps, ends |
//! | first process (`enter`, `init`) | enters the root, takes the user's id, execs this program anew, serves the toolbox |
//!
//! The same program is the stand-in for `sudo` inside sandboxes.

mod account_files;
mod accounts;
mod base_layer;
mod confine;
mod enter;
mod identity;
mod init;
mod interface;
mod mounts;
mod nesting;
mod sandbox;
mod secrets;
mod serve;
mod setup;
mod sudo;
mod system;
mod volumes;

use std::path::Path;

/// The file descriptor on which the runner talks with its server.
const SERVER: std::os::fd::RawFd = 0;

/// Runs the program: as `sudo` under that name, as a sandbox's first process with the argument `init`, as the runner
/// otherwise. Returns the exit status.
pub fn run() -> i32 {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "sudo") {
        return sudo::run(arguments.collect());
    }
    match arguments.next() {
        Some(argument) if argument == "init" => init::run(arguments.next(), arguments.collect()),
        _ => serve::run(),
    }
}

/// Ends this process at once, without what other parts of the program have registered for its end.
fn leave(status: i32) -> ! {
    system::exit_now(status)
}
