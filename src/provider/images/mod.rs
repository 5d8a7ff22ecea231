//! Images, prepared once: each distinct image, build and size becomes one snapshot that all samples start from.
//!
//! A snapshot's name is a hash of all that makes it, so that an unchanged image is never built twice, by whatever process
//! or user of the account, and a changed one never mistaken. Nothing deletes these snapshots: the next eval wants
//! them, and the platform retires the ones that nobody uses.

pub(super) mod archive;
mod files;
mod recipe;
mod shim;
mod snapshot;
mod upload;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::api::snapshot::{BuildInfo, CreateSnapshot, SnapshotState};
use crate::client::Client;
use crate::config::{ComposeProject, ImageSource, SandboxPlan};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::compose::{Project, Projects};
use files::ContextFiles;
pub(super) use recipe::from;
use recipe::{Recipe, of_image, recipe};

/// Is told what happens, in lines for a user.
pub type Progress<'a> = dyn Fn(&str) + Send + Sync + 'a;

/// Part of every hash: another way of making snapshots is another snapshot.
const VERSION: &str = "inspect-daytona 1";
/// Keeps a sandbox alive whose image would end by itself, as that of `python` does without a terminal.
const ENTRYPOINT: [&str; 2] = ["sleep", "infinity"];

/// Images that were prepared by this process. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Images(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By what the configuration says: what samples start from. The lock is held while it is being prepared.
    prepared: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Prepared>>>>>,
    /// By snapshot name, since different configurations may have the same content.
    snapshots: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<CreateSnapshot>>>>>,
    /// Projects of several services.
    projects: Projects,
}

/// What sandboxes are created from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    /// The platform's default snapshot.
    Default,
    /// A snapshot, which brings its own resources.
    Snapshot(String),
    /// A build with each sandbox.
    Build(BuildInfo),
}

