//! What a single service asks for, in real sandboxes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inspect_daytona::ErrorKind;
use inspect_daytona::local::control::{DockerChoice, ImageSource, LocalOptions};
use inspect_daytona::provider::{Command, Listener, Sandbox, Settings};
use serde_json::{Value, json};

use super::fixture::{Fixture, LIMIT, command, name, output, shell, until};

pub(crate) const IMAGE: &str = "python:3.12";

/// A server that has an image.
pub(crate) async fn server() -> Fixture {
    let images = ("INSPECT_DAYTONA_LOCAL_IMAGES".to_owned(), format!("{IMAGE}=host"));
    Fixture::with(LocalOptions::from_variables([images]).unwrap()).await
}

/// Settings of a compose file with this one service.
pub(crate) fn settings(service: &Value, settings: &Value) -> inspect_daytona::Result<Settings> {
    let model = json!({"services": {"default": service}, "x-daytona": settings});
    Settings::from_json(&json!({"source": {"model": model}, "directory": "/"}).to_string())
}

async fn sandbox(fixture: &Fixture, service: Value) -> inspect_daytona::Result<Sandbox> {
    fixture.run.create(name(), settings(&service, &json!({}))?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn relative_paths_start_at_the_working_directory_which_is_made() {
    let fixture = server().await;
    let service = json!({"image": IMAGE, "working_dir": "/tmp/work dir/deep"});
    let sandbox = sandbox(&fixture, service).await.unwrap();
    assert_eq!(output(&sandbox, "pwd").await, "/tmp/work dir/deep\n");
    sandbox.write_file("a/b.txt", "hello".into()).await.unwrap();
    assert_eq!(output(&sandbox, "cat a/b.txt").await, "hello");
    assert_eq!(sandbox.read_file("a/b.txt", 100).await.unwrap(), "hello");
    let outcome = sandbox.exec(Command { cwd: Some("a".to_owned()), ..command(&["pwd"]) }).await.unwrap();
    assert_eq!(outcome.stdout, "/tmp/work dir/deep/a\n");
    let outcome = sandbox.exec(Command { cwd: Some("/".to_owned()), ..command(&["pwd"]) }).await.unwrap();
    assert_eq!(outcome.stdout, "/\n");
    let error = sandbox.read_file("missing", 100).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::FileNotFound, "missing"),
        "named as the caller did"
    );
    let error = sandbox.write_file("a", "x".into()).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::IsADirectory, "a"));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_directory_that_cannot_be_made_is_an_error_and_the_sandbox_is_deleted() {
    let fixture = server().await;
    let error = sandbox(&fixture, json!({"image": IMAGE, "working_dir": "/etc/passwd/x"})).await.unwrap_err();
    assert!(error.to_string().contains("/etc/passwd/x cannot be made (working_dir)"), "{error}");
    assert_eq!(fixture.run.counts().deleted, 1);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_reaches_commands_and_the_user_runs_them() {
    let fixture = server().await;
    let service =
        json!({"image": IMAGE, "environment": {"GREETING": "a b"}, "user": "nobody", "working_dir": "/tmp"});
    let sandbox = sandbox(&fixture, service).await.unwrap();
    assert_eq!(output(&sandbox, "id -un; echo $GREETING; pwd").await, "nobody\na b\n/tmp\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_as_a_user_with_a_group() {
    let fixture = server().await;
    let other = if nix::unistd::geteuid().is_root() {
        vec![("1000:4", "1000 4"), ("nobody:1000", "65534 1000")]
    } else {
        vec![]
    };
    for (user, ids) in [("1000:1000", "1000 1000")].into_iter().chain(other) {
        let service = json!({"image": IMAGE, "user": user});
        let sandbox = sandbox(&fixture, service).await.unwrap();
        let found =
            output(&sandbox, "cd \"$(mktemp -d)\"; echo $(id -u) $(id -g) $(stat -c '%u %g' .)").await;
        assert_eq!(found, format!("{ids} {ids}\n"), "{user}");
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_directory_that_only_root_can_make_belongs_to_whom_commands_run_as_by_default() {
    let fixture = server().await;
    let sandbox = sandbox(&fixture, json!({"image": IMAGE, "working_dir": "/opt/new/place"})).await.unwrap();
    assert_eq!(
        output(&sandbox, "echo x > file && cat file && [ \"$(stat -c %u .)\" = \"$(id -u)\" ]").await,
        "x\n"
    );
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_names_are_known_inside() {
    let fixture = server().await;
    let service = json!({"image": IMAGE, "extra_hosts": ["db:10.1.2.3"]});
    let sandbox = sandbox(&fixture, service).await.unwrap();
    assert!(output(&sandbox, "cat /etc/hosts").await.contains("10.1.2.3\tdb\n"));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_once_in_the_background_with_the_service_user_directory_and_environment() {
    let fixture = server().await;
    let service = json!({
        "image": IMAGE, "user": "nobody", "working_dir": "/tmp", "environment": {"WORD": "hello"},
        "entrypoint": ["/bin/sh", "-c"],
        "command": ["echo $$WORD $(id -un) $(pwd) >> started; exec sleep 1000"],
    });
    let sandbox = sandbox(&fixture, service).await.unwrap();
    until("the command has begun", async || {
        sandbox.exec(shell("cat /tmp/started")).await.unwrap().stdout == "hello nobody /tmp\n"
    })
    .await;
    assert_eq!(output(&sandbox, "pgrep -cx sleep").await, "1\n", "it goes on");
    fixture.finish().await;
}

/// A build whose entrypoint notes each of its arguments in a file.
fn noting(service: Value) -> Value {
    let entrypoint =
        json!(["/bin/sh", "-c", "printf '%s\\n' \"$@\" >> /tmp/noted; sleep 1000", "sh", "image"]);
    let mut service = service;
    service["build"] = json!({"dockerfile_inline": format!("FROM {IMAGE}\nENTRYPOINT {entrypoint}\n")});
    service
}

/// What was noted. The platform starts its own before ours, so nothing else is to come.
async fn noted(sandbox: &Sandbox) -> String {
    let is_there = async || sandbox.exec(shell("test -s /tmp/noted")).await.unwrap().returncode == 0;
    until("something is noted", is_there).await;
    output(sandbox, "cat /tmp/noted").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entrypoint_of_the_dockerfile_runs_where_the_service_has_none() {
    let fixture = server().await;
    let sandbox = sandbox(&fixture, noting(json!({}))).await.unwrap();
    assert_eq!(noted(&sandbox).await, "image\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_the_arguments_of_the_dockerfiles_entrypoint_which_runs_once() {
    let fixture = server().await;
    let sandbox = sandbox(&fixture, noting(json!({"command": ["of", "service"]}))).await.unwrap();
    assert_eq!(noted(&sandbox).await, "image\nof\nservice\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entrypoint_of_the_service_replaces_that_of_the_dockerfile() {
    let fixture = server().await;
    let own = json!(["/bin/sh", "-c", "echo service >> /tmp/noted; sleep 1000"]);
    let first = sandbox(&fixture, noting(json!({"entrypoint": own}))).await.unwrap();
    assert_eq!(noted(&first).await, "service\n");
    let none = sandbox(&fixture, noting(json!({"entrypoint": [], "command": own}))).await.unwrap();
    assert_eq!(noted(&none).await, "service\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_at_once_leaves_the_sandbox_usable() {
    let fixture = server().await;
    for line in [json!(["/bin/sh", "-c", "exit 3"]), json!(["/no/such/program"])] {
        let sandbox = sandbox(&fixture, json!({"image": IMAGE, "command": line})).await.unwrap();
        assert_eq!(output(&sandbox, "echo usable").await, "usable\n");
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_awaited() {
    let fixture = server().await;
    let service = json!({
        "image": IMAGE, "working_dir": "/tmp",
        "command": ["/bin/sh", "-c", "sleep 1; touch /tmp/ready; sleep 1000"],
        "healthcheck": {"test": ["CMD", "test", "-e", "ready"], "interval": "100ms", "retries": 100},
    });
    let sandbox = sandbox(&fixture, service).await.unwrap();
    assert_eq!(output(&sandbox, "ls /tmp/ready").await, "/tmp/ready\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_service_is_an_error_with_its_words_and_the_sandbox_is_deleted() {
    let fixture = server().await;
    let service = json!({
        "image": IMAGE,
        "command": ["/bin/sh", "-c", "echo out of luck; exit 5"],
        "healthcheck": {"test": "echo not yet; exit 1", "interval": "50ms", "retries": 2},
    });
    let error = sandbox(&fixture, service).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::CreationFailed);
    assert!(text.contains("did not become healthy") && text.contains("said: not yet"), "{text}");
    assert!(text.contains("ended with status 5 and said: out of luck"), "{text}");
    assert_eq!(fixture.run.counts().deleted, 1);
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_within_the_start_period_do_not_count() {
    let fixture = server().await;
    let service = json!({
        "image": IMAGE,
        "healthcheck": {
            "test": "echo x >> /tmp/checks; test $(wc -l < /tmp/checks) -ge 6",
            "interval": "50ms", "retries": 1, "start_period": "60s", "start_interval": "50ms",
        },
    });
    let sandbox = sandbox(&fixture, service).await.unwrap();
    assert_eq!(output(&sandbox, "wc -l < /tmp/checks").await.trim(), "6");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_ends_when_the_sample_is_given_up() {
    let fixture = server().await;
    let service = json!({"image": IMAGE, "healthcheck": {"test": "false", "interval": "1h"}});
    let settings = settings(&service, &json!({})).unwrap();
    let name = name();
    let creation = tokio::spawn({
        let (run, name) = (fixture.run.clone(), name.clone());
        async move { run.create(name, settings).await.map(drop) }
    });
    until("the first check was made", async || {
        fixture.requests().await.iter().any(|(route, _)| route.contains("process/execute"))
    })
    .await;
    let began = Instant::now();
    fixture.run.abandon(&name);
    let error = tokio::time::timeout(LIMIT, creation).await.expect("it ends").unwrap().unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60));
    fixture.finish().await;
}

/// Whether root of a sandbox may change its mounts here: with identities mapped by the file system, it may.
fn mounts_are_allowed(fixture: &Fixture) -> bool {
    fixture.server.isolation().name == "namespaces/root-idmap"
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_and_a_host_name_hold_in_the_sandbox_or_the_sandbox_is_refused() {
    let fixture = server().await;
    let service = json!({"image": IMAGE, "tmpfs": ["/mnt:size=1m"], "hostname": "box"});
    let sandbox = sandbox(&fixture, service).await;
    if mounts_are_allowed(&fixture) {
        let sandbox = sandbox.unwrap();
        assert!(output(&sandbox, "grep ' /mnt ' /proc/mounts").await.contains("tmpfs"));
        assert_eq!(output(&sandbox, "cat /proc/sys/kernel/hostname").await, "box\n");
    } else if let Err(error) = sandbox {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("hostname") || error.to_string().contains("tmpfs"), "{error}");
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_a_mount_hold_over_dockers_own() {
    let fixture = server().await;
    let service = json!({"image": IMAGE, "tmpfs": ["/mnt:uid=7,mode=750,exec,noatime", "/opt"]});
    let sandbox = sandbox(&fixture, service).await;
    if mounts_are_allowed(&fixture) {
        let sandbox = sandbox.unwrap();
        assert_eq!(output(&sandbox, "stat -c '%u %a' /mnt").await, "7 750\n");
        let options = output(&sandbox, "grep ' /mnt tmpfs' /proc/mounts").await;
        let has = |options: &str, wanted: &str| options.split([' ', ',']).any(|option| option == wanted);
        assert!(["nosuid", "nodev", "noatime"].iter().all(|wanted| has(&options, wanted)), "{options}");
        assert!(!has(&options, "noexec"), "{options}");
        assert!(has(&output(&sandbox, "grep ' /opt tmpfs' /proc/mounts").await, "noexec"));
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_directories_that_keep_what_the_image_has() {
    let fixture = server().await;
    let directory = format!("/tmp/volumes-{}", std::process::id());
    let volumes = [format!("{directory}/deep/data"), "/usr/share".to_owned(), format!("{directory}/a b")];
    let service = json!({"image": IMAGE, "volumes": volumes, "user": "root", "working_dir": directory});
    let sandbox = sandbox(&fixture, service).await.unwrap();
    assert_eq!(
        output(&sandbox, "stat -c '%U %a %n' deep/data 'a b'").await,
        "root 755 deep/data\nroot 755 a b\n"
    );
    assert_ne!(output(&sandbox, "ls /usr/share").await, "");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_writable_where_no_user_is_named() {
    let fixture = server().await;
    let path = format!("/srv/volumes-{}", std::process::id());
    let sandbox = sandbox(&fixture, json!({"image": IMAGE, "volumes": [path]})).await.unwrap();
    assert_eq!(output(&sandbox, &format!("touch {path}/file && ls {path}")).await, "file\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_over_a_file_is_an_error_and_the_sandbox_is_deleted() {
    let fixture = server().await;
    let error = sandbox(&fixture, json!({"image": IMAGE, "volumes": ["/etc/passwd"]})).await.unwrap_err();
    assert!(error.to_string().contains("/etc/passwd cannot be made (volumes)"), "{error}");
    assert_eq!(fixture.run.counts().deleted, 1);
    fixture.finish().await;
}

/// A root file system whose user cannot become root.
fn without_sudo() -> Option<tempfile::TempDir> {
    if !(nix::unistd::geteuid().is_root() && std::path::Path::new("/bin/busybox").exists()) {
        eprintln!("skipped, since it needs root and a busybox: apt-get install busybox-static");
        return None;
    }
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    for directory in ["bin", "etc", "var/tmp", "home/daytona"] {
        std::fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    for name in ["sh", "id", "mkdir", "cat", "ls", "chmod", "rm", "touch"] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    let passwd = "root:x:0:0::/:/bin/sh\ndaytona:x:1000:1000::/home/daytona:/bin/sh\n";
    std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
    for own in ["home/daytona", "var/tmp"] {
        std::os::unix::fs::chown(root.path().join(own), Some(1000), Some(1000)).unwrap();
    }
    Some(root)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_needs_root_is_a_warning_where_the_sandbox_gives_none() {
    let Some(root) = without_sudo() else { return };
    let images = [("bare:1".to_owned(), ImageSource::Directory(root.path().to_owned()))];
    let options =
        LocalOptions { docker: DockerChoice::Off, images: images.into(), ..LocalOptions::default() };
    let fixture = Fixture::with(options).await;
    let service = json!({
        "build": {"dockerfile_inline": "FROM bare:1\nUSER daytona\n"},
        "volumes": ["/cache", "/home/daytona/own", "/bin"],
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Listener::new({
        let told = Arc::clone(&told);
        move |_, line| told.lock().unwrap().push(line.to_owned())
    });
    let settings = settings(&service, &json!({})).unwrap();
    let services = fixture.run.create_services_told(name(), settings, listener).await.unwrap();
    let sandbox = &services[0].1;
    assert_eq!(
        output(sandbox, "id -un; ls /home/daytona; ls -d /cache 2>/dev/null || true").await,
        "daytona\nown\n"
    );
    let told = told.lock().unwrap().join("\n");
    assert!(told.contains("the volume /cache does not exist: making it needs root"), "{told}");
    assert!(!told.contains("/bin") && !told.contains("own"), "{told}");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_has_the_size_that_was_asked_for_or_the_sandbox_is_refused() {
    let fixture = server().await;
    let sandbox = sandbox(&fixture, json!({"image": IMAGE, "shm_size": "96m"})).await;
    if mounts_are_allowed(&fixture) {
        let kib = output(&sandbox.unwrap(), "df -k /dev/shm | awk 'END { print $2 }'").await;
        assert_eq!(kib.trim(), (96 * 1024).to_string());
    } else if let Err(error) = sandbox {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("shm_size"), "{error}");
    }
    fixture.finish().await;
}

#[test]
fn what_this_version_cannot_do_is_refused_by_name() {
    let error = settings(&json!({"image": IMAGE, "ulimits": {"nofile": 10}}), &json!({})).unwrap_err();
    assert!(error.to_string().contains("ulimits"), "{error}");
    let request = json!({"source": {"settings": {"resources": {"cpu": 2}}}, "directory": "/"}).to_string();
    let error = Settings::from_json(&request).unwrap_err();
    assert!(error.to_string().contains("default snapshot brings its own resources"), "{error}");
}
