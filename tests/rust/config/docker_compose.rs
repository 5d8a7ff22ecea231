//! The fixtures, and values in Compose's own notations, held against what a real `docker compose config` makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use inspect_daytona::config::{Context, MemoryFiles, Source, load};
use serde_json::{Value, json};

use super::golden::fixtures;

/// Where packages and Docker's own installers put the plugin.
const PLUGINS: [&str; 4] = [
    "/usr/libexec/docker/cli-plugins/docker-compose",
    "/usr/lib/docker/cli-plugins/docker-compose",
    "/usr/local/lib/docker/cli-plugins/docker-compose",
    "/usr/local/libexec/docker/cli-plugins/docker-compose",
];
pub(crate) const FILES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// The plugin; nothing, said aloud, where there is none.
pub(crate) fn plugin() -> Option<PathBuf> {
    let found = PLUGINS.iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "skipped, since Docker Compose is not installed: apt-get install docker-compose-v2, or docker-compose on Debian 13"
        );
    }
    found
}

/// Fixtures that Compose refuses and we do not.
fn refused_by_compose(fixture: &str) -> Option<&'static str> {
    Some(match fixture {
        "environment_forms" => "`format: raw` came with Compose 2.30",
        "multi_texts_stay_texts" => "numbers are texts where Compose wants texts",
        "resources_precedence" => {
            "the rules of precedence are the provider's own; Compose wants both to agree"
        }
        "voids_need_no_warning" => "null means unset everywhere",
        "volumes_options" => "`labels` of what a service mounts came later",
        "volumes_of_its_own" => "the mode of a tmpfs may be quoted, as in its short form",
        "x_daytona_snapshot_needs_no_image" => "the snapshot is the image",
        "yaml_scalars_as_written" => "scalars stay as they were written",
        _ => return None,
    })
}

/// Fixtures whose parts differ on purpose.
fn differs(fixture: &str) -> bool {
    // `x-daytona` is laid over the service; Compose hands `:` on, which Docker takes as nobody in particular
    fixture.contains("x_daytona") || fixture == "user_of_two_unset_variables"
}

/// What Compose makes of the services of the task in `directory`, or its error.
fn compose(plugin: &Path, directory: &Path, environment: &BTreeMap<String, String>) -> Result<Value, String> {
    let file = FILES.into_iter().find(|name| directory.join(name).exists()).unwrap();
    Ok(project(plugin, directory, file, environment)?["services"].take())
}

