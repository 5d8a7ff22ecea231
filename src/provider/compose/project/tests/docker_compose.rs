//! What is written into the machine, read by a real `docker compose config`: it means there what the fixture means here.

use std::io::Write as _;
use std::process::Command;

use super::*;

const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// Keys that are resolved here, or have no meaning in the machine.
const RESOLVED: [&str; 8] =
    ["attach", "container_name", "develop", "env_file", "label_file", "labels", "profiles", "scale"];

/// Fixtures that Compose itself refuses and the provider takes, with what is wrong in Compose's eyes.
const REFUSED_HERE: [(&str, &str); 1] = [("multi_texts_stay_texts", "memory must be a string")];

/// What Compose makes of a file, or its error.
fn config(directory: &Path, file: &str, environment: &BTreeMap<String, String>) -> Result<Value, String> {
    let done = Command::new("docker")
        .args(["compose", "--project-name", "inspect", "--file", file, "config", "--format", "json"])
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(environment)
        .output()
        .unwrap();
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&done.stdout).unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// Without what differs on purpose: paths, and what is resolved here.
fn comparable(mut model: Value) -> Value {
    let services = model["services"].as_object_mut().unwrap();
    let running: Vec<_> = services.keys().cloned().collect();
    for service in services.values_mut() {
        let service = service.as_object_mut().unwrap();
        if let Some(needed) = service.get_mut("depends_on").and_then(Value::as_object_mut) {
            // an optional one that does not run
            needed.retain(|name, needed| running.contains(name) || needed["required"] != false);
        }
        service.retain(|key, _| !RESOLVED.contains(&key.as_str()) && !key.starts_with("x-"));
        if let Some(environment) = service.get_mut("environment").and_then(Value::as_object_mut) {
            environment.retain(|_, value| !value.is_null());
        }
        if let Some(build) = service.get_mut("build").and_then(Value::as_object_mut) {
            build.retain(|key, _| !["context", "dockerfile", "dockerfile_inline"].contains(&key.as_str()));
            let contexts = build.get_mut("additional_contexts").and_then(Value::as_object_mut);
            for path in contexts.into_iter().flat_map(Map::values_mut) {
                if path.as_str().is_some_and(|path| path.starts_with('/')) {
                    *path = json!("a path");
                }
            }
            if let Some(arguments) = build.get_mut("args").and_then(Value::as_object_mut) {
                arguments.retain(|_, value| !value.is_null());
            }
        }
        for mount in service.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
            if mount["type"] == "bind" {
                mount["source"] = json!("a path");
            }
        }
        for option in service.get_mut("security_opt").and_then(Value::as_array_mut).into_iter().flatten() {
            if option.as_str().is_some_and(|text| text.contains(".json") || text.contains("/seccomp-")) {
                *option = json!("seccomp=a path");
            }
        }
    }
    let model = model.as_object_mut().unwrap();
    model.retain(|key, _| ["services", "networks", "volumes", "secrets", "configs"].contains(&key.as_str()));
    for section in ["secrets", "configs"] {
        for entry in
            model.get_mut(section).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
        {
            let entry = entry.as_object_mut().unwrap();
            entry.retain(|key, _| !["file", "environment", "content"].contains(&key.as_str()));
        }
    }
    for volume in
        model.get_mut("volumes").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
    {
        if let Some(device) = volume.pointer_mut("/driver_opts/device") {
            *device = json!("a path");
        }
    }
    Value::Object(std::mem::take(model))
}

#[test]
fn what_the_machine_gets_means_to_docker_compose_what_the_file_means_here() {
    if !Command::new("docker").args(["compose", "version"]).output().is_ok_and(|done| done.status.success()) {
        let expected = std::env::var("INSPECT_DAYTONA_TESTS_EXPECT").is_ok_and(|value| value == "docker");
        assert!(!expected, "there is no docker compose");
        let _ = writeln!(
            std::io::stderr(),
            "skipped, since there is no docker compose: apt-get install docker-compose-v2, or docker-compose on Debian 13"
        );
        return;
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut wrong = Vec::new();
    let mut compared = 0;
    for fixture in std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()) {
        let name = fixture.file_name().unwrap().to_str().unwrap().to_owned();
        let outcome = std::fs::read_to_string(fixture.join("plan.json")).unwrap_or_default();
        let Some(file) = FILES.into_iter().find(|file| fixture.join(file).exists()) else { continue };
        if !outcome.starts_with("{\n  \"multi\"") {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let task = directory.path().join("task");
        copy(&fixture, &task);
        let around = std::fs::read(fixture.join("context.json")).unwrap_or_else(|_| b"{}".to_vec());
        let around: Value = serde_json::from_slice(&around).unwrap();
        let (mut environment, metadata) = (texts(&around["environment"]), texts(&around["metadata"]));
        for value in environment.values_mut() {
            *value = value.replace("/task", task.to_str().unwrap());
        }
        let context = Context {
            directory: &task,
            environment: &|name| environment.get(name).cloned(),
            metadata: &metadata,
            files: &RealFiles,
        };
        let source = Source::from_path(task.join(file)).unwrap();
        let Plan::Multi(plan) = crate::config::load(&source, &context).unwrap() else { panic!("{name}") };
        let project = match Project::read(&plan) {
            Ok(project) => project,
            Err(error) => {
                wrong.push(format!("{name} is refused: {error}"));
                continue;
            }
        };
        let machine = tempfile::tempdir().unwrap();
        let sent: BTreeMap<_, _> = project.files(&BTreeMap::new()).unwrap().into_iter().collect();
        std::fs::write(machine.path().join("compose.json"), &sent[&format!("{DIRECTORY}/compose.json")])
            .unwrap();
        let variable = |name: &str| format!("SAMPLE_METADATA_{}", name.replace(' ', "_").to_uppercase());
        environment.extend(metadata.iter().map(|(name, value)| (variable(name), value.clone())));
        let here = config(&task, file, &environment);
        let there = config(machine.path(), "compose.json", &BTreeMap::new());
        match (here.map(comparable), there.map(comparable)) {
            (Ok(here), Ok(there)) if here == there => compared += 1,
            (Err(error), Ok(_))
                if REFUSED_HERE.iter().any(|(known, why)| *known == name && error.contains(why)) => {}
            (here, there) => wrong.push(format!("{name}:\nhere  {here:?}\nthere {there:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 18, "only {compared} projects were compared");
}
