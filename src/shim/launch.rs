//! The start of a command: fork, become the user, enter the directory, find the program, execute it; or say why not.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::environment::{self, Variables};
use super::protocol::{Refusal, RefusalKind};
use super::stream::Input;
use super::system::{self, Pid, Watched};
use super::user::Identity;

/// Where programs are looked for if the environment does not say; Docker's default.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a start may take; a file system that answers no more would hold it up for ever.
const START_LIMIT: Duration = Duration::from_secs(60);

/// All that a command needs to start.
pub(super) struct Launch<'call> {
    /// The program and its arguments.
    pub(super) argv: &'call [Vec<u8>],
    /// Its whole environment.
    pub(super) variables: Variables,
    /// Where it starts; `None` is where this process is.
    pub(super) cwd: Option<&'call [u8]>,
    /// Whom to become.
    pub(super) identity: Option<&'call Identity>,
    /// Its input.
    pub(super) stdin: Input,
    /// Its outputs.
    pub(super) outputs: [PipeWriter; 2],
}

/// What the child was doing when it failed.
#[derive(Clone, Copy)]
enum Stage {
    Setup,
    User,
    Directory,
    Search,
    Execution,
    Interpreter,
}

const STAGES: [Stage; 6] =
    [Stage::Setup, Stage::User, Stage::Directory, Stage::Search, Stage::Execution, Stage::Interpreter];

impl Launch<'_> {
    /// Starts the command in a session of its own. Returns its process once the program is running.
    pub(super) fn start(self) -> Result<Pid, Refusal> {
        let nul = || system_refusal("an argument or variable contains a NUL byte");
        let arguments: Vec<_> = self
            .argv
            .iter()
            .map(|word| CString::new(word.as_slice()))
            .collect::<Result<_, _>>()
            .map_err(|_| nul())?;
        let program = arguments.first().ok_or_else(|| system_refusal("there is no program to run"))?;
        let variables = environment::as_strings(&self.variables).ok_or_else(nul)?;
        let path = environment::value(&self.variables, b"PATH").unwrap_or(DEFAULT_PATH);
        let candidates = candidates(program, path);
        let (mut report, failure) = io::pipe().map_err(|error| lacking("a pipe", &error))?;
        let forked = system::fork().map_err(|error| lacking("a process for the command", &error))?;
        let Some(pid) = forked else {
            let (stage, error) = self.become_command(&candidates, &arguments, &variables);
            let mut message = [0; 5];
            message[0] = stage as u8;
            message[1..].copy_from_slice(&error.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes());
            drop((&failure).write_all(&message));
            system::exit_now(127)
        };
        drop(failure);
        let outcome = read_report(&mut report);
        if matches!(outcome, Ok(None)) {
            return Ok(pid);
        }
        // It may also be stuck rather than failed.
        drop(system::kill(pid, libc::SIGKILL));
        Err(match outcome {
            Ok(Some((stage, error))) => {
                drop(system::wait_for(pid));
                self.refusal(stage, &error)
            }
            _ => system_refusal("the command did not start within a minute: a file system may be stuck"),
        })
    }

    /// In the child: returns only what failed.
    fn become_command(
        &self,
        candidates: &[CString],
        arguments: &[CString],
        variables: &[CString],
    ) -> (Stage, io::Error) {
        if let Err(error) = self.set_up() {
            return (Stage::Setup, error);
        }
        if let Some(identity) = self.identity.filter(|identity| !identity.is_current())
            && let Err(error) = system::become_user(identity.uid, identity.gid, &identity.groups)
        {
            return (Stage::User, error);
        }
        if let Some(cwd) = self.cwd
            && let Err(error) = std::env::set_current_dir(OsStr::from_bytes(cwd))
        {
            return (Stage::Directory, error);
        }
        execute_first(candidates, arguments, variables)
    }

    fn set_up(&self) -> io::Result<()> {
        system::new_session()?;
        system::default_signals();
        if let Some(identity) = self.identity.filter(|identity| !identity.is_current()) {
            // So that a program may reopen its streams by name, as `echo >/dev/stderr` does.
            for stream in
                [self.stdin.owned_by_command(), Some(self.outputs[0].as_fd()), Some(self.outputs[1].as_fd())]
                    .into_iter()
                    .flatten()
            {
                std::os::unix::fs::fchown(stream, Some(identity.uid), Some(identity.gid))?;
            }
        }
        system::place(self.stdin.as_fd(), 0)?;
        system::place(self.outputs[0].as_fd(), 1)?;
        system::place(self.outputs[1].as_fd(), 2)
    }

    fn refusal(&self, stage: Stage, error: &io::Error) -> Refusal {
        let program = self.argv.first().map(|program| String::from_utf8_lossy(program)).unwrap_or_default();
        let what = system::describe(error);
        let errno = error.raw_os_error().unwrap_or_default();
        let (kind, message) = match (stage, errno) {
            (Stage::User, libc::EPERM | libc::EINVAL) => {
                let user = self.identity.map(Identity::display).unwrap_or_default();
                (
                    RefusalKind::UserUnsupported,
                    format!("the sandbox does not let the toolbox become user {user}: {what}"),
                )
            }
            (Stage::Directory, _) => {
                let cwd = self.cwd.map(String::from_utf8_lossy).unwrap_or_default();
                (
                    RefusalKind::WorkingDirectory,
                    format!("cannot change to the working directory {cwd}: {what}"),
                )
            }
            (Stage::Search, _) => (RefusalKind::ProgramNotFound, format!("{program}: not found")),
            (Stage::Interpreter, _) => (
                RefusalKind::ProgramNotFound,
                format!("{program}: cannot execute: its interpreter was not found"),
            ),
            (Stage::Execution, libc::EACCES | libc::EPERM) => {
                (RefusalKind::PermissionDenied, format!("{program}: {what}"))
            }
            (Stage::Execution, libc::ENOENT | libc::ENOTDIR) => {
                (RefusalKind::ProgramNotFound, format!("{program}: not found"))
            }
            (Stage::Execution, _) => (RefusalKind::Execution, format!("{program}: cannot execute: {what}")),
            (Stage::Setup | Stage::User, _) => {
                (RefusalKind::System, format!("{program}: cannot prepare its process: {what}"))
            }
        };
        Refusal { kind, message }
    }
}

