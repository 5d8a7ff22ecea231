//! What is mounted from this machine: sources of binds, files of `configs` and `secrets`, and directories that volumes
//! bind by their `driver_opts`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::sections::on_this_machine;
use super::sources::Sources;
use super::{Project, unexpected};
use crate::config::{ComposeProject, LocalPath, Purpose, is_own};
use crate::error::Result;
use crate::provider::compose::archive::Item;
use crate::provider::compose::binds::refused;

/// A file or directory that a top-level section names.
struct Named {
    source: PathBuf,
    /// What its copy is called.
    copy: String,
    /// Where in the compose file it stands.
    pointer: String,
}

impl Project {
    /// Takes along what is mounted, and replaces its paths by those of the copies.
    pub(super) fn use_mounts(&mut self, plan: &ComposeProject, entries: &mut Vec<Item>) -> Result<()> {
        let mut sources = Sources::default();
        let binds: Vec<_> = plan.local_paths.iter().filter(|local| local.purpose == Purpose::Bind).collect();
        for (number, local) in binds.iter().enumerate() {
            sources.add(&local.path, || format!("bind-{number}"))?;
        }
        let mut named = self.named_files("configs", &plan.directory)?;
        named.extend(self.named_files("secrets", &plan.directory)?);
        named.extend(self.named_devices(plan)?);
        for Named { source, copy, .. } in &named {
            sources.add(source, || copy.clone())?;
        }
        sources.collect(entries, &mut self.notes)?;
        for local in binds {
            self.use_bind(local, &sources.path(&local.path)?)?;
        }
        for Named { source, pointer, .. } in named {
            let path = sources.path(&source)?.replace('$', "$$");
            let written = self.model.pointer_mut(&pointer);
            *written.ok_or_else(|| unexpected("a mount is not in the compose file"))? = json!(path);
        }
        Ok(())
    }

    /// Replaces a bind's source by its copy in the sandbox.
    fn use_bind(&mut self, local: &LocalPath, path: &str) -> Result<()> {
        let Some(Value::Array(volumes)) = self.service(&local.service)?.get_mut("volumes") else {
            return Err(unexpected("a bind belongs to no volume"));
        };
        let (written, escaped) = (local.written.replace('$', "$$"), path.replace('$', "$$"));
        for volume in volumes {
            match volume {
                Value::String(text) => {
                    let Some(rest) = text.strip_prefix(&written).filter(|rest| rest.starts_with(':')) else {
                        continue;
                    };
                    if path.contains(':') {
                        let message = format!("{} leads to a name with a colon", local.path.display());
                        return Err(refused(message).with_hint("Write the volume in its long form"));
                    }
                    *text = format!("{escaped}{rest}");
                }
                Value::Object(long) if long.get("source").and_then(Value::as_str) == Some(&written) => {
                    long.insert("source".to_owned(), json!(escaped));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The files that `configs` or `secrets` name.
    fn named_files(&self, section: &str, base: &Path) -> Result<Vec<Named>> {
        let mut named = Vec::new();
        for (number, (name, item)) in entries(&self.model, section).enumerate() {
            let Some(file) = item.get("file").and_then(Value::as_str) else { continue };
            let source = on_this_machine(base, &file.replace("$$", "$"));
            if !source.is_file() {
                return Err(refused(format!("{section}: there is no file {}", source.display())));
            }
            let pointer = format!("/{section}/{}/file", pointed(name));
            named.push(Named { source, copy: format!("{section}-{number}"), pointer });
        }
        Ok(named)
    }

    /// The directories that volumes bind by their `driver_opts`.
    fn named_devices(&self, plan: &ComposeProject) -> Result<Vec<Named>> {
        let used = self.used_volumes();
        let mut named = Vec::new();
        for (number, (name, volume)) in entries(&self.model, "volumes").enumerate() {
            let is_local =
                volume.get("driver").and_then(Value::as_str).is_none_or(|driver| driver == "local");
            let Some(options) = volume.get("driver_opts").filter(|_| is_local && used.contains(name)) else {
                continue;
            };
            let is_bind = options
                .get("o")
                .and_then(Value::as_str)
                .is_some_and(|list| list.split(',').any(|option| matches!(option, "bind" | "rbind")));
            let Some(device) = options.get("device").and_then(Value::as_str).filter(|_| is_bind) else {
                continue;
            };
            let written = device.replace("$$", "$");
            if is_own(&written, &plan.settings.volumes) {
                continue;
            }
            let source = on_this_machine(&plan.directory, &written);
            if !source.is_dir() {
                return Err(refused(format!(
                    "the volume {name}: there is no directory {}",
                    source.display()
                )));
            }
            let pointer = format!("/volumes/{}/driver_opts/device", pointed(name));
            named.push(Named { source, copy: format!("volume-{number}"), pointer });
        }
        Ok(named)
    }

    /// The names of the volumes that services mount.
    fn used_volumes(&self) -> BTreeSet<String> {
        let services = entries(&self.model, "services").map(|(_, service)| service);
        let mounts = services.filter_map(|service| service.get("volumes").and_then(Value::as_array));
        let source = |mount: &Value| match mount {
            Value::String(text) => text.split(':').next().map(str::to_owned),
            mount => mount.get("source").and_then(Value::as_str).map(str::to_owned),
        };
        mounts.flatten().filter_map(source).collect()
    }
}

/// The entries of a top-level section.
fn entries<'a>(model: &'a Value, section: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    model.get(section).and_then(Value::as_object).into_iter().flatten()
}

/// A name as a part of a JSON pointer.
fn pointed(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
