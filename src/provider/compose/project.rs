//! The project as the sandbox gets it: the compose file with the sandbox's paths, and one archive of the files behind
//! them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::binds;
use crate::config::context::{BuildContext, ContextEntry};
use crate::config::{Build, ComposeProject, DockerfileSource, ImageSource, LocalPath, Purpose, RealFiles};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::containers::{ContainerMounts, Mount};
use crate::provider::images::archive;

/// Where the sandbox has the project's files.
pub(super) const DIRECTORY: &str = "/var/lib/inspect-project";

/// A project, ready to be sent. Every sample of a configuration shares it.
#[derive(Debug)]
pub(in crate::provider) struct Project {
    /// The compose file, with the sandbox's paths.
    model: Value,
    /// Dockerfiles, by their path in the sandbox: they may lie outside of their context, or in the compose file itself.
    dockerfiles: Vec<(String, Bytes)>,
    /// Build contexts and bind sources, relative to [`DIRECTORY`].
    archive: Bytes,
    /// Whether Compose has to build anything.
    builds: bool,
    /// What was left out of the archive, for the user.
    notes: Vec<String>,
}

/// The projects that this process read, by what their configuration says. The lock is held while one is read.
#[derive(Debug, Default)]
pub(in crate::provider) struct Projects(Mutex<HashMap<String, Slot>>);

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Project>>>>;