/// A refusal for a reason that is neither the command's nor the user's fault.
pub(super) fn system_refusal(message: impl Into<String>) -> Refusal {
    Refusal { kind: RefusalKind::System, message: message.into() }
}

/// A refusal because the sandbox could not provide `what`.
pub(super) fn failed(what: &str, error: &io::Error) -> Refusal {
    system_refusal(format!("the sandbox could not provide {what}: {}", system::describe(error)))
}

/// A refusal because the sandbox could not provide `what`, for a command that has not begun and whose refusal is kept.
pub(super) fn lacking(what: &str, error: &io::Error) -> Refusal {
    Refusal { kind: RefusalKind::Lacking, ..failed(what, error) }
}

/// Reads why the child failed; nothing means that the program is running and the pipe went away with the old one.
fn read_report(report: &mut PipeReader) -> io::Result<Option<(Stage, io::Error)>> {
    let began = Instant::now();
    let mut watched = [Watched::input(report)];
    while !watched[0].is_ready() {
        let left = START_LIMIT.checked_sub(began.elapsed()).ok_or(io::ErrorKind::TimedOut)?;
        system::poll(&mut watched, Some(left))?;
    }
    let mut message = Vec::new();
    report.read_to_end(&mut message)?;
    let Some((stage, errno)) = message.split_first() else { return Ok(None) };
    let errno = errno.try_into().map_or(libc::EIO, i32::from_ne_bytes);
    let stage = STAGES.get(usize::from(*stage)).copied().unwrap_or(Stage::Setup);
    Ok(Some((stage, io::Error::from_raw_os_error(errno))))
}

/// The paths at which `program` may be, in order.
fn candidates(program: &CStr, path: &[u8]) -> Vec<CString> {
    let name = program.to_bytes();
    if name.contains(&b'/') || name.is_empty() {
        return vec![program.to_owned()];
    }
    let directories = path.split(|byte| *byte == b':');
    directories
        .filter_map(|directory| {
            let directory = if directory.is_empty() { b"." } else { directory };
            CString::new([directory, b"/", name].concat()).ok()
        })
        .collect()
}

/// Executes the first candidate that is a program. Returns only what failed.
fn execute_first(candidates: &[CString], arguments: &[CString], variables: &[CString]) -> (Stage, io::Error) {
    let searches = arguments.first() != candidates.first();
    let mut failure = (Stage::Search, io::Error::from_raw_os_error(libc::ENOENT));
    for candidate in candidates {
        let path = Path::new(OsStr::from_bytes(candidate.to_bytes()));
        let error = execute_or_interpret(candidate, arguments, variables);
        let exists = || fs::metadata(path).is_ok_and(|found| !searches || found.is_file());
        match error.raw_os_error() {
            Some(libc::ENOENT) if exists() => return (Stage::Interpreter, error),
            Some(libc::EACCES) if !searches || exists() => failure = (Stage::Execution, error),
            Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES) => {}
            _ => return (Stage::Execution, error),
        }
    }
    failure
}

/// Executes `program`; a file that only a shell can make sense of is run by one, as every shell and execvp do.
fn execute_or_interpret(program: &CString, arguments: &[CString], variables: &[CString]) -> io::Error {
    let error = system::execute(program, arguments, variables);
    if error.raw_os_error() != Some(libc::ENOEXEC) {
        return error;
    }
    let script = [c"sh".to_owned(), program.clone()];
    let arguments: Vec<_> = script.into_iter().chain(arguments.iter().skip(1).cloned()).collect();
    system::execute(c"/bin/sh", &arguments, variables);
    error
}
