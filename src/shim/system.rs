//! The system calls that std does not offer, each behind a safe function.
#![expect(unsafe_code, reason = "system calls; every block says why it is sound")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use super::protocol::End;

/// A process id.
pub(super) type Pid = libc::pid_t;

/// What the operating system says about `error`, without std's number.
pub(super) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// `-1` with errno as an error, anything else as a success.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The effective user.
pub(super) fn effective_user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The user at the other end of a connection: who connected, or who listens.
pub(super) fn peer(stream: &UnixStream) -> io::Result<Peer> {
    // SAFETY: the structure is a valid place of the length that is passed along.
    unsafe {
        let mut peer: libc::ucred = std::mem::zeroed();
        let mut length = libc::socklen_t::try_from(size_of_val(&peer)).unwrap_or_default();
        let place = (&raw mut peer).cast();
        let option = libc::SO_PEERCRED;
        check(libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, option, place, &raw mut length))?;
        Ok(Peer { user: peer.uid, is_visible: peer.pid != 0 })
    }
}

/// The other end of a connection.
pub(super) struct Peer {
    pub(super) user: u32,
    /// Whether it is a process of this PID namespace or of one below it.
    pub(super) is_visible: bool,
}

/// Forks; `None` in the child. The shim has one thread, so the child may do anything.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with a single thread no lock can be held by a thread that the child lacks.
    check(unsafe { libc::fork() }).map(|pid| (pid != 0).then_some(pid))
}

/// Ends this process without running destructors, which belong to the parent of a fork.
pub(super) fn exit_now(status: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(status) }
}

/// A descriptor that stands for `path` and follows no link at its end. std drops `O_PATH` with musl, whose `O_ACCMODE`
/// contains it.
pub(super) fn pin(path: &Path, flags: libc::c_int) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC | flags;
    // SAFETY: `path` ends with NUL and outlives the call.
    let number = check(unsafe { libc::open(path.as_ptr(), flags) })?;
    // SAFETY: `number` was just opened and belongs to nobody else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Leaves the session, its process group and its terminal.
pub(super) fn new_session() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Makes orphans below this process its children. Without it a timeout still finds them by their marker.
pub(super) fn become_subreaper() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Has the kernel end this process if it is still there after `after`.
pub(super) fn end_after(after: Duration) {
    let seconds = libc::c_uint::try_from(after.as_secs()).unwrap_or(libc::c_uint::MAX);
    // SAFETY: no pointers; SIGALRM has its default action.
    unsafe { libc::alarm(seconds) };
}

/// Makes `signals` harmless to this process.
pub(super) fn ignore(signals: &[libc::c_int]) {
    for signal in signals {
        // SAFETY: SIG_IGN is a valid disposition and no handler is replaced.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// Gives every signal its default action and unblocks them all, as a new program expects them.
pub(super) fn default_signals() {
    /// Handler, flags, restorer and mask of the kernel's own `sigaction`; zero is the default action.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_SIZE: usize = 8;
    // SAFETY: the action is as large as the kernel reads on 64-bit machines; KILL and STOP are refused. Through the
    // libc some signals could not be reset, which it reserves, and which a toolbox may have ignored. The set is
    // initialized by sigemptyset before use.
    unsafe {
        for signal in 1..=64 {
            let none: *const u64 = ptr::null();
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), none, MASK_SIZE);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Blocks SIGCHLD and returns a descriptor that is readable while one is pending.
fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialized before use; the descriptor is new and owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()))?;
        let descriptor = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Lets go of the streams that this process was started with, for the toolbox waits for everybody who holds them.
/// Returns what is readable while a child has ended.
pub(super) fn let_go_of_streams() -> io::Result<File> {
    let null = File::options().read(true).write(true).open("/dev/null");
    for number in 0..3 {
        if let Ok(null) = &null {
            place(null.as_fd(), number)?;
        }
    }
    null?;
    child_signals().map(File::from)
}

/// Collects one ended child, if there is any.
pub(super) fn reap() -> Option<(Pid, End)> {
    let mut status = 0;
    // SAFETY: the status is a valid place for an int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| (pid, end_of(status)))
}

/// Waits for the child `pid`.
pub(super) fn wait_for(pid: Pid) -> io::Result<End> {
    let mut status = 0;
    loop {
        // SAFETY: the status is a valid place for an int.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(end_of(status)),
        }
    }
}

fn end_of(status: libc::c_int) -> End {
    if libc::WIFSIGNALED(status) {
        End::Signaled(u8::try_from(libc::WTERMSIG(status)).unwrap_or(u8::MAX))
    } else {
        End::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    }
}