impl Projects {
    /// The project of `plan`; read now unless it was before. With `fresh`, files are read again, since they may have
    /// changed since another eval of this process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] naming the file that cannot be read.
    pub(in crate::provider) async fn read(&self, plan: &ComposeProject, fresh: bool) -> Result<Arc<Project>> {
        let key = serde_json::to_string(plan)
            .map_err(|error| unexpected("the compose file has no JSON").with_source(error))?;
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(key).or_default())
        };
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
        let mut contexts = BTreeMap::new();
        for (number, service) in plan.services.iter().enumerate() {
            if let Some(section) = project.service(&service.name)?.get("build") {
                project.builds |= !section.is_null();
            }
            let ImageSource::Build(build) = &service.image else { continue };
            let context = BuildContext::read(build, &RealFiles)?;
            if !context.skipped_links.is_empty() {
                let links = context.skipped_links.join(", ");
                project
                    .notes
                    .push(format!("links to directories are left out of the build context: {links}"));
            }
            let files: Vec<_> = context.entries.iter().map(|entry| entry.path.clone()).collect();
            let next = contexts.len();
            let path = contexts.entry((build.context.clone(), files)).or_insert_with(|| {
                let path = format!("context-{next}");
                entries.push(directory(&path, &build.context));
                entries.extend(context.entries.into_iter().map(|entry| below(&path, entry)));
                path
            });
            let path = format!("{DIRECTORY}/{path}");
            project.use_context(&service.name, number, build, &path)?;
        }
        let mut sources: BTreeMap<&Path, String> = BTreeMap::new();
        for (number, local) in
            plan.local_paths.iter().filter(|local| local.purpose == Purpose::Bind).enumerate()
        {
            let path = if let Some(path) = sources.get(local.path.as_path()) {
                path.clone()
            } else {
                let path = format!("bind-{number}");
                binds::collect(&local.path, &path, &mut entries, &mut project.notes)?;
                sources.insert(&local.path, path.clone());
                path
            };
            project.use_bind(local, &format!("{DIRECTORY}/{path}"))?;
        }
        for section in ["configs", "secrets"] {
            project.use_files(section, &plan.directory, &mut entries)?;
        }
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

    /// Replaces a bind's source by its copy in the sandbox.
    fn use_bind(&mut self, local: &LocalPath, path: &str) -> Result<()> {
        let Some(Value::Array(volumes)) = self.service(&local.service)?.get_mut("volumes") else {
            return Err(unexpected("a bind belongs to no volume"));
        };
        for volume in volumes {
            match volume {
                Value::String(text) => {
                    let written = local.written.replace('$', "$$");
                    if let Some(rest) = text.strip_prefix(&written).filter(|rest| rest.starts_with(':')) {
                        *text = format!("{path}{rest}");
                    }
                }
                Value::Object(long)
                    if long.get("source").and_then(Value::as_str).map(|text| text.replace("$$", "$"))
                        == Some(local.written.clone()) =>
                {
                    long.insert("source".to_owned(), json!(path));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes along the files that `configs` or `secrets` name.
    fn use_files(&mut self, section: &str, base: &Path, entries: &mut Vec<ContextEntry>) -> Result<()> {
        let Some(Value::Object(items)) = self.model.get_mut(section) else { return Ok(()) };
        for (number, item) in items.values_mut().enumerate() {
            let Some(Value::String(file)) = item.get_mut("file") else { continue };
            let source = base.join(file.replace("$$", "$"));
            if !source.is_file() {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("{section}: there is no file {}", source.display()),
                ));
            }
            let path = format!("{section}-{number}");
            *file = format!("{DIRECTORY}/{path}");
            entries.push(ContextEntry { path, source, directory: false, executable: false });
        }
        Ok(())
    }
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

fn directory(path: &str, source: &Path) -> ContextEntry {
    ContextEntry { path: path.to_owned(), source: source.to_owned(), directory: true, executable: false }
}

fn below(path: &str, entry: ContextEntry) -> ContextEntry {
    ContextEntry { path: format!("{path}/{}", entry.path), ..entry }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{} cannot be read: {error}", path.display()))
}

fn unexpected(message: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Context, Document, Plan, Source};

    fn read(directory: &Path, compose: &str) -> Result<Project> {
        let file = directory.join("compose.yaml");
        std::fs::write(&file, compose).unwrap();
        let metadata = BTreeMap::new();
        let context = Context { directory, environment: &|_| None, metadata: &metadata, files: &RealFiles };
        let document = Document::read(&Source::from_path(file).unwrap(), &context)?;
        let Plan::Multi(plan) = document.plan(&context)? else { panic!("several services") };
        Project::read(&plan)
    }

    fn names(project: &Project) -> Vec<String> {
        let mut archive = tar::Archive::new(&project.archive[..]);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn contexts_binds_and_config_files_get_paths_of_the_sandbox() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        std::fs::create_dir_all(at("web/src")).unwrap();
        std::fs::create_dir_all(at("data/empty")).unwrap();
        for (path, text) in [
            ("web/Dockerfile", "FROM scratch\nCOPY src /src\n"),
            ("web/src/a", "a"),
            ("web/unused", "u"),
            ("data/file", "d"),
            ("key", "k"),
        ] {
            std::fs::write(at(path), text).unwrap();
        }
        let project = read(
            directory.path(),
            "services:\n  web:\n    build: web\n    volumes: ['./data:/data:ro', 'named:/n']\n    secrets: [key]\n  \
             other:\n    build: {context: web}\n    volumes:\n      - {type: bind, source: ./data, target: /d}\n\
             volumes: {named: {}}\nsecrets: {key: {file: ./key}}\n",
        )
        .unwrap();
        let web = &project.model["services"]["web"];
        assert_eq!(web["build"]["context"], "/var/lib/inspect-project/context-0");
        assert_eq!(web["build"]["dockerfile"], "/var/lib/inspect-project/Dockerfile-0");
        assert_eq!(web["volumes"], json!(["/var/lib/inspect-project/bind-0:/data:ro", "named:/n"]));
        let other = &project.model["services"]["other"];
        assert_eq!(other["build"]["context"], "/var/lib/inspect-project/context-0");
        assert_eq!(other["volumes"][0]["source"], "/var/lib/inspect-project/bind-0");
        assert_eq!(project.model["secrets"]["key"]["file"], "/var/lib/inspect-project/secrets-0");
        assert_eq!(
            names(&project),
            ["context-0/", "context-0/src/a", "bind-0/", "bind-0/empty/", "bind-0/file", "secrets-0"]
                .map(|name| name.trim_end_matches('/').to_owned())
        );
        assert!(project.builds());
    }

    #[test]
    fn every_service_gets_the_mounts_of_the_shim() {
        let directory = tempfile::tempdir().unwrap();
        let project =
            read(directory.path(), "services:\n  a: {image: 'a:1'}\n  b: {image: 'b:1', read_only: true}\n")
                .unwrap();
        let mount = |source: &str, read_only| Mount { source: source.into(), target: "/t".into(), read_only };
        let mounts = ["a", "b"].map(|service| {
            let mounts = ContainerMounts { program: mount("/p", true), state: mount("/s", false) };
            (service.to_owned(), mounts)
        });
        let files = project.files(&BTreeMap::from(mounts)).unwrap();
        let (path, text) = &files[0];
        assert_eq!(path, "/var/lib/inspect-project/compose.json");
        let model: Value = serde_json::from_slice(text).unwrap();
        for service in ["a", "b"] {
            assert_eq!(
                model["services"][service]["volumes"][1],
                json!({"type": "bind", "source": "/s", "target": "/t", "read_only": false})
            );
        }
        assert!(!project.builds());
    }

    #[test]
    fn a_secret_without_its_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = read(
            directory.path(),
            "services: {a: {image: 'a:1'}, b: {image: 'b:1'}}\nsecrets: {key: {file: ./gone}}\n",
        )
        .unwrap_err();
        assert!(error.message().contains("gone"), "{error}");
    }
}
