//! Where root file systems come from: names that are mapped by configuration, and a Docker Engine where there is one.
//!
//! - [`flight`]: one preparation, which everybody who wants the same thing shares
//! - [`prepare`]: what a preparation does
//! - [`interpret`], [`dockerfile`], [`expand`]: Dockerfiles that need no builder
//! - [`docker`], [`context`]: builds, pulls and exports by Docker
//! - [`nesting`]: images with a Docker Engine in them
//! - [`archive`]: unpacks a root file system
//!
//! What has been prepared is kept until the server ends.

mod archive;
mod context;
mod docker;
mod dockerfile;
mod expand;
mod flight;
mod interpret;
mod nesting;
mod prepare;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

pub(super) use self::flight::Flight;
use super::options::{DockerChoice, ImageSource, LocalOptions};
use super::snapshots::DEFAULT;
use super::state::Control;
use super::storage::hex;
use crate::api::snapshot::BuildInfo;
use crate::local::spec::RootFs;

/// What Daytona's server takes where an image says nothing.
const NO_ENTRYPOINT: [&str; 2] = ["sleep", "infinity"];
/// Builds, pulls and exports at the same time.
const AT_ONCE: usize = 4;
/// At the server's end, unpacking threads may take this long to notice.
const UNPACK_LIMIT: Duration = Duration::from_secs(10);

/// A root file system and what its image says about processes in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) root: RootFs,
    /// Who the toolbox, and so a command, runs as: name or number, optionally with `:group`.
    pub(super) user: String,
    pub(super) env: BTreeMap<String, String>,
    /// The user's home where absent.
    pub(super) work_dir: Option<PathBuf>,
    /// What the toolbox starts beside itself.
    pub(super) entrypoint: Vec<String>,
    /// Whether a Docker Engine is to work in it.
    pub(super) nesting: bool,
}

impl Image {
    /// A root file system of which nothing else is known.
    pub(super) fn plain(root: RootFs) -> Self {
        let user = match root {
            RootFs::Host => "daytona",
            RootFs::Directory(_) => "root",
        };
        let entrypoint = NO_ENTRYPOINT.map(str::to_owned).to_vec();
        let nesting = nesting::is_for_containers(&root);
        Self { root, user: user.to_owned(), env: BTreeMap::new(), work_dir: None, entrypoint, nesting }
    }

    /// What is really to be started: what only keeps a container alive is not, since the toolbox does.
    pub(super) fn started(&self) -> Vec<String> {
        if self.entrypoint == NO_ENTRYPOINT { Vec::new() } else { self.entrypoint.clone() }
    }
}

/// What a snapshot or a sandbox is to be made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Nothing has to be done.
    Ready(Image),
    /// A file with a root file system.
    Archive(PathBuf),
    /// An image by a name that is not mapped.
    Pull(String),
    /// A Dockerfile.
    Build(Build),
    /// An image that Docker has, by its id.
    Exported(String),
}

/// A Dockerfile with the contexts that it copies from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Build {
    /// What Daytona calls the image: the same for the same Dockerfile and contexts.
    pub(super) reference: String,
    dockerfile: String,
    /// Hashes of uploaded archives, in order of appearance.
    contexts: Vec<String>,
}

impl Build {
    pub(super) fn new(info: &BuildInfo) -> Self {
        let mut hashes = info.context_hashes.clone();
        hashes.sort();
        let digest = Sha256::digest(format!("{}{}", info.dockerfile_content, hashes.concat()));
        Self {
            reference: format!("daytona-{}:daytona", hex(&digest)),
            dockerfile: info.dockerfile_content.clone(),
            contexts: info.context_hashes.clone(),
        }
    }
}

impl Source {
    /// Names the preparation; sources with the same key share one.
    fn key(&self) -> String {
        match self {
            Self::Ready(image) => format!("ready:{image:?}"),
            Self::Archive(path) => format!("archive:{}", path.display()),
            Self::Pull(image) => format!("pull:{image}"),
            Self::Build(build) => build.reference.clone(),
            Self::Exported(id) => format!("image:{id}"),
        }
    }
}

impl From<&ImageSource> for Source {
    fn from(source: &ImageSource) -> Self {
        match source {
            ImageSource::Host => Self::Ready(Image::plain(RootFs::Host)),
            ImageSource::Directory(path) => Self::Ready(Image::plain(RootFs::Directory(path.clone()))),
            ImageSource::Archive(path) => Self::Archive(path.clone()),
        }
    }
}

