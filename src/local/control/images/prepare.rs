//! What a preparation does: each is one task, which goes on when those who asked for it have gone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::archive::{self, Stop};
use super::flight::Flight;
use super::{Build, Image, Images, Source, context, docker, interpret, nesting};
use crate::local::control::options::DockerChoice;
use crate::local::control::state::{Control, closed};
use crate::local::spec::RootFs;

/// The isolation in which containers can run.
const NESTING: &str = "namespaces/root-idmap";
/// As long as Daytona gives a build.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Prepares `source`, and tells `flight` about it.
pub(super) async fn run(control: Control, key: String, source: Source, flight: Arc<Flight>) {
    let result = tokio::select! {
        result = prepare(&control, &source, &flight) => result,
        () = closed(control.closing.subscribe()) => Err("Local Daytona is shutting down".to_owned()),
        () = tokio::time::sleep(LIMIT) => Err(format!("it took longer than {} minutes", LIMIT.as_secs() / 60)),
    };
    let result = result.map_err(|reason| {
        let tail = flight.tail();
        flight.say(&reason);
        // whoever asks from now on tries again
        control.images.flights().remove(&key);
        if tail.trim().is_empty() { reason } else { format!("{reason}\n{}", tail.trim_end()) }
    });
    flight.finish(result);
}

async fn prepare(control: &Control, source: &Source, flight: &Flight) -> Result<Image, String> {
    let images = &control.images;
    match source {
        Source::Ready(image) => Ok(image.clone()),
        Source::Archive(path) => {
            flight.begin();
            flight.say(&format!("unpacking {}", path.display()));
            let (root, path) = (images.new_root(), path.clone());
            let target = root.clone();
            let unpacked = images.unpack(move |stop| archive::unpack_file(&path, &target, stop)).await;
            unpacked.map_err(|error| {
                format!("cannot unpack the root file system: {}", archive::explain(&error))
            })?;
            Ok(Image::plain(RootFs::Directory(root)))
        }
        Source::Pull(name) => pull(control, name, flight).await,
        Source::Build(build) => match interpret::read(&build.dockerfile) {
            Ok(settings) => match mapped_or_own(control, &settings.base).await {
                Some(base) => {
                    flight.begin();
                    flight.say(&format!("FROM {}: no builder is needed", settings.base));
                    let base = base_of(control, &base).await?;
                    match settings.apply(base) {
                        Ok(image) => Ok(image),
                        Err(line) => docker_build(control, build, &line, flight).await,
                    }
                }
                None => docker_build(control, build, &unmapped(&settings.base), flight).await,
            },
            Err(line) => docker_build(control, build, &line, flight).await,
        },
        Source::Exported(id) => {
            let _permit = images.permits.acquire().await.map_err(|error| error.to_string())?;
            flight.begin();
            export(images, id).await
        }
    }
}

/// Another preparation that this one needs. Boxed, since it is of the same kind.
async fn base_of(control: &Control, source: &Source) -> Result<Image, String> {
    control.images.join(control, source).outcome().await
}

/// An image by a name that is not mapped. One with a Docker Engine in it need not be fetched.
async fn pull(control: &Control, name: &str, flight: &Flight) -> Result<Image, String> {
    match fetch(control, name, flight).await {
        Ok(id) => base_of(control, &Source::Exported(id)).await,
        Err(reason) if nesting::is_engine(name) => own_engine(control, name, &reason, flight),
        Err(reason) => Err(reason),
    }
}

/// The image by this name without a builder: mapped, or one with a Docker Engine that Docker is not there to fetch.
async fn mapped_or_own(control: &Control, name: &str) -> Option<Source> {
    let mapped = control.images.mapped(name);
    if mapped.is_none() && nesting::is_engine(name) && require(control, "").await.is_err() {
        return Some(Source::Pull(name.to_owned()));
    }
    mapped
}

/// This machine's directories instead of an image with a Docker Engine in it, which cannot be had for `reason`.
fn own_engine(control: &Control, name: &str, reason: &str, flight: &Flight) -> Result<Image, String> {
    flight.begin();
    if control.engine.isolation().name != NESTING {
        return Err(format!(
            "{reason}. This machine's own Docker Engine could stand in for it if the server ran as root"
        ));
    }
    nesting::check_host().map_err(|missing| format!("{reason}; and {missing}"))?;
    let said = format!(
        "sandboxes of {name} are made of this machine's own directories and its Docker Engine's programs"
    );
    flight.say(&format!("{said}, since {reason}"));
    // once: what is prepared is kept
    tracing::warn!("{said}, since the image cannot be had");
    tracing::debug!("{reason}");
    Ok(nesting::of_host())
}

