//! The project as the sandbox gets it: the compose file with the sandbox's paths, and one archive of the files behind
//! them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::archive::{self, Item};
use super::{binds, contexts};
use crate::config::{Build, ComposeProject, DockerfileSource, ImageSource};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::containers::{ContainerMounts, Mount};

/// Where the sandbox has the project's files.
pub(super) const DIRECTORY: &str = "/var/lib/inspect-project";

/// Beside each Dockerfile, so that the context's `.dockerignore`, which may not be the one that counts, is not read.
const NOTHING_TO_IGNORE: &[u8] = b"# what is to be left out has been left out already\n";

/// A project, ready to be sent. Every sample of a configuration shares it.
pub(in crate::provider) struct Project {
    /// The compose file, with the sandbox's paths.
    model: Value,
    /// Dockerfiles, by their path in the sandbox: they may lie outside of their context, or in the compose file itself.
    /// Each has an ignore file of its own.
    dockerfiles: Vec<(String, Bytes)>,
    /// Build contexts and bind sources, relative to [`DIRECTORY`].
    archive: Bytes,
    /// Whether Compose has to build anything.
    builds: bool,
    /// What was left out of the archive, for the user.
    notes: Vec<String>,
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // files and values of secrets are in it
        f.write_str("Project(..)")
    }
}

/// How many projects are kept. Where a sample's metadata is part of the configuration there is one for each sample, and
/// an archive may be large.
const MOST: usize = 16;

/// The projects that this process read lately, by what their configuration says; the one that was used last is in front.
/// A project's lock is held while it is read.
#[derive(Debug, Default)]
pub(in crate::provider) struct Projects(Mutex<VecDeque<(String, Slot)>>);

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Project>>>>;

impl Projects {
    /// The project of `plan`; read now unless it was before. With `fresh`, files are read again, since they may have
    /// changed since another eval of this process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] naming the file that cannot be read.
    pub(in crate::provider) async fn read(&self, plan: &ComposeProject, fresh: bool) -> Result<Arc<Project>> {
        let key = key(plan)?;
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if let (Some(project), false) = (&*slot, fresh) {
            return Ok(Arc::clone(project));
        }
        let plan = plan.clone();
        let reading = tokio::task::spawn_blocking(move || Project::read(&plan));
        let project = reading.await.unwrap_or_else(|_| Err(unexpected("reading the project broke off")))?;
        for note in &project.notes {
            tracing::warn!("{note}");
        }
        let project = Arc::new(project);
        *slot = Some(Arc::clone(&project));
        Ok(project)
    }

    fn slot(&self, key: String) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = slots.iter().position(|(known, _)| *known == key).and_then(|index| slots.remove(index));
        let slot = known.map(|(_, slot)| slot).unwrap_or_default();
        slots.push_front((key, Arc::clone(&slot)));
        // whoever still uses one that goes keeps it
        slots.truncate(MOST);
        slot
    }
}

impl Project {
    fn read(plan: &ComposeProject) -> Result<Self> {
        let mut project = Self {
            model: plan.model.0.clone(),
            dockerfiles: Vec::new(),
            archive: Bytes::new(),
            builds: false,
            notes: Vec::new(),
        };
        let mut entries = Vec::new();
        // services that share a context share its files
        let mut read = BTreeMap::new();
        for (number, service) in plan.services.iter().enumerate() {
            let section = project.service(&service.name)?;
            project.builds |= section.get("build").is_some_and(|build| !build.is_null());
            project.use_additional_contexts(&service.name, number, &plan.directory, &mut entries)?;
            let ImageSource::Build(build) = &service.image else { continue };
            let next = format!("context-{}", read.len());
            let items = contexts::collect(build, &next, &mut project.notes)?;
            let files: Vec<_> = items.iter().map(|item| item.path[next.len()..].to_owned()).collect();
            let path = read.entry((build.context.clone(), files)).or_insert_with(|| {
                entries.extend(items);
                next
            });
            let path = format!("{DIRECTORY}/{path}");
            project.use_context(&service.name, number, build, &path)?;
        }
        project.use_mounts(plan, &mut entries)?;
        project.use_profiles(plan, &mut entries)?;
        project.use_secrets(&plan.secrets, &mut entries)?;
        project.archive = archive::bytes(&entries).map_err(|error| {
            Error::new(ErrorKind::InvalidConfig, format!("a file of the project cannot be read: {error}"))
        })?;
        Ok(project)
    }