/// Sends `signal` to one process; never to a group.
pub(super) fn kill(pid: Pid, signal: libc::c_int) -> io::Result<()> {
    if pid <= 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Makes reads and writes on `descriptor` return at once.
pub(super) fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed.
    unsafe {
        let flags = check(libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

/// Makes `descriptor` the process's descriptor `number`, which programs inherit.
pub(super) fn place(descriptor: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: both are plain numbers; 0 to 2 are owned by no OwnedFd here.
    check(unsafe { libc::dup2(descriptor.as_raw_fd(), number) }).map(drop)
}

/// Closes every descriptor above 2 except `kept`: those that the toolbox leaked to its shell, too.
///
/// For a process that just forked and leaves the values that own those descriptors to its parent.
pub(super) fn close_all_but(kept: &[BorrowedFd<'_>]) {
    let mut kept: Vec<_> =
        kept.iter().filter_map(|kept| libc::c_uint::try_from(kept.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let close = |first: libc::c_uint, last: libc::c_uint| {
        // SAFETY: plain numbers; the caller gives the descriptors up.
        first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0
    };
    let mut first = 3;
    let mut closed = true;
    for kept in &kept {
        closed &= close(first, kept.saturating_sub(1));
        first = first.max(kept.saturating_add(1));
    }
    if closed && close(first, libc::c_uint::MAX) {
        return;
    }
    // Kernels before 5.9 have no close_range.
    for number in (3..4096).filter(|number| !kept.contains(number)) {
        // SAFETY: a plain number; the caller gives the descriptors up.
        unsafe { libc::close(number.cast_signed()) };
    }
}

/// One descriptor to watch, and what became of it.
#[repr(transparent)]
pub(super) struct Watched(libc::pollfd);

impl Watched {
    /// Watches for data, connections or the end of file.
    pub(super) fn input(descriptor: &impl AsFd) -> Self {
        Self::new(descriptor, libc::POLLIN)
    }

    /// Watches for room to write, or for the reader's end.
    pub(super) fn output(descriptor: &impl AsFd) -> Self {
        Self::new(descriptor, libc::POLLOUT)
    }

    fn new(descriptor: &impl AsFd, events: libc::c_short) -> Self {
        Self(libc::pollfd { fd: descriptor.as_fd().as_raw_fd(), events, revents: 0 })
    }

    /// Whether something happened.
    pub(super) fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Waits until something happens to `watched`, at most `timeout`, for ever without one.
pub(super) fn poll(watched: &mut [Watched], timeout: Option<Duration>) -> io::Result<()> {
    // Rounded up, so that a wait for half a millisecond does not spin.
    let timeout = timeout.map_or(-1, |timeout| {
        libc::c_int::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: `Watched` is a transparent pollfd, and the slice gives address and length.
    let result = unsafe {
        libc::poll(watched.as_mut_ptr().cast::<libc::pollfd>(), watched.len() as libc::nfds_t, timeout)
    };
    match check(result) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other.map(drop),
    }
}

/// Becomes the user `uid` in the group `gid` with the supplementary `groups`, for good.
pub(super) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice gives address and length; the process has one thread, so that all of it changes.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid)).map(drop)
    }
}

/// Replaces this process by `program`; returns only to say why not.
pub(super) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: NUL-terminated strings in NULL-terminated arrays, all alive during the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Runs `body` in a grandchild of this process, in a session of its own, and returns once that is on its way.
///
/// # Errors
/// When there is no process to be had; `body` does not run then.
pub(super) fn detach(body: impl FnOnce()) -> io::Result<()> {
    let Some(child) = fork()? else {
        let forked = new_session().and_then(|()| fork());
        match forked {
            Ok(None) => {
                body();
                exit_now(0)
            }
            Ok(Some(_)) => exit_now(0),
            Err(error) => exit_now(error.raw_os_error().unwrap_or(libc::EAGAIN)),
        }
    };
    match wait_for(child)? {
        End::Exited(0) => Ok(()),
        End::Exited(errno) => Err(io::Error::from_raw_os_error(i32::from(errno))),
        End::Signaled(signal) => {
            Err(io::Error::other(format!("the starting process died of signal {signal}")))
        }
    }
}

/// How many descriptors one message carries at most.
const PASSED: usize = 2;
/// Room for the control message that passes them, aligned as the kernel wants it.
type Control = [u64; 4];

/// Sends some of `bytes`, which are not empty, and passes `descriptors`, at most two, along with the first of them.
pub(super) fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut control: Control = [0; 4];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the header points to a buffer and a control area that outlive the call; the kernel only reads the
    // former. CMSG_FIRSTHDR is not null because the area holds a header; what is written stays within CMSG_SPACE,
    // which is at most 24 of its 32 bytes.
    let sent = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        let numbers: Vec<RawFd> = descriptors.iter().take(PASSED).map(AsRawFd::as_raw_fd).collect();
        let length = libc::c_uint::try_from(size_of_val(numbers.as_slice())).unwrap_or_default();
        if length > 0 {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(length) as _;
            ptr::copy_nonoverlapping(numbers.as_ptr(), libc::CMSG_DATA(message).cast(), numbers.len());
        }
        libc::sendmsg(stream.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives some bytes into `bytes` and adds the descriptors that came with them; the kernel closes those beyond two.
pub(super) fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control: Control = [0; 4];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the header points to a buffer and a control area that outlive the call and are as long as it says. The
    // messages in the area are the kernel's, of the length that each says; the descriptors are new and ours.
    let received = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(8) as _;
        let received = libc::recvmsg(stream.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
        let mut message = if received < 0 { ptr::null_mut() } else { libc::CMSG_FIRSTHDR(&raw const header) };
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS {
                let length = (*message).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first: *const RawFd = libc::CMSG_DATA(message).cast();
                for index in 0..length / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(first.add(index).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
        received
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}
