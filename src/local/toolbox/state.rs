//! What the handlers share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use super::Options;
use super::pty::Terminals;
use super::reaper::Reaper;
use super::session::Sessions;

/// Where programs are looked for if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One toolbox.
#[derive(Debug)]
pub(super) struct Toolbox {
    pub(super) version: String,
    pub(super) work_dir: PathBuf,
    pub(super) home: PathBuf,
    pub(super) reaper: Arc<Reaper>,
    pub(super) sessions: Sessions,
    pub(super) terminals: Terminals,
    env: RwLock<Vec<(String, String)>>,
}

impl Toolbox {
    /// Prepares a toolbox and starts its reaper in the current runtime.
    pub(super) fn new(options: Options) -> io::Result<Arc<Self>> {
        let Options { user, work_dir, mut env, entrypoint: _, version } = options;
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        if !env.iter().any(|(name, _)| name == "HOME") {
            env.push(("HOME".to_owned(), home_of(&user).unwrap_or_else(|| "/".to_owned())));
        }
        let home =
            env.iter().rfind(|(name, _)| name == "HOME").map_or_else(PathBuf::new, |(_, home)| home.into());
        Ok(Arc::new(Self {
            version,
            work_dir,
            home,
            reaper: Reaper::start()?,
            sessions: Sessions::default(),
            terminals: Terminals::default(),
            env: RwLock::new(env),
        }))
    }

    /// `path` as the caller means it: relative paths begin in the work directory.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.work_dir.join(path)
    }

    /// The environment of the next command.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        self.env.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Changes the environment of later commands.
    pub(super) fn update_env(&self, change: impl FnOnce(&mut Vec<(String, String)>)) {
        change(&mut self.env.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

/// The home directory of `user`, given by name or number.
fn home_of(user: &str) -> Option<String> {
    entry_of("/etc/passwd", user).and_then(|fields| fields.get(5).cloned())
}

/// The numeric id of a user in `/etc/passwd` or of a group in `/etc/group`. A number stands for itself.
pub(super) fn id_of(database: &str, name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| entry_of(database, name)?.get(2)?.parse().ok())
}

/// The line of a colon-separated database whose name or id is `key`. Read directly, since a static program has no
/// name service.
fn entry_of(database: &str, key: &str) -> Option<Vec<String>> {
    let text = std::fs::read(database).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut entries = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    entries.find(|fields| {
        fields.first().is_some_and(|name| name == key) || fields.get(2).is_some_and(|id| id == key)
    })
}
