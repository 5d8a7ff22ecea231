//! What Compose's own libraries made of the same inputs, recorded in `compose-go.json` by `differential.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use inspect_daytona::config::dockerignore::DockerIgnore;
use inspect_daytona::config::{Context, MemoryFiles, Plan, Service, Source, load};
use serde_json::{Value, json};

fn recorded() -> Value {
    serde_json::from_slice(&std::fs::read(super::golden::fixtures().join("compose-go.json")).unwrap())
        .unwrap()
}

/// The only service of a compose file, or nothing where it is refused.
fn service(compose: &str, env_file: &str, environment: &Value) -> Option<Service> {
    let files = MemoryFiles::default().with("/task/compose.yaml", compose).with("/task/file.env", env_file);
    let nothing = BTreeMap::new();
    let context = Context {
        directory: Path::new("/task"),
        environment: &|name| environment[name].as_str().map(str::to_owned),
        metadata: &nothing,
        files: &files,
    };
    match load(&Source::Compose("compose.yaml".into()), &context) {
        Ok(Plan::Single(plan)) => Some(plan.service),
        Ok(Plan::Multi(_)) => panic!("{compose}"),
        Err(_) => None,
    }
}

/// Compares every vector of a section, and that enough of them are no errors.
fn compare(section: &str, ours: impl Fn(&str) -> Value) {
    let recorded = recorded();
    let vectors = recorded[section].as_array().unwrap();
    let mut wrong = Vec::new();
    for vector in vectors {
        let found = ours(vector["in"].as_str().unwrap());
        if found != vector["out"] {
            wrong.push(format!("{} gives {found}, Compose {}", vector["in"], vector["out"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let good = vectors.iter().filter(|vector| !vector["out"].is_null()).count();
    assert!(good >= 30, "only {good} of {} vectors of {section} are no errors", vectors.len());
}

#[test]
fn templates_render_as_in_compose() {
    let environment = &recorded()["environment"];
    compare("templates", |text| {
        let compose = json!({ "services": { "a": { "image": "x", "environment": { "V": text } } } });
        service(&compose.to_string(), "", environment)
            .map_or(Value::Null, |service| json!(service.environment["V"]))
    });
}

#[test]
fn environment_files_read_as_in_compose() {
    let environment = &recorded()["environment"];
    compare("dotenv", |text| {
        let compose = "services: {a: {image: x, env_file: file.env}}";
        service(compose, text, environment).map_or(Value::Null, |service| json!(service.environment))
    });
}

#[test]
fn commands_split_as_in_compose() {
    compare("commands", |line| {
        let compose = json!({ "services": { "a": { "image": "x", "command": line.replace('$', "$$") } } });
        let service = service(&compose.to_string(), "", &Value::Null);
        service.map_or(Value::Null, |service| json!(service.command.unwrap_or_default()))
    });
}

#[test]
fn ignore_files_match_as_in_the_docker_builder() {
    let recorded = recorded();
    let paths: Vec<&str> =
        recorded["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    compare("ignore", |text| match DockerIgnore::parse(text) {
        Ok(ignore) => paths.iter().map(|path| ignore.excludes(path)).collect(),
        Err(_) => Value::Null,
    });
}

/// Fixtures whose outcome differs on purpose.
fn differs(fixture: &str) -> Option<&'static str> {
    match fixture {
        "user_of_two_unset_variables" => {
            Some("Compose hands `:` on, which Docker takes as nobody in particular")
        }
        "yaml_scalars_as_written" => Some("scalars stay as they were written"),
        _ if fixture.contains("x_daytona") => Some("`x-daytona` is laid over the service"),
        _ => None,
    }
}

/// The recorded form of our plan of a service.
fn normal(service: &Value, compose: &Value) -> Value {
    let ports: BTreeSet<String> = service["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap()))
        .collect();
    let or = |key: &str, default: Value| if service[key].is_null() { default } else { service[key].clone() };
    let mut normal = json!({
        "command": service["command"],
        "entrypoint": service["entrypoint"],
        "environment": or("environment", json!({})),
        "user": or("user", json!("")),
        "working_dir": or("working_dir", json!("")),
        "hostname": or("hostname", json!("")),
        "ports": ports,
        "shm_size": or("shm_size", json!(0)),
        // Compose keeps bytes, and lets `deploy` and `mem_limit` not differ; ours are GiB, rounded up.
        "memory": compose["memory"],
    });
    if compose["memory"] != 0 {
        let gib = compose["memory"].as_u64().unwrap().div_ceil(1 << 30);
        assert_eq!(service["resources"]["memory"], gib);
    }
    if let Some(test) = service["healthcheck"]["test"].as_object() {
        normal["test"] = match (test.get("command"), test.get("shell")) {
            (Some(words), _) => {
                let words = words.as_array().unwrap().iter().cloned();
                std::iter::once(json!("CMD")).chain(words).collect()
            }
            (_, line) => json!(["CMD-SHELL", line]),
        };
    }
    match service["image"].get("build") {
        Some(build) => {
            normal["args"] = if build["args"].is_null() { json!({}) } else { build["args"].clone() };
            normal["target"] = if build["target"].is_null() { json!("") } else { build["target"].clone() };
        }
        None => normal["image"] = service["image"]["image"].clone(),
    }
    normal
}

#[test]
fn fixtures_mean_what_they_mean_to_compose() {
    let mut compared = 0;
    for (fixture, services) in recorded()["projects"].as_object().unwrap() {
        let path = super::golden::fixtures().join(fixture).join("plan.json");
        let (Some(services), Ok(plan)) = (services.as_object(), std::fs::read(path)) else { continue };
        if differs(fixture).is_some() {
            continue;
        }
        let plan: Value = serde_json::from_slice(&plan).unwrap();
        let ours: Vec<&Value> = match plan.get("single") {
            Some(single) => vec![&single["service"]],
            None => plan["multi"]["services"].as_array().unwrap().iter().collect(),
        };
        assert_eq!(ours.len(), services.len(), "{fixture}");
        for service in ours {
            let compose = &services[service["name"].as_str().unwrap()];
            assert_eq!(&normal(service, compose), compose, "{fixture}: {}", service["name"]);
            compared += 1;
        }
    }
    assert!(compared >= 30, "only {compared} services were compared");
}
