//! What is remembered about execs, in the file system beside the shim.
//!
//! `<state>/<id>/` is a claim: the directory of an exec that was started, with the supervisor's `socket`, later the
//! `result`, and the outputs that are too large for it. It appears by one rename, which fails if it is there already;
//! that elects the delivery that runs the command. `<state>/done/<id>` is a tombstone: an exec that was collected, or
//! killed before it began, and never runs again.
//!
//! A supervisor also listens without a file, so that a command that deletes the state does not run again either.
//!
//! A tombstone is laid before its claim is looked at or removed, and a claimant looks for a tombstone after it
//! claimed. So of a start and a kill that cross, or a collection and a late repeat, at least one sees the other.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime};

use super::protocol::{ExecId, Reply};
use super::system;

/// How long a tombstone stays: well over the time for which a proxy may hold a request back.
const TOMBSTONE_AGE: Duration = Duration::from_secs(3600);
/// How often old tombstones are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Where state is kept if the shim lies in a directory that its user may not write to, such as an image's.
const FALLBACKS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// The state of one user's execs.
#[derive(Clone)]
pub(super) struct State {
    root: PathBuf,
    /// Under sudo, the user who asked: it fetches large outputs through the toolbox.
    reader: Option<u32>,
}

/// What a claim came to.
pub(super) enum Claim {
    /// This process runs the command, and whoever asks for it connects here.
    Won(UnixListener),
    /// The command was started before.
    Taken,
    /// The exec was collected or killed before.
    Buried,
}

impl State {
    /// The state of this process's user, created if needed; `reader` is who asked through sudo.
    pub(super) fn open(shim: &Path, reader: Option<u32>) -> io::Result<Self> {
        let user = system::effective_user();
        let mut refused = io::Error::from(io::ErrorKind::NotFound);
        for root in roots(shim, user) {
            if let Err(error) = ensure_private(&root, reader) {
                use io::ErrorKind::{AlreadyExists, NotFound, PermissionDenied, ReadOnlyFilesystem};
                if matches!(error.kind(), AlreadyExists | NotFound | PermissionDenied | ReadOnlyFilesystem) {
                    refused = error;
                    continue;
                }
                return Err(error);
            }
            let state = Self { root, reader };
            state.ensure_done()?;
            if reader.is_some() {
                fs::set_permissions(&state.root, Permissions::from_mode(0o711))?;
            }
            return Ok(state);
        }
        Err(refused)
    }

    /// The state of this process's user in the directory `root`, created if needed.
    pub(super) fn open_at(root: PathBuf) -> io::Result<Self> {
        ensure_private(&root, None)?;
        let state = Self { root, reader: None };
        state.ensure_done()?;
        Ok(state)
    }

