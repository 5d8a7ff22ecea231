//! `docs/configuration.md` and Inspect's own list of keys, held against the tables of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use inspect_daytona::config::keys::{
    BIND, BUILD, DEPLOY, HEALTHCHECK, IMAGE, IN_MEMORY, Key, MEMBERSHIP, MOUNT, NAMED, NETWORK, PORT,
    SERVICE, TOP, VOLUME,
};
use inspect_daytona::config::{Context, MemoryFiles, SETTINGS, Source, load};
use serde_json::{Value, json};

/// The sections of a file by their headings.
const TABLES: [(&str, &[Key]); 14] = [
    ("Top level", TOP),
    ("`services.*`", SERVICE),
    ("`build`", BUILD),
    ("`deploy`", DEPLOY),
    ("`healthcheck`", HEALTHCHECK),
    ("`networks.*`", NETWORK),
    ("`networks` of a service, long form", MEMBERSHIP),
    ("`ports` of a service, long form", PORT),
    ("`volumes.*`", VOLUME),
    ("`volumes` of a service, long form", MOUNT),
    ("`bind`", BIND),
    ("`image`", IMAGE),
    ("`tmpfs`", IN_MEMORY),
    ("`volume`", NAMED),
];

/// The sections of Inspect's models.
const MODELS: [(&str, &[Key]); 10] = [
    ("top", TOP),
    ("service", SERVICE),
    ("build", BUILD),
    ("deploy", DEPLOY),
    ("healthcheck", HEALTHCHECK),
    ("volume_mount", MOUNT),
    ("bind_options", BIND),
    ("image_options", IMAGE),
    ("tmpfs_options", IN_MEMORY),
    ("volume_options", NAMED),
];

#[test]
fn every_key_of_inspects_models_is_decided() {
    let path = super::golden::fixtures().join("inspect-compose-fields.json");
    let fields: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (section, table) in MODELS {
        let names = fields[section].as_array().unwrap();
        assert!(!names.is_empty(), "{section}");
        for name in names {
            let name = name.as_str().unwrap();
            assert!(table.iter().any(|key| key.name == name), "`{name}` of {section} is not decided");
        }
    }
}

#[test]
fn every_key_of_inspects_resources_is_read() {
    let path = super::golden::fixtures().join("inspect-compose-fields.json");
    let fields: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let deploy = |section: &str, keys: Value| match section {
        "resources" => keys,
        "device" => json!({ "reservations": { "devices": [keys] } }),
        other => json!({ other: keys }),
    };
    for section in ["resources", "limits", "reservations", "device"] {
        let names = fields[section].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let mut keys: serde_json::Map<_, _> = names.map(|name| (name.to_owned(), Value::Null)).collect();
        assert!(keys.len() >= 2, "{section}");
        if section == "device" {
            keys.insert("capabilities".to_owned(), json!(["gpu"]));
        }
        let service = json!({ "image": "a", "deploy": { "resources": deploy(section, keys.into()) } });
        let model = json!({ "services": { "default": service } }).to_string();
        let context = Context {
            directory: Path::new("/project"),
            environment: &|_| None,
            metadata: &BTreeMap::new(),
            files: &MemoryFiles::default(),
        };
        load(&Source::Model(model), &context).unwrap_or_else(|error| panic!("{section}: {error}"));
    }
}

#[test]
fn tables_are_sorted_without_repetition_and_give_reasons() {
    for (section, table) in TABLES.into_iter().skip(1) {
        assert!(table.is_sorted_by(|a, b| a.name < b.name), "{section} is not sorted");
    }
    for (section, table) in TABLES {
        for key in table {
            let settled = key.single == inspect_daytona::config::keys::Decision::Honoured;
            assert!(settled || !key.reason.is_empty(), "`{}` of {section} needs a reason", key.name);
        }
    }
}

/// The rows below a heading, as cells without their marks.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section =
        page.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap()
}

#[test]
fn the_page_says_of_every_key_what_the_code_does() {
    let page = page();
    for (heading, table) in TABLES {
        let heading = format!("### {heading}");
        let expected: Vec<Vec<String>> = table
            .iter()
            .map(|key| {
                let cells = [&format!("`{}`", key.name), key.single.as_str(), key.multi.as_str(), key.reason];
                cells.map(str::to_owned).to_vec()
            })
            .collect();
        let text: Vec<String> = expected.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
        assert_eq!(rows(&page, &heading), expected, "the table of {heading} should be\n{}", text.join("\n"));
    }
}

#[test]
fn the_page_lists_every_setting_with_its_default() {
    let documented: BTreeMap<String, (String, String)> = rows(&page(), "## Settings of `x-daytona`")
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), (row[1].clone(), row[2].clone())))
        .collect();
    for setting in SETTINGS {
        let expected = (setting.takes.to_owned(), setting.default.to_owned());
        assert_eq!(documented.get(setting.name), Some(&expected), "{}", setting.name);
    }
    let known: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    let unknown: Vec<_> = documented.keys().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_example_of_the_page_has_a_plan_without_warnings() {
    let page = page();
    let examples: Vec<&str> =
        page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 5, "only {} examples were found", examples.len());
    for example in examples {
        // one with settings alone is a part of a file
        let services = "services: {default: {image: 'python:3.12'}}\n";
        let text =
            if example.contains("services:") { example.to_owned() } else { services.to_owned() + example };
        let files = MemoryFiles::default()
            .with("/project/task/compose.yaml", text)
            .with("/project/task/secrets.env", "KEY=value")
            .with("/project/evals/Dockerfile", "FROM a AS runtime");
        let context = Context {
            directory: Path::new("/project/task"),
            environment: &|name| (name == "TOKEN").then(|| "t".to_owned()),
            metadata: &BTreeMap::new(),
            files: &files,
        };
        let plan = load(&Source::Compose("compose.yaml".into()), &context);
        let plan = plan.unwrap_or_else(|error| panic!("{error}\n{example}"));
        // the seed's example with several services says nothing of memory
        let expected = usize::from(example.contains("helper:"));
        assert_eq!(plan.warnings().len(), expected, "{:?}\n{example}", plan.warnings());
    }
}