/// Everything that is prepared, or was.
#[derive(Debug)]
pub(super) struct Images {
    mapped: BTreeMap<String, ImageSource>,
    directory: PathBuf,
    docker: DockerChoice,
    flights: Mutex<HashMap<String, Arc<Flight>>>,
    next: AtomicU64,
    permits: Semaphore,
    /// A permit for each thread that unpacks.
    unpacking: Arc<Semaphore>,
}

impl Images {
    /// Keeps everything in `directory`, which need not exist.
    pub(super) fn new(options: &LocalOptions, directory: PathBuf) -> Self {
        let mut mapped = options.images.clone();
        mapped.entry(DEFAULT.to_owned()).or_insert(ImageSource::Host);
        Self {
            mapped,
            directory,
            docker: options.docker,
            flights: Mutex::default(),
            next: AtomicU64::new(0),
            permits: Semaphore::new(AT_ONCE),
            unpacking: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The source of a name that is mapped by configuration, also under the names that Docker has for the same image.
    pub(super) fn mapped(&self, name: &str) -> Option<Source> {
        let short = short(name);
        let tagged = format!("{short}:latest");
        let mapped = [name, short, tagged.as_str()].iter().find_map(|name| self.mapped.get(*name))?;
        if *mapped == ImageSource::Host && nesting::is_engine(name) {
            return Some(Source::Ready(nesting::of_host()));
        }
        Some(Source::from(mapped))
    }

    /// The image, if it has been prepared.
    pub(super) fn ready(&self, source: &Source) -> Option<Image> {
        if let Source::Ready(image) = source {
            return Some(image.clone());
        }
        self.flights().get(&source.key()).and_then(|flight| flight.ready())
    }

    /// The preparation of a source: begun now, under way, or done. A failed one is begun again.
    pub(super) fn join(&self, control: &Control, source: &Source) -> Arc<Flight> {
        let mut flights = self.flights();
        let key = source.key();
        if let Some(flight) = flights.get(&key) {
            return Arc::clone(flight);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let flight = Arc::new(Flight::new(self.directory.join("logs").join(number.to_string())));
        flights.insert(key.clone(), Arc::clone(&flight));
        control.spawn(prepare::run(control.clone(), key, source.clone(), Arc::clone(&flight)));
        flight
    }

    /// Waits until no thread writes into the directory any more; the server is closing.
    pub(super) async fn settle(&self) {
        let idle = self.unpacking.acquire_many(u32::try_from(AT_ONCE).unwrap_or(1));
        if tokio::time::timeout(UNPACK_LIMIT, idle).await.is_err() {
            tracing::warn!("a root file system is still being unpacked");
        }
    }

    /// A directory that does not exist yet, for a root file system.
    fn new_root(&self) -> PathBuf {
        self.directory.join("roots").join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image's name without what Docker adds to those of its own library.
fn short(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_named_as_daytona_names_them() {
        let info = |contexts: &[&str]| BuildInfo {
            dockerfile_content: "FROM debian:12.9\n".to_owned(),
            context_hashes: contexts.iter().map(|&hash| hash.to_owned()).collect(),
            ..BuildInfo::default()
        };
        assert_eq!(
            Build::new(&info(&[])).reference,
            "daytona-3eefe75cbab3273b06b7752ed6a169caf0064878e37df00498c028d7392bf52d:daytona"
        );
        assert_eq!(Build::new(&info(&["b", "a"])).reference, Build::new(&info(&["a", "b"])).reference);
    }

    #[test]
    fn a_mapped_image_is_found_by_all_its_names() {
        let names = ["python:3.12", "debian:latest"];
        let images = names.iter().map(|&name| (name.to_owned(), ImageSource::Host)).collect();
        let images = Images::new(&LocalOptions { images, ..LocalOptions::default() }, PathBuf::new());
        for name in ["python:3.12", "docker.io/library/python:3.12", "library/python:3.12", "debian"] {
            assert!(images.mapped(name).is_some(), "{name}");
        }
        for name in ["python", "python:3.13", "other/python:3.12"] {
            assert!(images.mapped(name).is_none(), "{name}");
        }
    }
}