    fn ensure_done(&self) -> io::Result<()> {
        match create_private(&self.root.join("done"), None) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// The directory of an exec.
    pub(super) fn directory(&self, id: ExecId) -> PathBuf {
        self.root.join(id.to_string())
    }

    /// Whether the exec was started here and not collected since.
    pub(super) fn is_claimed(&self, id: ExecId) -> bool {
        self.directory(id).exists() || connect_without_file(id).is_ok()
    }

    fn tombstone(&self, id: ExecId) -> PathBuf {
        self.root.join("done").join(id.to_string())
    }

    /// Whether the exec must not start any more.
    pub(super) fn is_buried(&self, id: ExecId) -> bool {
        self.tombstone(id).exists()
    }

    /// Lays the tombstone of an exec.
    pub(super) fn bury(&self, id: ExecId) -> io::Result<()> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.tombstone(id)).map(drop)
    }

    /// Claims the exec `id` for this process, unless another one did.
    pub(super) fn claim(&self, id: ExecId) -> io::Result<Claim> {
        if self.is_claimed(id) {
            return Ok(Claim::Taken);
        }
        if self.is_buried(id) {
            return Ok(Claim::Buried);
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let prepared = self.root.join(format!(".new-{id}-{}-{now}", process::id()));
        create_private(&prepared, self.reader)?;
        let claimed = through_short_path(&prepared, |path| UnixListener::bind(path)).and_then(|listener| {
            match fs::rename(&prepared, self.directory(id)) {
                Ok(()) => Ok(Claim::Won(listener)),
                Err(_) if self.is_claimed(id) => Ok(Claim::Taken),
                Err(error) => Err(error),
            }
        });
        if !matches!(claimed, Ok(Claim::Won(_))) {
            drop(fs::remove_dir_all(&prepared));
        } else if self.is_buried(id) {
            self.remove(id)?;
            return Ok(Claim::Buried);
        }
        claimed
    }

    /// Connects to the supervisor of an exec.
    pub(super) fn connect(&self, id: ExecId) -> io::Result<UnixStream> {
        through_short_path(&self.directory(id), |path| UnixStream::connect(path))
            .or_else(|_| connect_without_file(id))
    }

    /// The result of an exec, if it has one.
    pub(super) fn result(&self, id: ExecId) -> Option<Reply> {
        let record = fs::read(self.directory(id).join("result")).ok()?;
        Some(
            Reply::decode(&record)
                .unwrap_or_else(|error| Reply::Lost(format!("the result is damaged: {error}"))),
        )
    }

    /// Stores the result of an exec, all of it or nothing.
    pub(super) fn store_result(&self, id: ExecId, record: &[u8]) -> io::Result<()> {
        let directory = self.directory(id);
        let unfinished = directory.join("result.new");
        fs::write(&unfinished, record)
            .and_then(|()| fs::rename(&unfinished, directory.join("result")))
            .inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }

    /// Stores an output of an exec as the file `name`; returns its path.
    pub(super) fn store_output(&self, id: ExecId, name: &str, parts: (&[u8], &[u8])) -> io::Result<PathBuf> {
        let path = self.directory(id).join(name);
        let write = |mut file: File| {
            file.write_all(parts.0)?;
            file.write_all(parts.1)?;
            self.reader.map_or(Ok(()), |reader| fchown(&file, Some(reader), None))
        };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| write(file).inspect_err(|_| drop(fs::remove_file(&path))))?;
        Ok(path)
    }

    /// A file without a name, which is gone when nobody has it open.
    pub(super) fn unnamed_file(&self) -> io::Result<File> {
        let path = self.root.join(format!(".read-{}", process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(path)?;
        Ok(file)
    }

    /// Forgets the results that were received. One that cannot be removed stays; it does no harm.
    pub(super) fn acknowledge(&self, ids: &[ExecId]) {
        for id in ids {
            if self.bury(*id).is_ok() && self.is_claimed(*id) {
                let stored = self.directory(*id).join("result").exists();
                // A result without a file is still held by its supervisor; so is a command without a result.
                if stored || self.connect(*id).and_then(|mut stream| stream.write_all(b"a")).is_err() {
                    drop(self.remove(*id));
                }
            }
        }
        if !ids.is_empty() {
            self.sweep();
        }
    }

    /// Under sudo: removes what the asking user received meanwhile, since its calls cannot reach this state.
    pub(super) fn acknowledge_for_reader(&self, shim: &Path) {
        let Some(reader) = self.reader else { return };
        let collected: Vec<_> = roots(shim, reader).map(|root| root.join("done")).collect();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.parse().ok());
            if let Some(id) = id
                && collected.iter().any(|done| done.join(&name).exists())
            {
                self.acknowledge(&[id]);
            }
        }
    }

    /// Takes a claim away at once, and its files after that.
    pub(super) fn remove(&self, id: ExecId) -> io::Result<()> {
        let removed = self.root.join(format!(".old-{id}-{}", process::id()));
        fs::rename(self.directory(id), &removed)?;
        fs::remove_dir_all(removed)
    }

    /// Removes old tombstones, and what processes left that were killed in the middle of a claim or a removal.
    fn sweep(&self) {
        let stamp = self.root.join("swept");
        if age(&stamp).is_some_and(|age| age < SWEEP_INTERVAL) || fs::write(&stamp, "").is_err() {
            return;
        }
        for directory in [self.root.clone(), self.root.join("done")] {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let is_ours =
                    directory != self.root || entry.file_name().as_encoded_bytes().starts_with(b".");
                if is_ours && age(&path).is_some_and(|age| age > TOMBSTONE_AGE) {
                    drop(fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)));
                }
            }
        }
    }
}

/// The address of an exec's supervisor that no deletion takes away, for as long as it lives.
fn address_without_file(id: ExecId) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("inspect-daytona-{id}"))
}

/// Listens for those who find no claim of the exec `id` because its command deleted the state, or another shim has
/// another one; such an exec would run twice.
pub(super) fn listen_without_file(id: ExecId) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&address_without_file(id)?)
}

fn connect_without_file(id: ExecId) -> io::Result<UnixStream> {
    let stream = UnixStream::connect_addr(&address_without_file(id)?)?;
    if is_trusted(&stream) { Ok(stream) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Whether the other end of a connection without a file is this user or root. Everybody can reach it who has this
/// network: that may be another container, whose root is none here.
pub(super) fn is_trusted(stream: &UnixStream) -> bool {
    let is_ours = |user| user == 0 || user == system::effective_user();
    system::peer(stream).is_ok_and(|peer| peer.is_visible && is_ours(peer.user))
}

/// Where the state of `user` may be, best first.
fn roots(shim: &Path, user: u32) -> impl Iterator<Item = PathBuf> {
    let beside = shim.parent().map(|directory| directory.join(user.to_string()));
    let elsewhere = FALLBACKS.map(|directory| Path::new(directory).join(format!(".inspect-daytona-{user}")));
    beside.into_iter().chain(elsewhere)
}

/// Makes the directory at `path` unless it is there. One that anybody else could have put there is not trusted.
fn ensure_private(path: &Path, reader: Option<u32>) -> io::Result<()> {
    match create_private(path, reader) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path)?;
            let is_ours = found.uid() == system::effective_user() && found.mode() & 0o022 == 0;
            if found.is_dir() && is_ours { Ok(()) } else { Err(error) }
        }
        result => result,
    }
}

fn create_private(path: &Path, reader: Option<u32>) -> io::Result<()> {
    DirBuilder::new().mode(if reader.is_some() { 0o711 } else { 0o700 }).create(path)
}

fn age(path: &Path) -> Option<Duration> {
    fs::symlink_metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

/// Uses the socket in `directory` by a path short enough for a socket's address, which holds 107 bytes.
pub(super) fn through_short_path<T>(
    directory: &Path,
    with: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let path = directory.join("socket");
    if path.as_os_str().len() <= 107 {
        return with(&path);
    }
    let opened = File::open(directory)?;
    with(&Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join("socket"))
}
