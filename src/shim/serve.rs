//! `serve`: the shim that is resident in a container, as one of its users.
//!
//! It is started through the Docker Engine and so lies within all that confines the container: cgroup, capabilities,
//! seccomp filter, namespaces, and the environment and user that `docker exec` gives. Whatever it runs inherits that.
//! It only listens; each connection is answered by a process of its own, whose commands belong to supervisors of their
//! own, and results lie in files. So nothing is lost with it, and another one takes its place.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::environment;
use super::launch::system_refusal;
use super::link::{self, REPEAT};
use super::program::{complain, own_path};
use super::protocol::{self, Action, Call, End, ExecId, Finished, Kept, Output, Reply};
use super::read::{self, Failure};
use super::run::{Means, SLACK, perform};
use super::state::{State, through_short_path};
use super::system::{self, Watched};

/// How long the residents that are started at the same time wait for the one of them that listens.
const START: Duration = Duration::from_secs(10);
/// How long a connection may take to bring its call.
const CALL: Duration = Duration::from_secs(30);
/// The largest call. Those that are larger than a script are uploaded, but an operating system accepts no more either.
const LARGEST_CALL: u64 = 16 * 1024 * 1024;
/// The largest file that the resident reads itself. The kernel's files say they are empty, and depend on who reads.
const SMALL: u64 = 64 * 1024;
/// The most that is read of a kernel's file.
const KERNEL_FILE: u64 = 16 * 1024 * 1024;

/// Starts the resident whose name is on standard input, and returns once it listens. Where it listens already,
/// nothing happens.
pub(super) fn serve() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(1, &format!("the container's shim cannot listen: {error}")),
    }
}

fn start() -> io::Result<()> {
    let mut name = String::new();
    io::stdin().take(64).read_to_string(&mut name)?;
    // The form of an exec's id is that of a directory's name.
    let name: ExecId = name.trim().parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let shim = own_path()?;
    let place = shim.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("state");
    let root = place.join(name.to_string());
    let state = State::open_at(root.clone())?;
    let began = Instant::now();
    let lock =
        File::options().write(true).create(true).truncate(false).mode(0o600).open(root.join("lock"))?;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if listens(&root) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < START => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    let listener = through_short_path(&root, |path| {
        drop(fs::remove_file(path));
        UnixListener::bind(path)
    })?;
    let resident = Resident { listener, lock, state, directory: env::current_dir().ok() };
    system::detach(|| resident.run())
}

fn listens(root: &Path) -> bool {
    through_short_path(root, |path| UnixStream::connect(path)).is_ok()
}

struct Resident {
    listener: UnixListener,
    /// Held as long as it lives; a process for a connection closes its copy.
    lock: File,
    state: State,
    /// The container's working directory, by name: it may be removed and made again.
    directory: Option<PathBuf>,
}

