//! Values of `secrets` that are variables of this machine, and paths of a compose file.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{DIRECTORY, Project, unexpected};
use crate::config::Variables;
use crate::error::Result;
use crate::provider::compose::archive::{Content, Item};

impl Project {
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