/// The id of an image that Docker has, or fetches.
async fn fetch(control: &Control, name: &str, flight: &Flight) -> Result<String, String> {
    require(control, &unmapped(name)).await?;
    let inspected = {
        let _permit = control.images.permits.acquire().await.map_err(|error| error.to_string())?;
        flight.begin();
        if docker::inspect(name).await?.is_none() {
            docker::pull(name, log(flight)?).await?;
        }
        docker::inspect(name).await?
    };
    Ok(inspected.ok_or_else(|| format!("Docker has no image {name} after it was pulled"))?.id)
}

/// Builds with Docker; `reason` is why that is necessary.
async fn docker_build(
    control: &Control,
    build: &Build,
    reason: &str,
    flight: &Flight,
) -> Result<Image, String> {
    require(control, reason).await?;
    let inspected = {
        let _permit = control.images.permits.acquire().await.map_err(|error| error.to_string())?;
        flight.begin();
        if docker::inspect(&build.reference).await?.is_some() {
            flight.say(&format!("{} has been built before", build.reference));
        } else {
            let context = context_of(control, build).await?;
            docker::build(&build.reference, &build.dockerfile, context, log(flight)?).await?;
        }
        docker::inspect(&build.reference).await?
    };
    let id = inspected.ok_or("Docker has no image after the build")?.id;
    base_of(control, &Source::Exported(id)).await
}

async fn context_of(control: &Control, build: &Build) -> Result<File, String> {
    let found = |hash: &String| {
        control.storage.context(hash).ok_or_else(|| format!("the context {hash} has not been uploaded"))
    };
    let contexts: Vec<PathBuf> = build.contexts.iter().map(found).collect::<Result<_, _>>()?;
    let (dockerfile, directory) = (build.dockerfile.clone(), control.images.directory.clone());
    let joined = control.images.unpack(move |_| {
        let path = directory.join(super::super::state::uuid());
        std::fs::create_dir_all(&directory)?;
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        // it lives as long as it is open
        std::fs::remove_file(&path)?;
        context::join(&dockerfile, &contexts, file)
    });
    joined.await.map_err(|error| format!("cannot read the build's context: {}", archive::explain(&error)))
}

async fn export(images: &Images, id: &str) -> Result<Image, String> {
    let inspected = docker::inspect(id).await?.ok_or_else(|| format!("Docker has no image {id} any more"))?;
    let root = images.new_root();
    let mut image = inspected.image(root.clone())?;
    let export = docker::Export::of(id).await?;
    let (mut child, stdout) = export.start()?;
    let stdout = stdout.into_owned_fd().map_err(|error| format!("docker export: {error}"))?;
    let unpacked = images.unpack(move |stop| archive::unpack(File::from(stdout), &root, stop)).await;
    let status = child.wait().await.map_err(|error| format!("docker export: {error}"))?;
    if !status.success() {
        return Err(format!("docker export failed ({status})"));
    }
    unpacked.map_err(|error| format!("cannot unpack the image: {}", archive::explain(&error)))?;
    image.nesting = nesting::is_for_containers(&image.root);
    Ok(image)
}

impl Images {
    /// Does something with files on a thread of its own, which is told to stop when nobody waits any more.
    async fn unpack<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AtomicBool) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let permit = Arc::clone(&self.unpacking).acquire_owned().await.map_err(std::io::Error::other)?;
        let stop = Stop::default();
        let signal = stop.signal();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&signal)
        });
        let result = done.await.map_err(std::io::Error::other)?;
        drop(stop);
        result
    }
}

/// That there is a Docker Engine, or what to do without one. `reason` is what it is needed for.
async fn require(control: &Control, reason: &str) -> Result<(), String> {
    let missing = match control.images.docker {
        DockerChoice::Off => "Docker is switched off (INSPECT_DAYTONA_LOCAL_DOCKER=off)".to_owned(),
        DockerChoice::Auto => match docker::probe().await {
            Ok(()) => return Ok(()),
            Err(error) => format!("no Docker Engine answers ({error})"),
        },
    };
    Err(format!(
        "{reason}, and {missing}. Install Docker where this server runs (Debian: apt-get install docker.io), or base the \
         Dockerfile on an image that is mapped to a root file system and use only FROM, ENV, WORKDIR, USER, ENTRYPOINT, \
         CMD, LABEL, EXPOSE and ARG"
    ))
}

/// That a name is not mapped, and how it can be.
fn unmapped(image: &str) -> String {
    format!(
        "local Daytona has no root file system for the image {image} (to map it, start local Daytona with \
         INSPECT_DAYTONA_LOCAL_IMAGES={image}=/path, where the path is a directory or a .tar or .tar.gz file, or with \
         {image}=host for this machine's own system directories)"
    )
}

fn log(flight: &Flight) -> Result<File, String> {
    flight
        .open()
        .map_err(|error| format!("cannot write the log {}: {error}", Path::new(flight.log()).display()))
}