impl Resident {
    fn run(self) {
        system::close_all_but(&[self.listener.as_fd(), self.lock.as_fd()]);
        system::ignore(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE]);
        // Many a container's first process collects no orphans.
        system::become_subreaper();
        let Ok(signals) = system::let_go_of_streams() else { return };
        drop(self.listener.set_nonblocking(true));
        loop {
            let mut watched = [Watched::input(&self.listener), Watched::input(&signals)];
            if system::poll(&mut watched, None).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
            let mut signal = [0; 512];
            while (&signals).read(&mut signal).is_ok_and(|count| count > 0) {}
            while system::reap().is_some() {}
            match self.listener.accept() {
                Ok((stream, _)) => self.hand_over(&stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Out of descriptors or memory; only a pause keeps this from spinning.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Answers a connection in a process of its own. Without one to be had it is closed, and the relay asks again.
    fn hand_over(&self, stream: &UnixStream) {
        if let Ok(None) = system::fork() {
            system::close_all_but(&[stream.as_fd()]);
            drop(stream.set_nonblocking(false).and_then(|()| self.answer(stream)));
            system::exit_now(0);
        }
    }

    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        let Some(message) = link::receive(stream, LARGEST_CALL, Instant::now() + CALL)? else {
            return Ok(());
        };
        let call = match Call::decode(&message.record) {
            Ok(call) => call,
            Err(error) => {
                let refusal = system_refusal(format!("the container's shim cannot read the call: {error}"));
                return link::send(stream, 0, &Reply::Refused(refusal).encode(), &[]);
            }
        };
        system::end_after(call.wait.saturating_add(SLACK));
        if let Some(directory) = &self.directory {
            // Where it is gone, so is the directory of every shell in the container.
            drop(env::set_current_dir(directory));
        }
        self.state.acknowledge(&call.acks);
        let input = message.descriptors.into_iter().next().map(File::from);
        let (reply, files) = match &call.action {
            Action::Read(wanted) => self.read(wanted),
            _ => self.perform(call, message.flags & REPEAT != 0, input),
        };
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        link::send(stream, 0, &reply.encode(), &descriptors)
    }

    fn perform(&self, call: Call, is_repeat: bool, input: Option<File>) -> (Reply, Vec<OwnedFd>) {
        let base = environment::of_the_toolbox();
        let means = Means { base, input, is_repeat, claimed: &|| {} };
        let reply = perform(call, self.state.clone(), means);
        let mut files = Vec::new();
        if let Reply::Finished(finished) = &reply {
            for output in [&finished.stdout, &finished.stderr] {
                if let Kept::File { path, .. } = &output.kept {
                    match File::open(PathBuf::from(OsString::from_vec(path.clone()))) {
                        Ok(file) => files.push(file.into()),
                        Err(error) => {
                            let what = system::describe(&error);
                            let message = format!("an output of the command cannot be read any more: {what}");
                            return (Reply::Lost(message), Vec::new());
                        }
                    }
                }
            }
        }
        (reply, files)
    }

    fn read(&self, wanted: &protocol::Read) -> (Reply, Vec<OwnedFd>) {
        let path = PathBuf::from(OsString::from_vec(wanted.path.clone()));
        let mut files = Vec::new();
        let (status, stdout, message) = match self.contents(&path, wanted.limit) {
            Ok(Contents::Bytes(bytes)) => (0, inline(bytes), String::new()),
            Ok(Contents::File(file, len)) => {
                files.push(file.into());
                (0, Output { total: len, kept: Kept::File { path: Vec::new(), len } }, String::new())
            }
            // Another user may be allowed to; nobody is allowed more than root.
            Err((libc::EACCES, message)) if system::effective_user() == 0 => {
                (libc::EPERM, inline(Vec::new()), message)
            }
            Err((errno, message)) => (errno, inline(Vec::new()), message),
        };
        let end = End::Exited(u8::try_from(status).unwrap_or(u8::MAX));
        let stderr = inline(message.into_bytes());
        (Reply::Finished(Finished { end, timed_out: false, killed: false, stdout, stderr }), files)
    }

    fn contents(&self, path: &Path, limit: u64) -> Result<Contents, Failure> {
        let failed = |error: io::Error| read::failure(path, error.raw_os_error().unwrap_or(libc::EIO));
        let (mut file, found) = read::open(path)?;
        if found.len() > limit {
            return Err(read::failure(path, libc::EFBIG));
        }
        if found.len() > SMALL {
            return Ok(Contents::File(file, found.len()));
        }
        let mut bytes = Vec::new();
        (&mut file).take(SMALL + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 <= SMALL.min(limit) {
            return Ok(Contents::Bytes(bytes));
        }
        // Larger than it said. On the disk of the machine there is more room than in the container's memory.
        let mut copy = self.state.unnamed_file().map_err(failed)?;
        let most = limit.min(KERNEL_FILE) + 1;
        let copied = io::copy(&mut bytes.as_slice().chain(file).take(most), &mut copy).map_err(failed)?;
        if copied == most {
            return Err(read::failure(path, libc::EFBIG));
        }
        copy.rewind().map_err(failed)?;
        Ok(Contents::File(copy, copied))
    }
}

/// What is in a file that is read.
enum Contents {
    Bytes(Vec<u8>),
    File(File, u64),
}

fn inline(bytes: Vec<u8>) -> Output {
    Output { total: bytes.len() as u64, kept: Kept::Inline(bytes) }
}
