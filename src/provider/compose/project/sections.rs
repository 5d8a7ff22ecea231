//! What the top-level sections of a compose file name on this machine: values and files of `secrets` and `configs`, and
//! directories of `volumes`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{DIRECTORY, Project, unexpected};
use crate::config::{Variables, is_own};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::compose::archive::{Content, Item};
use crate::provider::compose::binds;

impl Project {
    /// Takes along the files that `configs` or `secrets` name.
    pub(super) fn use_files(&mut self, section: &str, base: &Path, entries: &mut Vec<Item>) -> Result<()> {
        let Some(Value::Object(named)) = self.model.get_mut(section) else { return Ok(()) };
        for (number, item) in named.values_mut().enumerate() {
            let Some(Value::String(file)) = item.get_mut("file") else { continue };
            let source = on_this_machine(base, &file.replace("$$", "$"));
            if !source.is_file() {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("{section}: there is no file {}", source.display()),
                ));
            }
            let path = format!("{section}-{number}");
            *file = format!("{DIRECTORY}/{path}");
            binds::collect(&source, &path, entries, &mut self.notes)?;
        }
        Ok(())
    }

    /// Makes files of secrets that are variables of this machine. Everyone in a container may read them, as Compose has
    /// it.
    pub(super) fn use_secrets(&mut self, secrets: &Variables, entries: &mut Vec<Item>) -> Result<()> {
        for (number, (name, value)) in secrets.iter().enumerate() {
            let path = format!("variable-{number}");
            self.model
                .get_mut("secrets")
                .and_then(|named| named.get_mut(name))
                .and_then(Value::as_object_mut)
                .ok_or_else(|| unexpected("a secret is not in the compose file"))?
                .insert("file".to_owned(), json!(format!("{DIRECTORY}/{path}")));
            let content = Content::Bytes(Bytes::from(value.clone()));
            entries.push(Item::new(path, content, 0o444));
        }
        Ok(())
    }

    /// Takes along the directories that volumes bind by their `driver_opts`.
    pub(super) fn use_devices(&mut self, base: &Path, entries: &mut Vec<Item>) -> Result<()> {
        let used = self.used_volumes();
        let Some(Value::Object(named)) = self.model.get_mut("volumes") else { return Ok(()) };
        for (number, (name, volume)) in
            named.iter_mut().enumerate().filter(|(_, (name, _))| used.contains(*name))
        {
            if volume.get("driver").and_then(Value::as_str).is_some_and(|driver| driver != "local") {
                continue;
            }
            let Some(Value::Object(options)) = volume.get_mut("driver_opts") else { continue };
            let is_bind = options
                .get("o")
                .and_then(Value::as_str)
                .is_some_and(|list| list.split(',').any(|option| matches!(option, "bind" | "rbind")));
            let Some(Value::String(device)) = options.get_mut("device").filter(|_| is_bind) else { continue };
            let written = device.replace("$$", "$");
            if is_own(&written) {
                continue;
            }
            let source = on_this_machine(base, &written);
            if !source.is_dir() {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("the volume {name}: there is no directory {}", source.display()),
                ));
            }
            let path = format!("volume-{number}");
            *device = format!("{DIRECTORY}/{path}");
            binds::collect(&source, &path, entries, &mut self.notes)?;
        }
        Ok(())
    }

    /// The names of the volumes that services mount.
    fn used_volumes(&self) -> BTreeSet<String> {
        let services = self.model.get("services").and_then(Value::as_object);
        let mounts = services
            .into_iter()
            .flat_map(serde_json::Map::values)
            .filter_map(|service| service.get("volumes").and_then(Value::as_array));
        let source = |mount: &Value| match mount {
            Value::String(text) => text.split(':').next().map(str::to_owned),
            mount => mount.get("source").and_then(Value::as_str).map(str::to_owned),
        };
        mounts.flatten().filter_map(source).collect()
    }
}

/// What a path of a compose file means here: `~` is the home directory, and relative ones start at `base`.
pub(super) fn on_this_machine(base: &Path, written: &str) -> PathBuf {
    match (written.strip_prefix('~'), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            Path::new(&home).join(rest.trim_start_matches('/'))
        }
        _ => base.join(written),
    }
}
