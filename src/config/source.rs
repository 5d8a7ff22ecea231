//! Where a configuration comes from, and what surrounds it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::files::{FileKind, Files};
use crate::error::{Error, ErrorKind, Result};

/// The names that are looked for in a task's directory, in this order.
pub const CONFIG_FILES: [&str; 5] =
    ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "Dockerfile"];

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// There is none: the platform's default snapshot.
    None,
    /// A Dockerfile.
    Dockerfile(PathBuf),
    /// A compose file.
    Compose(PathBuf),
    /// The JSON of an Inspect `ComposeConfig`.
    Model(String),
    /// JSON with the keys of `x-daytona` alone.
    Settings(String),
}

impl Source {
    /// The source that a path names: a Dockerfile by the names that Docker's tools use (`Dockerfile`, `Dockerfile.x`,
    /// `x.Dockerfile`), else a compose file by its ending.
    ///
    /// # Errors
    /// `InvalidConfig` where the name is neither.
    pub fn from_path(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        if lower == "dockerfile" || lower.starts_with("dockerfile.") || lower.ends_with(".dockerfile") {
            return Ok(Self::Dockerfile(path));
        }
        if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            return Ok(Self::Compose(path));
        }
        let message = format!("{} is neither a compose file nor a Dockerfile", path.display());
        Err(Error::new(ErrorKind::InvalidConfig, message)
            .with_hint("Name it compose.yaml, anything.yaml, Dockerfile or anything.Dockerfile"))
    }

    /// The first of [`CONFIG_FILES`] that exists in `directory`.
    pub fn discover(directory: &Path, files: &dyn Files) -> Self {
        let exists = |name: &str| matches!(files.kind(&directory.join(name)), Ok(FileKind::File { .. }));
        match CONFIG_FILES.into_iter().find(|name| exists(name)) {
            Some(name) if name == "Dockerfile" => Self::Dockerfile(directory.join(name)),
            Some(name) => Self::Compose(directory.join(name)),
            None => Self::None,
        }
    }
}

/// What surrounds a configuration.
pub struct Context<'a> {
    /// The task's directory, absolute: where relative paths start that no file contains.
    pub directory: &'a Path,
    /// This machine's environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// The sample's metadata, each value as Python's `str()` shows it; empty where no sample is concerned.
    pub metadata: &'a BTreeMap<String, String>,
    /// The files.
    pub files: &'a dyn Files,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment holds keys.
        f.debug_struct("Context").field("directory", &self.directory).finish_non_exhaustive()
    }
}