impl Images {
    /// What samples of `plan` start from; prepared now unless it was before. With `fresh`, files are read again, since
    /// they may have changed since another eval of this process.
    ///
    /// # Errors
    ///
    /// What is wrong with the build's files, or kept the platform from making the image.
    pub(super) async fn prepare(
        &self,
        client: &Client,
        plan: &SandboxPlan,
        fresh: bool,
        progress: &Progress<'_>,
    ) -> Result<Prepared> {
        let service = &plan.service;
        match &service.image {
            ImageSource::Default => return Ok(Prepared::Default),
            ImageSource::Snapshot(name) => return Ok(Prepared::Snapshot(name.clone())),
            ImageSource::Image(_) | ImageSource::Build(_) => {}
        }
        let region = plan.settings.target.clone().or_else(|| client.options().target.clone());
        let image = (&service.image, service.replaces_entrypoint());
        let what = (image, &service.resources, &region, &plan.settings.class, plan.settings.prepare);
        let key = serde_json::to_string(&what).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "the image's configuration has no JSON").with_source(error)
        })?;
        let slot = entry(&self.0.prepared, &key);
        let mut slot = slot.lock().await;
        if let (Some(prepared), false) = (&*slot, fresh) {
            return Ok(prepared.clone());
        }
        let recipe = recipe(client, service).await?;
        for note in &recipe.notes {
            tracing::warn!("{note}");
        }
        let prepared = if plan.settings.prepare {
            let request = request(&recipe, plan, region)?;
            self.snapshot(client, &request, recipe.files, progress).await?;
            Prepared::Snapshot(request.name)
        } else {
            let build = recipe.build.unwrap_or_else(|| from(recipe.image.as_deref().unwrap_or_default()));
            upload::upload(client, &build, recipe.files, progress).await?;
            Prepared::Build(build)
        };
        *slot = Some(prepared.clone());
        Ok(prepared)
    }

    /// The project of several services, read now unless it was before; with `fresh`, read again.
    ///
    /// # Errors
    ///
    /// What is wrong with the project's files.
    pub(super) async fn project(&self, plan: &ComposeProject, fresh: bool) -> Result<Arc<Project>> {
        self.0.projects.read(plan, fresh).await
    }

    /// The snapshot `name` of `image`, made unless it exists; where the task asks for it, the account has no room for it or
    /// the key may not make it, the image with each sandbox.
    ///
    /// # Errors
    ///
    /// What else keeps the platform from making the snapshot.
    pub(super) async fn prepare_named(
        &self,
        client: &Client,
        plan: &SandboxPlan,
        name: &str,
        image: &str,
        progress: &Progress<'_>,
    ) -> Result<Prepared> {
        if !plan.settings.prepare {
            return Ok(Prepared::Build(from(image)));
        }
        let slot = entry(&self.0.prepared, &format!("snapshot {name}"));
        let mut slot = slot.lock().await;
        if let Some(prepared) = &*slot {
            return Ok(prepared.clone());
        }
        let region = plan.settings.target.clone().or_else(|| client.options().target.clone());
        let mut request = request(&of_image(image)?, plan, region)?;
        name.clone_into(&mut request.name);
        let prepared = match self.snapshot(client, &request, ContextFiles::default(), progress).await {
            Ok(()) => Prepared::Snapshot(request.name),
            Err(error)
                // a class is a snapshot's alone
                if !plan.settings.is_virtual_machine()
                    && matches!(
                        error.kind(),
                        ErrorKind::Forbidden | ErrorKind::QuotaExceeded | ErrorKind::LimitExceeded
                    ) =>
            {
                tracing::warn!(
                    "the snapshot {name} cannot be made, so each sandbox starts from the image {image}, which takes \
                     longer: {error}"
                );
                Prepared::Build(from(image))
            }
            Err(error) => return Err(error),
        };
        *slot = Some(prepared.clone());
        Ok(prepared)
    }

    /// Checks that nothing has to be built for `plan`. Images that are only pulled are no matter of this.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] if something has to.
    pub(super) async fn expect_prebuilt(&self, client: &Client, plan: &SandboxPlan) -> Result<()> {
        let ImageSource::Build(_) = &plan.service.image else { return Ok(()) };
        let missing = |what: String| {
            Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("sandbox images are expected to be prebuilt (sandbox_prebuilt is set), but {what}"),
            )
            .with_hint("Run the eval once without --sandbox-prebuilt, which builds what is missing"))
        };
        if !plan.settings.prepare {
            return missing("`prepare: false` in x-daytona builds with each sandbox".to_owned());
        }
        let region = plan.settings.target.clone().or_else(|| client.options().target.clone());
        let recipe = recipe(client, &plan.service).await?;
        let name = request(&recipe, plan, region)?.name;
        match client.snapshots().find(&name).await?.map(|found| found.state) {
            Some(SnapshotState::Active | SnapshotState::Inactive) => Ok(()),
            Some(_) => missing(format!("the snapshot {name} of the Dockerfile and its files is not ready")),
            None => missing(format!("there is no snapshot {name} of the Dockerfile and its files")),
        }
    }

    async fn snapshot(
        &self,
        client: &Client,
        request: &CreateSnapshot,
        files: ContextFiles,
        progress: &Progress<'_>,
    ) -> Result<()> {
        let lock = entry(&self.0.snapshots, &request.name);
        let mut made = lock.lock().await;
        if let Some(build) = &request.build_info {
            let found = client.snapshots().find(&request.name).await?;
            // the files are needed only where something may have to be built
            if found.is_none_or(|found| found.state != SnapshotState::Active) {
                upload::upload(client, build, files, progress).await?;
            }
        }
        snapshot::ensure(client, request, progress).await?;
        *made = Some(request.clone());
        Ok(())
    }

    /// Where a prepared image has the shim, if it has it.
    pub(super) async fn shim(&self, image: &Prepared) -> Option<String> {
        let is_there = match image {
            Prepared::Default => false,
            Prepared::Build(build) => shim::is_in(build),
            Prepared::Snapshot(name) => {
                let made = entry(&self.0.snapshots, name);
                let made = made.lock().await;
                made.as_ref().and_then(|request| request.build_info.as_ref()).is_some_and(shim::is_in)
            }
        };
        is_there.then(shim::path)
    }

    /// Brings back a snapshot that this process prepared and that was retired or deleted since. Returns whether it is
    /// one of those.
    ///
    /// # Errors
    ///
    /// What keeps it from coming back.
    pub(super) async fn renew(&self, client: &Client, name: &str) -> Result<bool> {
        let lock = entry(&self.0.snapshots, name);
        let made = lock.lock().await;
        let Some(request) = &*made else { return Ok(false) };
        snapshot::ensure(client, request, &|line| tracing::info!("{line}")).await?;
        Ok(true)
    }
}

