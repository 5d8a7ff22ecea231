//! The runner program, carried inside this library.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::local::wire::{Context, Failure};

static PROGRAM: &[u8] = include_bytes!(env!("INSPECT_DAYTONA_RUNNER"));
const NAME: &str = "inspect-daytona-runner";

/// Starts the program with `socket` as its standard input and an empty environment.
pub(super) fn start(socket: &OwnedFd, directory: &Path) -> Result<Child, Failure> {
    let in_memory = in_memory().and_then(|file| {
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        spawn(&path, socket.try_clone()?)
    });
    if let Ok(child) = in_memory {
        return Ok(child);
    }
    // systems may forbid programs in memory files
    let path = on_disk(directory).step(|| format!("write the runner to {}", directory.display()))?;
    let socket = socket.try_clone().step(|| "copy the runner's socket".into())?;
    spawn(&path, socket).step(|| format!("start the runner {}", path.display()))
}

fn spawn(path: &Path, socket: OwnedFd) -> io::Result<Child> {
    Command::new(path)
        .arg0(NAME)
        .env_clear()
        .current_dir("/")
        .stdin(socket)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// A sealed memory file: nothing in a sandbox can change the program that others run.
fn in_memory() -> io::Result<File> {
    // the bit is absent from older headers; kernels before 6.3 refuse it
    let executable = MFdFlags::from_bits_retain(0x10);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let made = memfd_create(c"inspect-daytona-runner", flags | executable);
    let mut file = File::from(made.or_else(|_| memfd_create(c"inspect-daytona-runner", flags))?);
    file.write_all(PROGRAM)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

fn on_disk(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join(NAME);
    // users of sandboxes exec it too, by descriptor; the directory keeps others away
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&path)?;
    file.write_all(PROGRAM)?;
    Ok(path)
}
