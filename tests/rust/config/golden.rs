//! Golden pairs: every directory of `tests/fixtures/config` is a task directory with a configuration, and either the
//! plan that it means (`plan.json`) or the error that it gives (`error.txt`). Where the plan of a single service builds
//! an image, `build.json` holds what is sent to the platform, or the error.
//!
//! `model.json` is a `ComposeConfig` of Inspect, `settings.json` the keys of `x-daytona` alone. `context.json` holds the environment and the sample's metadata. `UPDATE_FIXTURES=1` rewrites the outcomes; read the
//! diff before you commit it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inspect_daytona::config::context::BuildContext;
use inspect_daytona::config::{Context, ImageSource, MemoryFiles, Plan, Source, load};
use serde_json::Value;

const TASK: &str = "/task";
const OUTCOMES: [&str; 3] = ["plan.json", "error.txt", "build.json"];

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config")
}

/// A fixture, with its files in memory below `/task`, so that no path of this machine is in its outcome.
#[derive(Default)]
struct Case {
    source: Option<Source>,
    files: MemoryFiles,
    environment: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
}

impl Case {
    fn read(directory: &Path) -> Self {
        let mut case = Self::default();
        let mut pending = vec![directory.to_path_buf()];
        while let Some(current) = pending.pop() {
            for entry in std::fs::read_dir(&current).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                    continue;
                }
                let name = path.strip_prefix(directory).unwrap();
                let content = std::fs::read(&path).unwrap();
                match name.to_str().unwrap() {
                    outcome if OUTCOMES.contains(&outcome) => {}
                    "model.json" => case.source = Some(Source::Model(String::from_utf8(content).unwrap())),
                    "settings.json" => {
                        case.source = Some(Source::Settings(String::from_utf8(content).unwrap()));
                    }
                    "context.json" => {
                        let surroundings: Value = serde_json::from_slice(&content).unwrap();
                        case.environment = texts(&surroundings["environment"]);
                        case.metadata = texts(&surroundings["metadata"]);
                    }
                    _ => case.files = case.files.with(Path::new(TASK).join(name), content),
                }
            }
        }
        case
    }

    fn outcomes(&self) -> BTreeMap<&'static str, String> {
        let context = Context {
            directory: Path::new(TASK),
            environment: &|name| self.environment.get(name).cloned(),
            metadata: &self.metadata,
            files: &self.files,
        };
        let discovered = || Source::discover(Path::new(TASK), &self.files);
        let source = self.source.clone().unwrap_or_else(discovered);
        let plan = match load(&source, &context) {
            Ok(plan) => plan,
            Err(error) => return BTreeMap::from([("error.txt", format!("{error}\n"))]),
        };
        let mut outcomes = BTreeMap::from([("plan.json", pretty(&plan))]);
        if let Plan::Single(single) = &plan
            && let ImageSource::Build(build) = &single.service.image
        {
            let sent = match BuildContext::read(build, &self.files) {
                Ok(sent) => pretty(&sent),
                Err(error) => pretty(&serde_json::json!({ "error": error.to_string() })),
            };
            outcomes.insert("build.json", sent);
        }
        outcomes
    }
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

#[test]
fn every_configuration_has_its_recorded_outcome() {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let entries = std::fs::read_dir(fixtures()).unwrap();
    let mut directories: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    directories.sort();
    let mut wrong = Vec::new();
    for directory in &directories {
        let found = Case::read(directory).outcomes();
        for name in OUTCOMES {
            let path = directory.join(name);
            let recorded = std::fs::read_to_string(&path).ok();
            if recorded.as_ref() == found.get(name) {
                continue;
            }
            match found.get(name) {
                Some(content) if update => std::fs::write(&path, content).unwrap(),
                None if update => std::fs::remove_file(&path).unwrap(),
                Some(content) => wrong.push(format!("{} would be\n{content}", path.display())),
                None => wrong.push(format!("{} would not be there", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(directories.len() >= 60, "only {} fixtures were found", directories.len());
}
