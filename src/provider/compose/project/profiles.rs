//! Seccomp profiles, which Compose reads from files in the sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{DIRECTORY, Project, unexpected, unreadable};
use crate::config::{ComposeProject, Purpose};
use crate::error::Result;
use crate::provider::compose::archive::{Content, Item};

impl Project {
    /// Takes along the profiles of `security_opt`, and replaces their paths.
    pub(super) fn use_profiles(&mut self, plan: &ComposeProject, entries: &mut Vec<Item>) -> Result<()> {
        let mut sent: BTreeMap<&Path, String> = BTreeMap::new();
        for local in plan.local_paths.iter().filter(|local| local.purpose == Purpose::Seccomp) {
            let next = format!("seccomp-{}", sent.len());
            let path = if let Some(path) = sent.get(local.path.as_path()) {
                path.clone()
            } else {
                let text = fs::read(&local.path).map_err(|error| unreadable(&local.path, &error))?;
                entries.push(Item::new(next.clone(), Content::Bytes(Bytes::from(text)), 0o644));
                sent.insert(&local.path, next.clone());
                next
            };
            let Some(Value::Array(options)) = self.service(&local.service)?.get_mut("security_opt") else {
                return Err(unexpected("a seccomp profile belongs to no option"));
            };
            let written = local.written.replace('$', "$$");
            for option in options {
                let is_this = ["seccomp=", "seccomp:"]
                    .iter()
                    .any(|name| option.as_str().and_then(|text| text.strip_prefix(name)) == Some(&written));
                if is_this {
                    *option = json!(format!("seccomp={DIRECTORY}/{path}"));
                }
            }
        }
        Ok(())
    }
}
