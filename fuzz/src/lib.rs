//! What the targets of the config layer share: a task's directory in memory, and the rule that whatever is written is a
//! plan or an error of its own kind.

use std::collections::BTreeMap;
use std::path::Path;

use inspect_daytona::ErrorKind;
use inspect_daytona::config::{Context, Document, MemoryFiles, Plan, Service, Source, load};

/// Variables that are set: every other one.
fn environment(name: &str) -> Option<String> {
    name.len().is_multiple_of(2).then(|| name.to_lowercase())
}

/// The plan of `source` among `files`.
///
/// # Panics
/// Where an error is not that the configuration is invalid, or where a plan depends on how it was asked for.
pub fn plan(source: &Source, files: &MemoryFiles) -> Option<Plan> {
    let metadata = BTreeMap::from([("some key".to_owned(), "value".to_owned())]);
    let context =
        Context { directory: Path::new("/task"), environment: &environment, metadata: &metadata, files };
    let plan = load(source, &context);
    if let Ok(document) = Document::read(source, &context) {
        let again = document.plan(&context);
        assert_eq!(again.as_ref().ok(), plan.as_ref().ok());
        assert_eq!(again.err().map(|error| error.to_string()), plan.as_ref().err().map(ToString::to_string));
        let _all = document.metadata_variables();
        let _needed = document.task_environment(&metadata);
    }
    match plan {
        Ok(plan) => {
            let shown = serde_json::to_string(&plan).expect("a plan is JSON");
            assert!(!shown.is_empty());
            Some(plan)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
            None
        }
    }
}

/// The plan of a compose file.
pub fn compose(text: impl Into<Vec<u8>>, others: MemoryFiles) -> Option<Plan> {
    let files = others
        .with("/task/compose.yaml", text)
        .with("/task/Dockerfile", "FROM a\nCOPY . /x\n")
        .with("/task/other.yaml", "services: {other: {image: b}}\n");
    plan(&Source::Compose("compose.yaml".into()), &files)
}

/// The only service of a compose file whose service has `fields`.
pub fn service(fields: &serde_json::Value, others: MemoryFiles) -> Option<Service> {
    let text = serde_json::json!({ "services": { "a": fields } }).to_string();
    match compose(text, others)? {
        Plan::Single(plan) => Some(plan.service),
        Plan::Multi(_) => panic!("one service became several"),
    }
}
