//! Pseudo-terminals: opened, resized, and given to a child as its controlling terminal.

#![expect(unsafe_code, reason = "terminals are ioctls, which the standard library does not wrap")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use tokio::io::unix::AsyncFd;

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cols: u16,
    pub(super) rows: u16,
}

/// Our end of a pseudo-terminal.
pub(super) type Terminal = AsyncFd<File>;

/// Opens a pseudo-terminal: our end and the child's. Both are closed on exec.
pub(super) fn open(size: Size) -> io::Result<(Terminal, OwnedFd)> {
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let ours = File::options().read(true).write(true).custom_flags(flags).open("/dev/ptmx")?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int, which outlives the call.
    check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes flags by value and returns a new descriptor.
    let theirs = check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made it for us alone.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    // SAFETY: a `File` owns its descriptor, which stays the same and open as long as the file.
    let ours = unsafe { AsyncFd::register(ours) }?;
    resize(&ours, size)?;
    Ok((ours, theirs))
}

/// Changes the size; the programs in the terminal get SIGWINCH.
pub(super) fn resize(terminal: &Terminal, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one `winsize`, which outlives the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Makes `command` the leader of a new session whose controlling terminal is its standard input.
pub(super) fn control(command: &mut Command) {
    let become_leader = || {
        // SAFETY: neither call touches memory.
        check(unsafe { libc::setsid() })?;
        // SAFETY: the request takes a number by value.
        check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls and does not allocate.
    unsafe { command.pre_exec(become_leader) };
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