/// What Compose makes of a file, or its error.
pub(crate) fn project(
    plugin: &Path,
    directory: &Path,
    file: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Value, String> {
    let done = Command::new(plugin)
        .args(["--project-name", "x", "--file", file, "config", "--format", "json"])
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(environment)
        .output()
        .unwrap();
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    let text = String::from_utf8(done.stdout).unwrap();
    // what is printed is a file again, with its dollar signs escaped
    Ok(serde_json::from_str(&text.replace("$$", "$")).unwrap())
}

pub(crate) fn copy(from: &Path, to: &Path) {
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

/// A fixture's environment and, as Inspect sets it, its metadata; `/task` is `task`.
pub(crate) fn environment(fixture: &Path, task: &Path) -> BTreeMap<String, String> {
    let Ok(bytes) = std::fs::read(fixture.join("context.json")) else { return BTreeMap::new() };
    let context: Value = serde_json::from_slice(&bytes).unwrap();
    let texts = |key: &str| -> Vec<(String, String)> {
        let entries = context[key].as_object().into_iter().flatten();
        entries.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
    };
    let variable = |name: &str| format!("SAMPLE_METADATA_{}", name.replace(' ', "_").to_uppercase());
    let machine = texts("environment").into_iter().map(|(name, value)| {
        let value = value.replace("/task", task.to_str().unwrap());
        (name, value)
    });
    machine.chain(texts("metadata").into_iter().map(|(name, value)| (variable(&name), value))).collect()
}

/// A service of Compose in our own words.
fn normal(service: &Value, task: &str) -> Value {
    let above = Path::new(task).parent().unwrap().to_str().unwrap();
    let path = |value: &Value| value.as_str().map(|path| path.replace(task, "/task").replace(above, "/"));
    let limits = &service["deploy"]["resources"]["limits"];
    let reserved = &service["deploy"]["resources"]["reservations"];
    let first =
        |values: &[&Value]| values.iter().find_map(|value| number(value).filter(|value| *value > 0.0));
    let memory =
        first(&[&limits["memory"], &reserved["memory"], &service["mem_limit"], &service["mem_reservation"]]);
    let cores = first(&[&limits["cpus"], &reserved["cpus"], &service["cpus"]]);
    let ports = service["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| format!("{}/{}", port["target"], port["protocol"].as_str().unwrap()));
    let exposed = service["expose"].as_array().into_iter().flatten().flat_map(|port| {
        let (range, protocol) =
            port.as_str().unwrap().split_once('/').unwrap_or((port.as_str().unwrap(), "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let range = first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap();
        range.map(|port| format!("{port}/{protocol}")).collect::<Vec<_>>()
    });
    let check = &service["healthcheck"];
    let is_checked =
        check["disable"] != true && check["test"].as_array().is_some_and(|test| test[0] != "NONE");
    let time = |key: &str, default: f64| {
        check[key].as_str().map(seconds).filter(|time| *time > 0.0).unwrap_or(default)
    };
    let build = &service["build"];
    json!({
        "image": if build.is_null() { service["image"].clone() } else { Value::Null },
        "context": path(&build["context"]),
        "args": without_nulls(&build["args"]),
        "target": build["target"],
        "command": service["command"],
        "entrypoint": service["entrypoint"],
        "environment": without_nulls(&service["environment"]),
        "user": service["user"],
        "working_dir": service["working_dir"],
        "hostname": service["hostname"],
        "shm_size": number(&service["shm_size"]),
        "gib": memory.map(|bytes| (bytes / 1_073_741_824.0).ceil()),
        "cores": cores.map(f64::ceil),
        "ports": ports.chain(exposed).collect::<BTreeSet<_>>(),
        "test": if is_checked { check["test"].clone() } else { Value::Null },
        "times": is_checked.then(|| [
            time("interval", 30.0), time("timeout", 30.0), time("start_period", 0.0), time("start_interval", 5.0),
            number(&check["retries"]).filter(|retries| *retries > 0.0).unwrap_or(3.0),
        ]),
    })
}

/// A service of our plan in the same words.
fn ours(service: &Value) -> Value {
    let check = &service["healthcheck"];
    let test = match (check["test"]["command"].as_array(), check["test"].get("shell")) {
        (Some(words), _) => std::iter::once(json!("CMD")).chain(words.iter().cloned()).collect(),
        (_, Some(line)) => json!(["CMD-SHELL", line]),
        _ => Value::Null,
    };
    let build = &service["image"]["build"];
    let ports = service["ports"].as_array().into_iter().flatten();
    json!({
        "image": service["image"]["image"],
        "context": build["context"],
        "args": without_nulls(&build["args"]),
        "target": build["target"],
        "command": service["command"],
        "entrypoint": service["entrypoint"],
        "environment": without_nulls(&service["environment"]),
        "user": service["user"],
        "working_dir": service["working_dir"],
        "hostname": service["hostname"],
        "shm_size": number(&service["shm_size"]),
        "gib": number(&service["resources"]["memory"]),
        "cores": number(&service["resources"]["cpu"]),
        "ports": ports
            .map(|port| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap()))
            .collect::<BTreeSet<_>>(),
        "test": test,
        "times": (!test.is_null()).then(|| {
            ["interval", "timeout", "start_period", "start_interval", "retries"].map(|key| number(&check[key]).unwrap())
        }),
    })
}

/// Compose keeps names that this machine's environment does not have; a container never sees them.
fn without_nulls(map: &Value) -> BTreeMap<String, Value> {
    let entries = map.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    entries.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// A duration as Go prints it.
fn seconds(text: &str) -> f64 {
    let mut total = 0.0;
    let mut rest = text.trim_start_matches('-');
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap();
        let (digits, left) = rest.split_at(end);
        let unit = left.find(|c: char| c.is_ascii_digit()).unwrap_or(left.len());
        let (name, left) = left.split_at(unit);
        let unit = match name {
            "ns" => 1e-9,
            "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => panic!("{other}"),
        };
        total += digits.parse::<f64>().unwrap() * unit;
        rest = left;
    }
    total
}

/// What is wrong with a fixture, and how many services were compared.
fn compare(plugin: &Path, fixture: &Path) -> (Option<String>, usize) {
    let name = fixture.file_name().unwrap().to_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let task = directory.path().join("task");
    copy(fixture, &task);
    let theirs = compose(plugin, &task, &environment(fixture, &task));
    let plan = std::fs::read(fixture.join("plan.json")).ok();
    let plan: Option<Value> = plan.map(|content| serde_json::from_slice(&content).unwrap());
    let (plan, services) = match (plan, theirs) {
        // we refuse more, each with a message that has its own fixture
        (None, _) => return (None, 0),
        (Some(_), Err(error)) => {
            let wrong = refused_by_compose(name).is_none();
            return (wrong.then(|| format!("{name} is refused by Compose: {error}")), 0);
        }
        (Some(plan), Ok(services)) => (plan, services),
    };
    if refused_by_compose(name).is_some() {
        return (Some(format!("{name} is not refused by Compose")), 0);
    }
    if differs(name) {
        return (None, 0);
    }
    let ours: Vec<Value> = match plan.get("single") {
        Some(single) => vec![single["service"].clone()],
        None => plan["multi"]["services"].as_array().unwrap().clone(),
    };
    let names = |service: &Value| service["name"].as_str().unwrap().to_owned();
    let ours: BTreeMap<_, _> = ours.iter().map(|service| (names(service), self::ours(service))).collect();
    let theirs: BTreeMap<_, _> = services
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, service)| (name.clone(), normal(service, task.to_str().unwrap())))
        .collect();
    if ours == theirs {
        return (None, ours.len());
    }
    (Some(format!("{name}:\nours   {}\ntheirs {}", json!(ours), json!(theirs))), 0)
}

#[test]
fn fixtures_mean_what_they_mean_to_docker_compose() {
    let Some(plugin) = plugin() else { return };
    let directories: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| FILES.iter().any(|file| path.join(file).exists()) && path.join("plan.json").exists())
        .collect();
    let (next, compared) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    // starting the plugin is what takes the time
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(fixture) = directories.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (problem, services) = compare(&plugin, fixture);
                    wrong.lock().unwrap().extend(problem);
                    compared.fetch_add(services, Ordering::Relaxed);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let compared = compared.into_inner();
    assert!(compared >= 50, "only {compared} services were compared");
}

/// Values of one key; each is accepted by both sides with the same meaning, or refused by both, but for those that we
/// take differently for a reason.
fn compare_values(key: &str, values: &[&str], with_reason: &[(&str, &str)]) {
    let Some(plugin) = plugin() else { return };
    let mut wrong = Vec::new();
    for value in values {
        let fields = match key {
            "interval" => json!({ "image": "a", "healthcheck": { "test": "true", "interval": value } }),
            "ports" | "expose" => json!({ "image": "a", key: [value] }),
            _ => json!({ "image": "a", key: value }),
        };
        let text = json!({ "services": { "a": fields } }).to_string();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("compose.yaml"), &text).unwrap();
        let theirs = compose(&plugin, directory.path(), &BTreeMap::new()).ok();
        let theirs = theirs.map(|services| normal(&services["a"], directory.path().to_str().unwrap()));
        let files = MemoryFiles::default().with("/task/compose.yaml", text);
        let context = Context {
            directory: Path::new("/task"),
            environment: &|_| None,
            metadata: &BTreeMap::new(),
            files: &files,
        };
        let plan = load(&Source::Compose("compose.yaml".into()), &context).ok();
        let ours = plan.map(|plan| ours(&serde_json::to_value(plan).unwrap()["single"]["service"]));
        let differ = ours != theirs;
        if differ != with_reason.iter().any(|(known, _)| known == value) {
            wrong.push(format!("{key}: {value:?} (differs: {differ})\nours   {ours:?}\ntheirs {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sizes_mean_what_they_mean_to_docker_compose() {
    let sizes = [
        "0", "1", "1024", "1b", "1B", "64k", "64K", "64kb", "64KiB", "1.5gb", "2 g", "1t", "1T", "512M",
        "0.5g", "1p", "", "g", "-1", "1gg", "1gibb", "1,5g", "1  g", "1e3", "0x10", "1.2.3", ".5g", "5.g",
        "+1g", "1_0m",
    ];
    let newer = "newer ones read numbers as Go does";
    let with_reason = [(".5g", newer), ("5.g", newer)];
    compare_values("shm_size", &sizes, &with_reason);
    compare_values("mem_limit", &sizes, &with_reason);
}

#[test]
fn durations_mean_what_they_mean_to_docker_compose() {
    let durations = [
        "0",
        "0s",
        "1s",
        "1m30s",
        "1.5h",
        "500ms",
        "1h2m3s",
        "1000us",
        "1d",
        "1w",
        "1d12h",
        "",
        "30",
        "-1s",
        "s",
        "1x",
        "1 s",
        "1..2s",
        "+1s",
        ".5s",
        "1.s",
        "1s1s",
        "99999999999h",
    ];
    let newer = "newer ones know days and weeks";
    let with_reason = [
        ("1d", newer),
        ("1w", newer),
        ("1d12h", newer),
        ("-1s", "no time is negative; Docker refuses it later"),
    ];
    compare_values("interval", &durations, &with_reason);
}

#[test]
fn ports_mean_what_they_mean_to_docker_compose() {
    let ports = [
        "80",
        "8080:80",
        "127.0.0.1:8080:80",
        "[::1]:8080:80",
        "80/udp",
        "8080:80/tcp",
        "8000-8002",
        "9000-9002:8000-8002",
        "",
        "a",
        "0",
        "65536",
        "80-70",
        "80/icmp",
        "1:2:3:4",
        ":80",
        "80:",
        "127.0.0.1::80",
        "8080-8081:80",
    ];
    compare_values("ports", &ports, &[]);
    compare_values("expose", &["80", "80/udp", "8000-8002", "8000-8002/udp"], &[]);
}

#[test]
fn cores_mean_what_they_mean_to_docker_compose() {
    compare_values(
        "cpus",
        &["0", "1", "0.5", "2.0", "1e1", "", "a", "-1", "1,5", ".5"],
        &[("-1", "no machine has less than none; Docker refuses it later")],
    );
}