    /// What is uploaded: path in the sandbox and contents. The containers of each service have its `mounts`.
    pub(super) fn files(&self, mounts: &BTreeMap<String, ContainerMounts>) -> Result<Vec<(String, Bytes)>> {
        let mut model = self.model.clone();
        for (service, mounts) in mounts {
            let section = service_of(&mut model, service)?;
            let volumes = section.entry("volumes").or_insert_with(|| json!([]));
            let Value::Array(volumes) = volumes else {
                return Err(unexpected("the volumes of a service are no list"));
            };
            volumes.extend([&mounts.program, &mounts.state].map(volume));
        }
        let text = serde_json::to_vec(&model)
            .map_err(|error| unexpected("the compose file has no JSON").with_source(error))?;
        let mut files = self.dockerfiles.clone();
        files.push((format!("{DIRECTORY}/compose.json"), Bytes::from(text)));
        files.push((format!("{DIRECTORY}/files.tar"), self.archive.clone()));
        Ok(files)
    }

    /// Whether anything has to be built.
    pub(super) fn builds(&self) -> bool {
        self.builds
    }

    fn service(&mut self, name: &str) -> Result<&mut Map<String, Value>> {
        service_of(&mut self.model, name)
    }

    fn use_context(&mut self, service: &str, number: usize, build: &Build, context: &str) -> Result<()> {
        let text = match &build.dockerfile {
            DockerfileSource::Inline(text) => text.clone().into_bytes(),
            DockerfileSource::Path(path) => std::fs::read(path).map_err(|error| unreadable(path, &error))?,
        };
        let dockerfile = format!("{DIRECTORY}/Dockerfile-{number}");
        self.dockerfiles.push((dockerfile.clone(), Bytes::from(text)));
        self.dockerfiles.push((format!("{dockerfile}.dockerignore"), Bytes::from_static(NOTHING_TO_IGNORE)));
        let section = self.service(service)?.entry("build").or_insert_with(|| json!({}));
        if !section.is_object() {
            *section = json!({});
        }
        if let Value::Object(section) = section {
            section.insert("context".to_owned(), json!(context));
            section.insert("dockerfile".to_owned(), json!(dockerfile));
            section.remove("dockerfile_inline");
        }
        Ok(())
    }

    /// Takes along the directories that `additional_contexts` of a build name; addresses and other services stay.
    fn use_additional_contexts(
        &mut self,
        service: &str,
        number: usize,
        base: &Path,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        let mut notes = Vec::new();
        let build =
            self.service(service)?.get_mut("build").and_then(|build| build.get_mut("additional_contexts"));
        let mut bring = |place: usize, written: &str| -> Result<Option<String>> {
            let written = written.replace("$$", "$");
            let fetched = ["service:", "git@", "github.com/"].iter().any(|start| written.starts_with(start));
            if fetched || written.contains("://") {
                return Ok(None);
            }
            let source = sections::on_this_machine(base, &written);
            if !source.is_dir() {
                let message = format!("additional_contexts: there is no directory {}", source.display());
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
            let path = format!("additional-{number}-{place}");
            binds::collect(&source, &path, items, &mut notes)?;
            Ok(Some(format!("{DIRECTORY}/{path}")))
        };
        match build {
            Some(Value::Object(contexts)) => {
                for (place, value) in contexts.values_mut().enumerate() {
                    let Some(path) = value.as_str().map(|text| bring(place, text)).transpose()?.flatten()
                    else {
                        continue;
                    };
                    *value = json!(path);
                }
            }
            Some(Value::Array(contexts)) => {
                for (place, value) in contexts.iter_mut().enumerate() {
                    let Some((name, text)) = value.as_str().and_then(|text| text.split_once('=')) else {
                        continue;
                    };
                    let Some(path) = bring(place, text)? else { continue };
                    *value = json!(format!("{name}={path}"));
                }
            }
            _ => {}
        }
        self.notes.extend(notes);
        Ok(())
    }
}

/// What tells projects apart: all that the configuration says. The values of secrets are in no JSON.
fn key(plan: &ComposeProject) -> Result<String> {
    let text = serde_json::to_string(plan)
        .map_err(|error| unexpected("the compose file has no JSON").with_source(error))?;
    let mut digest = Sha256::new();
    for (name, value) in plan.secrets.iter() {
        for part in [name, value] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    Ok(format!("{text}{:x}", digest.finalize()))
}

fn service_of<'a>(model: &'a mut Value, name: &str) -> Result<&'a mut Map<String, Value>> {
    model
        .get_mut("services")
        .and_then(|services| services.get_mut(name))
        .and_then(Value::as_object_mut)
        .ok_or_else(|| unexpected("a service is not in the compose file"))
}

/// One bind mount in Compose's long form, whose paths may hold colons.
fn volume(mount: &Mount) -> Value {
    json!({"type": "bind", "source": mount.source, "target": mount.target, "read_only": mount.read_only})
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{} cannot be read: {error}", path.display()))
}

fn unexpected(message: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, message)
}

mod mounts;
mod profiles;
mod sections;
mod sources;
#[cfg(test)]
mod tests;
