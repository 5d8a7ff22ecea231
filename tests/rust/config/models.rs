//! The file for `docker compose` inside the sandbox, held against the user's own: both mean the same to Compose.

use std::collections::BTreeMap;

use serde_json::Value;

use super::docker_compose::{FILES, copy, environment, plugin, project};
use super::golden::fixtures;

/// Fixtures whose model differs on purpose.
fn differs(fixture: &str) -> Option<&'static str> {
    Some(match fixture {
        "multi_texts_stay_texts" => "numbers are texts where Compose wants texts, which it would refuse",
        "multi_depends_on_optional" => "what does not run is not in the model",
        "multi_label_file" => "`label_file` came with Compose 2.32",
        _ if fixture.starts_with("multi_secret") => "values of variables are not in the model",
        _ => return None,
    })
}

/// What is left for Compose: no extensions, profiles, names without a value and sections that say nothing.
fn without_what_is_decided_here(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| !key.starts_with("x-") && key != "profiles" && !value.is_null());
            map.values_mut().for_each(without_what_is_decided_here);
        }
        Value::Array(items) => items.iter_mut().for_each(without_what_is_decided_here),
        _ => {}
    }
}

#[test]
fn models_mean_to_docker_compose_what_their_files_mean() {
    let Some(plugin) = plugin() else { return };
    let mut compared = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let fixture = entry.unwrap().path();
        let name = fixture.file_name().unwrap().to_str().unwrap();
        let Ok(plan) = std::fs::read(fixture.join("plan.json")) else { continue };
        let plan: Value = serde_json::from_slice(&plan).unwrap();
        let Some(model) = plan["multi"].get("model") else { continue };
        let Some(file) = FILES.iter().find(|file| fixture.join(file).exists()) else { continue };
        if differs(name).is_some() {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let task = directory.path().join("task");
        copy(&fixture, &task);
        let variables = environment(&fixture, &task);
        let theirs = project(&plugin, &task, file, &variables);
        let below = |before: &str| format!("{before}{}/", task.display());
        let model = model.to_string().replace("\"/task/", &below("\"")).replace("=/task/", &below("="));
        std::fs::write(task.join("model.yaml"), model).unwrap();
        // nothing is left to interpolate but this directory
        let ours = project(&plugin, &task, "model.yaml", &BTreeMap::new());
        match (ours, theirs) {
            (Ok(mut ours), Ok(mut theirs)) => {
                for project in [&mut ours, &mut theirs] {
                    without_what_is_decided_here(project);
                }
                compared += 1;
                if ours != theirs {
                    wrong.push(format!("{name}:\nours   {ours}\ntheirs {theirs}"));
                }
            }
            (Err(error), Ok(_)) => wrong.push(format!("{name}: Compose refuses the model: {error}")),
            // what else Compose refuses has its own test
            (_, Err(_)) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 20, "only {compared} models were compared");
}
