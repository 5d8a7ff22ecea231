//! The shim's command line.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use super::protocol::Addressee;
use super::read;
use super::relay;
use super::run::{self, Delivery};
use super::serve;
use super::tree;
use super::write;

/// The status for a command line that makes no sense, as in sysexits.h.
const USAGE: u8 = 64;

/// Runs the shim with the arguments of this process:
///
/// - `run` answers the call on standard input, `run --call FILE` the one in a file, `run --sudo [DIRECTORY]` one
///   that another shim passes on;
/// - `read PATH [OFFSET LENGTH]` prints a regular file or a part of it, or exits with an errno;
/// - `write PATH` makes a file of the standard input, or exits with an errno;
/// - `serve` stays in a container, and `relay CONTAINER DIRECTORY NAME LIMIT [--call FILE]` has it answer a call;
///   `enter CONTAINER DIRECTORY NAME` only sees that it is there;
/// - `kill PID…` kills processes and their descendants;
/// - `version` prints the version.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let text: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    match text.as_slice() {
        ["run"] => run::run(&Delivery::Script),
        ["run", "--call", _] => run::run(&Delivery::File(PathBuf::from(words[2]))),
        ["run", "--sudo"] => run::run(&Delivery::Sudo(None)),
        ["run", "--sudo", _] => run::run(&Delivery::Sudo(Some(PathBuf::from(words[2])))),
        ["read", _] => done(read::read(words[1].as_ref(), 0, u64::MAX)),
        ["read", _, offset, length] => match (offset.parse(), length.parse()) {
            (Ok(offset), Ok(length)) => done(read::read(words[1].as_ref(), offset, length)),
            _ => complain(USAGE, "read takes numbers of bytes"),
        },
        ["write", _] => done(write::write(words[1].as_ref())),
        ["kill", pids @ ..] => {
            let pids: Option<Vec<_>> =
                pids.iter().map(|pid| pid.parse().ok().filter(|pid| *pid > 1)).collect();
            match pids {
                Some(pids) => {
                    tree::kill_with_descendants(&pids);
                    ExitCode::SUCCESS
                }
                None => complain(USAGE, "kill takes process ids"),
            }
        }
        ["serve"] => serve::serve(),
        ["enter", to @ ..] if to.len() == 3 => relay::enter(&addressee(to)),
        ["relay", container, directory, name, limit] => {
            relay_to(&[container, directory, name], limit, &Delivery::Script)
        }
        ["relay", container, directory, name, limit, "--call", _] => {
            relay_to(&[container, directory, name], limit, &Delivery::File(PathBuf::from(words[6])))
        }
        ["version"] => say(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        _ => complain(
            USAGE,
            "usage: run [--call FILE] | read PATH [OFFSET LENGTH] | write PATH | serve | \
             enter CONTAINER DIRECTORY NAME | relay CONTAINER DIRECTORY NAME LIMIT [--call FILE] | \
             kill PID... | version",
        ),
    }
}

fn addressee(words: &[&str]) -> Addressee {
    let word = |index: usize| words.get(index).map(|word| (*word).to_owned()).unwrap_or_default();
    Addressee { container: word(0), directory: word(1), name: word(2) }
}

fn relay_to(to: &[&str], limit: &str, delivery: &Delivery) -> ExitCode {
    match limit.parse() {
        Ok(limit) => relay::relay(&addressee(to), limit, delivery),
        Err(_) => complain(USAGE, "relay takes a number of bytes"),
    }
}

/// The status of a file operation: 0, or its errno with a message.
fn done(result: Result<(), (i32, String)>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((errno, message)) => complain(u8::try_from(errno).unwrap_or(1), &message),
    }
}

/// Prints `text`. Nobody is left to hear if that fails.
pub(super) fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints `message` as an error and gives the `status` to exit with.
pub(super) fn complain(status: u8, message: &str) -> ExitCode {
    drop(writeln!(io::stderr(), "inspect-daytona-shim: {message}"));
    ExitCode::from(status)
}

/// Where this program is, or was before a newer one took its place.
pub(super) fn own_path() -> io::Result<PathBuf> {
    let path = env::current_exe()?.into_os_string().into_vec();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(&path);
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}
