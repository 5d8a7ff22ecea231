//! Images, prepared once: on a local Daytona, and on scripted servers for the states and races that it does not have.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use inspect_daytona::ErrorKind;
use inspect_daytona::provider::{Images, Run, Settings};
use serde_json::{Value, json};

use super::fixture::{LIMIT, name, output, until};
use super::scripted::{Reply, Request, Server, answer, empty, message, raw};
use super::service::{IMAGE, server, settings};

fn image() -> Settings {
    settings(&json!({"image": IMAGE, "mem_limit": "2g"}), &json!({})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_samples_of_one_image_make_exactly_one_snapshot() {
    let fixture = server().await;
    let samples = join_all((0..50).map(|_| fixture.run.create(name(), image()))).await;
    assert_eq!(
        samples.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect::<Vec<_>>(),
        [""; 0]
    );
    assert_eq!(fixture.requests().await["POST /api/snapshots"], 1);
    let snapshots = fixture.client.snapshots().list(Some("inspect-")).await.unwrap();
    let [snapshot] = snapshots.as_slice() else { panic!("{snapshots:?}") };
    assert_eq!((snapshot.image_name.as_deref(), snapshot.mem), (Some(IMAGE), 2));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_prepared_before_is_only_looked_at() {
    let fixture = server().await;
    for _eval in 0..2 {
        image().prepare(&fixture.client, &Images::default(), &|_| {}).await.unwrap();
    }
    assert_eq!(fixture.requests().await["POST /api/snapshots"], 1);
    let sandbox = fixture.run.create(name(), image()).await.unwrap();
    assert_eq!(output(&sandbox, "echo hello").await, "hello\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_vanished_during_the_eval_is_made_again() {
    let fixture = server().await;
    fixture.run.create(name(), image()).await.unwrap();
    let snapshot = fixture.client.snapshots().list(Some("inspect-")).await.unwrap().remove(0);
    fixture.client.snapshots().delete(&snapshot.id).await.unwrap();
    fixture.run.create(name(), image()).await.unwrap();
    assert_eq!(fixture.requests().await["POST /api/snapshots"], 2);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_is_an_error_that_names_it_and_nothing_is_left() {
    let fixture = server().await;
    let settings = settings(&json!({"image": "no-such-image:1"}), &json!({})).unwrap();
    let error = fixture.run.create(name(), settings).await.unwrap_err();
    assert!(error.to_string().contains("no-such-image:1"), "{error}");
    assert_eq!(fixture.run.counts().created, 0);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_before_it_is_uploaded_ends_the_task_and_nothing_is_stored() {
    let fixture = server().await;
    let project = tempfile::tempdir().unwrap();
    let at = |path: &str| project.path().join(path);
    std::fs::write(at("Dockerfile"), format!("FROM {IMAGE}\nCOPY first answer.txt /\n")).unwrap();
    let model = json!({"services": {"default": {"build": "."}}});
    let json = json!({"source": {"model": model}, "directory": project.path()}).to_string();
    // in one request, and in parts
    for size in [1, 20 << 20] {
        std::fs::write(at("first"), vec![b'1'; size]).unwrap();
        std::fs::write(at("answer.txt"), "41").unwrap();
        let settings = Settings::from_json(&json).unwrap();
        let edit = |line: &str| {
            if line.starts_with("Uploading") {
                std::fs::write(at("answer.txt"), "42").unwrap();
            }
        };
        let error = settings.prepare(&fixture.client, &Images::default(), &edit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let text = error.to_string();
        assert!(text.contains(at("answer.txt").to_str().unwrap()) && text.contains("changed"), "{text}");
        assert_eq!(fixture.requests().await.get("POST /api/snapshots"), None);
        // what it was is not there
        std::fs::write(at("answer.txt"), "41").unwrap();
        let uploads = Mutex::new(0);
        let count = |line: &str| *uploads.lock().unwrap() += u32::from(line.starts_with("Uploading"));
        // without a Docker Engine it cannot be built
        let again = settings.prepare(&fixture.client, &Images::default(), &count).await;
        assert!(*uploads.lock().unwrap() > 0, "{again:?}");
        fixture.forget_requests().await;
    }
    fixture.finish().await;
}

/// A control plane with snapshots whose states follow a script, and an object storage.
#[derive(Default)]
struct Platform {
    /// States to go through, by name; the last one stays. A name that is not there does not exist.
    snapshots: BTreeMap<String, Vec<&'static str>>,
    /// What a new snapshot goes through.
    created: Vec<&'static str>,
    /// How often a name is taken although it cannot be read.
    invisible: u32,
    /// How often a deleted one is still read as `removing`.
    removing: u32,
    /// What is answered instead of access to the storage, in turn; the last one stays unless it is `None`.
    refusals: Vec<Option<(u16, &'static str)>>,
    objects: BTreeMap<String, Vec<u8>>,
    port: u16,
}

impl Platform {
    fn reply(&mut self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["api", "snapshots", key]) => self.get(key),
            ("POST", ["api", "snapshots"]) => {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                let name = body["name"].as_str().unwrap().to_owned();
                if self.invisible > 0 || self.snapshots.contains_key(&name) {
                    return message(
                        409,
                        &format!("Snapshot with name \"{name}\" already exists for this organization"),
                    );
                }
                let reply = answer(200, &described(&name, self.created[0]));
                self.snapshots.insert(name, self.created.clone());
                reply
            }
            ("POST", ["api", "snapshots", key, "activate"]) => {
                self.snapshots.insert((*key).to_owned(), vec!["pending", "active"]);
                answer(200, &described(key, "pending"))
            }
            ("DELETE", ["api", "snapshots", key]) => {
                let removing = vec!["removing"; self.removing as usize];
                self.snapshots.insert((*key).to_owned(), [removing, vec!["gone"]].concat());
                empty(200)
            }
            ("GET", ["api", "snapshots", _, "build-logs-url"]) => {
                answer(200, &json!({"url": format!("http://127.0.0.1:{}/log", self.port)}))
            }
            ("GET", ["log"]) => raw(200, "text/plain", "Step 1\nstep 2 failed: no space\n"),
            ("GET", ["api", "object-storage", "push-access"]) if self.refuses() => {
                let (status, text) = self.refusals[0].unwrap();
                if self.refusals.len() > 1 {
                    self.refusals.remove(0);
                }
                message(status, text)
            }
            ("GET", ["api", "object-storage", "push-access"]) => answer(
                200,
                &json!({
                    "accessKey": "key", "secret": "secret", "sessionToken": "token", "bucket": "contexts",
                    "storageUrl": format!("http://127.0.0.1:{}/storage", self.port), "organizationId": "org",
                }),
            ),
            ("HEAD", ["storage", ..]) if self.objects.contains_key(&path) => empty(200),
            ("HEAD", ["storage", ..]) => empty(404),
            ("PUT", ["storage", ..]) => {
                self.objects.insert(path, request.body.clone());
                empty(200)
            }
            _ => message(400, "not in the script"),
        }
    }

    fn refuses(&self) -> bool {
        self.refusals.first().is_some_and(Option::is_some)
    }

    fn get(&mut self, key: &str) -> Reply {
        if self.invisible > 0 && !self.snapshots.contains_key(key) {
            self.invisible -= 1;
            if self.invisible == 0 {
                self.snapshots.insert(key.to_owned(), self.created.clone());
            }
            return message(404, "Snapshot not found");
        }
        let Some(states) = self.snapshots.get_mut(key) else { return message(404, "Snapshot not found") };
        let state = if states.len() > 1 { states.remove(0) } else { states[0] };
        if state == "gone" {
            self.snapshots.remove(key);
            return message(404, "Snapshot not found");
        }
        answer(200, &described(key, state))
    }
}

/// A snapshot whose id is its name.
fn described(name: &str, state: &str) -> Value {
    let reason = state.contains("fail").then_some("step 2 failed");
    json!({"id": name, "name": name, "state": state, "errorReason": reason})
}

async fn platform(platform: Platform) -> (Server, Arc<Mutex<Platform>>) {
    let platform = Arc::new(Mutex::new(platform));
    let server = Server::start({
        let platform = Arc::clone(&platform);
        move |request, _| platform.lock().unwrap().reply(request)
    })
    .await;
    platform.lock().unwrap().port = server.port;
    (server, platform)
}

/// How many requests were like this.
fn count(server: &Server, method: &str, part: &str) -> usize {
    server.lines().iter().filter(|line| line.starts_with(method) && line.contains(part)).count()
}

/// The name of the only snapshot that was asked for.
async fn name_of(settings: &Settings) -> String {
    let (server, platform) = platform(Platform { created: vec!["active"], ..Platform::default() }).await;
    settings.prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
    let name = platform.lock().unwrap().snapshots.keys().next().unwrap().clone();
    assert!(name.starts_with("inspect-"), "{name}");
    name
}

#[tokio::test]
async fn a_snapshot_is_waited_for_through_all_states() {
    let created = vec!["pending", "building", "pulling", "active"];
    let (server, _) = platform(Platform { created, ..Platform::default() }).await;
    let told = Mutex::new(Vec::new());
    image()
        .prepare(&server.client(), &Images::default(), &|line| told.lock().unwrap().push(line.to_owned()))
        .await
        .unwrap();
    let told = told.into_inner().unwrap().join("\n");
    assert!(told.contains("building") && told.contains("ready"), "{told}");
    assert_eq!(count(&server, "POST", "/api/snapshots"), 1);
}

#[tokio::test]
async fn two_processes_share_one_snapshot() {
    let created = vec!["pending", "building", "active"];
    let (server, _) = platform(Platform { created, ..Platform::default() }).await;
    let (client, image) = (server.client(), image());
    let (one, other) = (Images::default(), Images::default());
    let results =
        tokio::join!(image.prepare(&client, &one, &|_| {}), image.prepare(&client, &other, &|_| {}));
    results.0.unwrap();
    results.1.unwrap();
    assert!(count(&server, "POST", "/api/snapshots") <= 2, "{:?}", server.lines());
    assert_eq!(count(&server, "DELETE", "/"), 0);
}

#[tokio::test]
async fn a_name_that_is_taken_but_invisible_belongs_to_another_process_and_is_awaited() {
    let (server, _) =
        platform(Platform { created: vec!["active"], invisible: 3, ..Platform::default() }).await;
    image().prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
    assert_eq!(count(&server, "DELETE", "/"), 0);
}

#[tokio::test]
async fn an_inactive_snapshot_is_activated_and_not_built_again() {
    let snapshots = BTreeMap::from([(name_of(&image()).await, vec!["inactive"])]);
    let (server, _) = platform(Platform { snapshots, ..Platform::default() }).await;
    image().prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
    assert_eq!(
        (count(&server, "POST", "/activate"), count(&server, "POST", "/")),
        (1, 1),
        "{:?}",
        server.lines()
    );
}

#[tokio::test]
async fn a_snapshot_that_failed_earlier_is_deleted_awaited_and_made_again_once() {
    let snapshots = BTreeMap::from([(name_of(&image()).await, vec!["error"])]);
    let started =
        Platform { snapshots, created: vec!["pending", "active"], removing: 2, ..Platform::default() };
    let (server, _) = platform(started).await;
    image().prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
    let lines = server.lines();
    assert_eq!((count(&server, "DELETE", "/"), count(&server, "POST", "/")), (1, 1), "{lines:?}");
    let deleted = lines.iter().position(|line| line.starts_with("DELETE")).unwrap();
    let made = lines.iter().position(|line| line.starts_with("POST")).unwrap();
    assert!(made >= deleted + 3, "only once it was gone: {lines:?}");
}

#[tokio::test]
async fn a_build_that_fails_is_an_error_with_the_end_of_its_log_and_is_not_repeated() {
    let created = vec!["building", "build_failed"];
    let (server, _) = platform(Platform { created, ..Platform::default() }).await;
    let moving = settings(&json!({"image": "python"}), &json!({})).unwrap();
    let error = moving.prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BuildFailed);
    let text = error.to_string();
    assert!(text.contains("step 2 failed") && text.contains("no space"), "{text}");
    assert_eq!((count(&server, "POST", "/"), count(&server, "DELETE", "/")), (1, 0));
}

/// A project with a Dockerfile that reads files; `settings` of `x-daytona`.
fn project(directory: &Path, settings: &Value) -> Settings {
    std::fs::write(directory.join("Dockerfile"), "FROM debian:12\nARG A=1\nCOPY src /src\nFROM scratch\n")
        .unwrap();
    std::fs::create_dir_all(directory.join("src")).unwrap();
    std::fs::write(directory.join("src/main.py"), "print(1)\n").unwrap();
    let build = json!({"context": ".", "target": "0", "args": {"A": "2"}});
    let model = json!({"services": {"default": {"build": build, "cpus": 2}}, "x-daytona": settings});
    Settings::from_json(&json!({"source": {"model": model}, "directory": directory}).to_string()).unwrap()
}

#[tokio::test]
async fn a_context_is_uploaded_once_and_only_what_the_build_reads() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("unrelated"), "x").unwrap();
    let (server, state) = platform(Platform { created: vec!["active"], ..Platform::default() }).await;
    let first = project(directory.path(), &json!({}));
    first.prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
    {
        let state = state.lock().unwrap();
        let mut paths = Vec::new();
        for (path, archive) in &state.objects {
            assert!(path.starts_with("/storage/contexts/org/") && path.ends_with("/context.tar"), "{path}");
            let mut archive = tar::Archive::new(archive.as_slice());
            let entries = archive.entries().unwrap();
            paths.extend(entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()));
        }
        paths.sort();
        assert_eq!((paths.len(), paths[1].as_str()), (2, "src/main.py"));
        assert!(paths[0].starts_with("inspect-daytona-shim-"), "{paths:?}");
    }
    let seen = server.seen.lock().unwrap().clone();
    let body = seen.iter().find(|request| request.line() == "POST /api/snapshots").unwrap();
    let body: Value = serde_json::from_slice(&body.body).unwrap();
    let dockerfile = body["buildInfo"]["dockerfileContent"].as_str().unwrap();
    let rest = dockerfile.strip_prefix("FROM debian:12\nARG A=\"2\"\nCOPY src /src\n").unwrap();
    assert!(rest.starts_with("COPY inspect-daytona-shim-") && rest.lines().count() == 1, "{rest}");
    assert_eq!((&body["cpu"], body["buildInfo"]["contextHashes"].as_array().unwrap().len()), (&json!(2), 2));
    for request in seen.iter().filter(|request| request.path.starts_with("/storage")) {
        assert_eq!(request.header("authorization"), None, "the key is not the storage's to see");
    }
    // another size: another snapshot of the same files
    state.lock().unwrap().snapshots.clear();
    let again = project(directory.path(), &json!({"resources": {"cpu": 3}}));
    again.prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
    assert_eq!((count(&server, "PUT", "/storage"), count(&server, "POST", "/api/snapshots")), (2, 2));
    // and other files are another snapshot
    std::fs::write(directory.path().join("src/main.py"), "print(2)\n").unwrap();
    again.prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
    assert_eq!((count(&server, "PUT", "/storage"), count(&server, "POST", "/api/snapshots")), (3, 3));
}

fn that_runs_something() -> Settings {
    settings(
        &json!({"build": {"context": "/", "dockerfile_inline": "FROM debian:12\nRUN true\n"}}),
        &json!({}),
    )
    .unwrap()
}

#[tokio::test]
async fn an_image_is_built_without_our_program_where_the_key_has_no_object_storage() {
    for refusal in [
        (404, "Cannot GET /api/object-storage/push-access"),
        (403, "Access denied"),
        (503, "Object storage is not configured"),
    ] {
        let started =
            Platform { created: vec!["active"], refusals: vec![Some(refusal)], ..Platform::default() };
        let (server, _) = platform(started).await;
        that_runs_something().prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
        let seen = server.seen.lock().unwrap().clone();
        let body = seen.iter().find(|request| request.line() == "POST /api/snapshots").unwrap();
        let body: Value = serde_json::from_slice(&body.body).unwrap();
        assert_eq!(body["buildInfo"]["dockerfileContent"], "FROM debian:12\nRUN true\n", "{refusal:?}");
        assert_eq!(count(&server, "GET", "push-access"), 1, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_moments_failure_of_the_object_storage_gives_the_image_no_other_name() {
    let name = name_of(&that_runs_something()).await;
    for failure in [(500, "Internal server error"), (400, "Failed to get temporary credentials: timeout")] {
        let refusals = vec![Some(failure), None];
        let snapshots = BTreeMap::from([(name.clone(), vec!["active"])]);
        let (server, _) = platform(Platform { snapshots, refusals, ..Platform::default() }).await;
        that_runs_something().prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
        assert_eq!(count(&server, "POST", "/"), 0, "{:?}", server.lines());
    }
}

#[tokio::test]
async fn a_lasting_failure_of_the_object_storage_ends_only_what_needs_it() {
    for failure in [(500, "Internal server error"), (400, "Failed to get temporary credentials: timeout")] {
        let broken =
            || Platform { created: vec!["active"], refusals: vec![Some(failure)], ..Platform::default() };
        let (server, _) = platform(broken()).await;
        that_runs_something().prepare(&server.client(), &Images::default(), &|_| {}).await.unwrap();
        let seen = server.seen.lock().unwrap().clone();
        let body = seen.iter().find(|request| request.line() == "POST /api/snapshots").unwrap();
        let body: Value = serde_json::from_slice(&body.body).unwrap();
        assert_eq!(body["buildInfo"]["dockerfileContent"], "FROM debian:12\nRUN true\n", "{failure:?}");
        assert!(count(&server, "GET", "push-access") > 1, "it is tried again first");
        // files of the user's have to go there
        let (server, _) = platform(broken()).await;
        let directory = tempfile::tempdir().unwrap();
        let settings = project(directory.path(), &json!({}));
        let prepared = settings.prepare(&server.client(), &Images::default(), &|_| {}).await;
        assert_eq!(prepared.unwrap_err().kind(), ErrorKind::Server);
        assert_eq!(count(&server, "POST", "/"), 0);
    }
}

#[tokio::test]
async fn without_preparation_each_sandbox_is_created_with_the_build_and_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = platform(Platform::default()).await;
    let run = Run::new(server.client());
    let declared = project(directory.path(), &json!({"prepare": false}));
    // the script has no sandboxes; the request is what counts
    run.create(name(), declared).await.unwrap_err();
    let seen = server.seen.lock().unwrap().clone();
    let body = &seen.iter().find(|request| request.line() == "POST /api/sandbox").unwrap().body;
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&body["cpu"], body.get("snapshot")), (&json!(2), None));
    assert!(body["buildInfo"]["dockerfileContent"].as_str().unwrap().starts_with("FROM debian:12\n"));
    assert_eq!((count(&server, "PUT", "/storage"), count(&server, "POST", "/api/snapshots")), (2, 0));
}

#[tokio::test]
async fn a_request_from_a_snapshot_carries_no_resources() {
    let (server, _) = platform(Platform { created: vec!["active"], ..Platform::default() }).await;
    Run::new(server.client()).create(name(), image()).await.unwrap_err();
    let seen = server.seen.lock().unwrap().clone();
    let body = &seen.iter().find(|request| request.line() == "POST /api/sandbox").unwrap().body;
    let body: Value = serde_json::from_slice(body).unwrap();
    assert!(body["snapshot"].as_str().unwrap().starts_with("inspect-"));
    assert!(
        ["cpu", "memory", "disk", "gpu", "buildInfo"].iter().all(|key| body.get(key).is_none()),
        "{body}"
    );
}

#[tokio::test]
async fn what_is_expected_to_be_prebuilt_is_never_built() {
    let directory = tempfile::tempdir().unwrap();
    let (server, platform) = platform(Platform { created: vec!["active"], ..Platform::default() }).await;
    let (client, images) = (server.client(), Images::default());
    let build = project(directory.path(), &json!({}));
    let error = build.expect_prebuilt(&client, &images).await.unwrap_err();
    assert!(error.to_string().contains("there is no snapshot inspect-"), "{error}");
    assert_eq!((count(&server, "POST", "/api/snapshots"), count(&server, "PUT", "/storage")), (0, 0));
    image().expect_prebuilt(&client, &images).await.expect("images that are only pulled are not built");
    build.prepare(&client, &images, &|_| {}).await.unwrap();
    build.expect_prebuilt(&client, &Images::default()).await.unwrap();
    for states in platform.lock().unwrap().snapshots.values_mut() {
        *states = vec!["build_failed"];
    }
    let error = build.expect_prebuilt(&client, &images).await.unwrap_err();
    assert!(error.to_string().contains("is not ready"), "{error}");
    let each = project(directory.path(), &json!({"prepare": false}));
    let error = each.expect_prebuilt(&client, &images).await.unwrap_err();
    assert!(error.to_string().contains("prepare: false"), "{error}");
}

#[tokio::test]
async fn a_sandbox_with_a_gpu_is_deleted_when_it_stops_as_the_platform_wants() {
    let (server, _) = platform(Platform { created: vec!["active"], ..Platform::default() }).await;
    let service = json!({"image": IMAGE, "gpus": [{"count": 1}]});
    let gpu = settings(&service, &json!({"gpu_type": "H100"})).unwrap();
    Run::new(server.client()).create(name(), gpu).await.unwrap_err();
    let body = |line: &str| {
        let seen = server.seen.lock().unwrap();
        let request = seen.iter().find(|request| request.line() == line).unwrap();
        serde_json::from_slice::<Value>(&request.body).unwrap()
    };
    let snapshot = body("POST /api/snapshots");
    assert_eq!((&snapshot["gpu"], &snapshot["gpuType"]), (&json!(1), &json!(["H100"])));
    assert_eq!(body("POST /api/sandbox")["autoDeleteInterval"], 0);
}

#[tokio::test]
async fn a_sample_that_is_given_up_does_not_wait_for_its_image() {
    let (server, _) = platform(Platform { created: vec!["building"], ..Platform::default() }).await;
    let run = Run::new(server.client());
    let name = name();
    let creation = tokio::spawn({
        let (run, name) = (run.clone(), name.clone());
        async move { run.create(name, image()).await.map(drop) }
    });
    until("the build has begun", async || count(&server, "POST", "/api/snapshots") == 1).await;
    run.abandon(&name);
    let error = tokio::time::timeout(LIMIT, creation).await.expect("it ends").unwrap().unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    assert_eq!(count(&server, "POST", "/api/sandbox"), 0);
    assert_eq!(run.finish(true).await, []);
}