/// An error about a build with the end of its log, where there is one.
pub(super) fn with_log(error: Error, log: Result<String>) -> Error {
    match log.map(|log| snapshot::tail(&log)).unwrap_or_default().as_str() {
        "" => error,
        log => {
            let message = format!("{}\nThe build's log ends with:\n{log}", error.message());
            Error::new(error.kind(), message).with_source(error)
        }
    }
}

fn entry<T: Default>(map: &Mutex<HashMap<String, Arc<T>>>, key: &str) -> Arc<T> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(map.entry(key.to_owned()).or_default())
}

/// The request for the snapshot, named by a hash of all the rest of it.
fn request(recipe: &Recipe, plan: &SandboxPlan, region: Option<String>) -> Result<CreateSnapshot> {
    let resources = &plan.service.resources;
    let gpu_type = match resources.gpu_types.as_slice() {
        [_, _, ..] => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "an image that is prepared takes one `gpu_type`, not several",
            )
            .with_hint("Name one, or set `prepare: false` in x-daytona to build with each sandbox"));
        }
        types => types.to_vec(),
    };
    let mut request = CreateSnapshot {
        name: String::new(),
        // built images have their entrypoint in the Dockerfile
        entrypoint: recipe.image.is_some().then(|| ENTRYPOINT.map(str::to_owned).to_vec()),
        image_name: recipe.image.clone(),
        build_info: recipe.build.clone(),
        cpu: resources.cpu,
        gpu: resources.gpu,
        gpu_type,
        memory: resources.memory,
        disk: resources.disk,
        region_id: region,
        // containers are what servers make where nothing is said
        sandbox_class: plan.settings.class.clone().filter(|_| plan.settings.is_virtual_machine()),
    };
    let text = serde_json::to_vec(&request).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "the snapshot's request has no JSON").with_source(error)
    })?;
    let digest = Sha256::new().chain_update(VERSION).chain_update(text).finalize();
    "inspect-".clone_into(&mut request.name);
    for byte in &digest[..16] {
        // writing to a string cannot fail
        let _ = write!(request.name, "{byte:02x}");
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Resources, Service, XDaytona};

    fn plan(resources: Resources) -> SandboxPlan {
        let service = Service { resources, ..Service::default() };
        SandboxPlan { service, settings: XDaytona::default(), warnings: Vec::new() }
    }

    fn name(image: &str, plan: &SandboxPlan, region: Option<&str>) -> String {
        request(&of_image(image).unwrap(), plan, region.map(str::to_owned)).unwrap().name
    }

    #[test]
    fn a_name_tells_image_resources_class_and_region_apart() {
        let none = plan(Resources::default());
        let large = plan(Resources { memory: Some(8), ..Resources::default() });
        let mut machine = none.clone();
        machine.settings.class = Some("linux-vm".to_owned());
        let first = name("python:3.12", &none, None);
        assert_eq!(first, name("python:3.12", &none, None));
        assert!(first.strip_prefix("inspect-").is_some_and(|hash| hash.len() == 32), "{first}");
        for other in [
            name("python:3.13", &none, None),
            name("python:3.12", &large, None),
            name("python:3.12", &machine, None),
            name("python:3.12", &none, Some("eu")),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn images_that_may_change_any_day_are_built_from() {
        for moving in ["python", "python:latest", "localhost:5000/python", "a/b"] {
            let recipe = of_image(moving).unwrap();
            assert_eq!(recipe.image, None, "{moving}");
            assert_eq!(recipe.build.unwrap().dockerfile_content, format!("FROM {moving}\n"));
        }
        let digest = format!("python@sha256:{}", "a".repeat(64));
        for pinned in ["python:3.12", "localhost:5000/python:1", digest.as_str()] {
            assert_eq!(of_image(pinned).unwrap().image.as_deref(), Some(pinned));
        }
        assert!(of_image("a$b").is_err() && of_image("").is_err());
    }

    #[test]
    fn several_gpu_types_need_a_build_with_each_sandbox() {
        let resources = Resources {
            gpu: Some(1),
            gpu_types: vec!["a".to_owned(), "b".to_owned()],
            ..Resources::default()
        };
        let error = request(&of_image("a:1").unwrap(), &plan(resources), None).unwrap_err();
        assert!(error.to_string().contains("prepare: false"), "{error}");
    }
}
