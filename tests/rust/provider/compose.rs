//! Several services: a real Docker Engine in a sandbox, and Compose.

use std::path::Path;

use inspect_daytona::error::ErrorKind;
use inspect_daytona::local::control::LocalOptions;
use inspect_daytona::provider::{Sandbox, Settings};
use serde_json::json;

use crate::fixture::{Fixture, name, shell};

/// What the machine must have, and where it is from.
const NEEDED: [(&str, &str); 2] =
    [("/usr/sbin/dockerd", "apt-get install docker.io"), ("/bin/busybox", "apt-get install busybox-static")];
const PLUGINS: [&str; 2] =
    ["/usr/libexec/docker/cli-plugins/docker-compose", "/usr/lib/docker/cli-plugins/docker-compose"];

/// Whether sandboxes with an Engine can be made here; says what is missing otherwise.
fn possible() -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return false;
    }
    for (program, install) in NEEDED {
        if !Path::new(program).exists() {
            eprintln!("skipped: there is no {program} ({install})");
            return false;
        }
    }
    if !PLUGINS.iter().any(|plugin| Path::new(plugin).exists()) {
        eprintln!("skipped: there is no docker compose 2 (Debian 13: apt-get install docker-compose)");
        return false;
    }
    true
}

/// A project's folder, with an image of busybox below `image`.
struct Project(tempfile::TempDir);

impl Project {
    fn new(compose: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::create_dir(&image).unwrap();
        std::fs::copy("/bin/busybox", image.join("busybox")).unwrap();
        std::fs::write(
            image.join("Dockerfile"),
            "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
             RUN mkdir -m 1777 /tmp && echo 'root:x:0:0::/:/bin/sh' >/etc/passwd\n",
        )
        .unwrap();
        std::fs::write(directory.path().join("compose.yaml"), compose).unwrap();
        Self(directory)
    }

    fn settings(&self) -> Settings {
        let source =
            json!({"source": {"path": self.0.path().join("compose.yaml")}, "directory": self.0.path()});
        Settings::from_json(&source.to_string()).unwrap()
    }

    async fn create(&self, fixture: &Fixture) -> inspect_daytona::Result<Vec<(String, Sandbox)>> {
        fixture.run.create_services(name(), self.settings()).await
    }
}

async fn output(sandbox: &Sandbox, line: &str) -> String {
    let outcome = sandbox.exec(shell(line)).await.unwrap();
    assert_eq!(outcome.returncode, 0, "{outcome:?}");
    outcome.stdout.trim().to_owned()
}

async fn daytona() -> Fixture {
    let docker = inspect_daytona::local::control::DockerChoice::Off;
    Fixture::with(LocalOptions { docker, ..LocalOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_is_an_environment_and_the_default_one_comes_first() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  web:\n    build: image\n    command: httpd -f -p 80 -h /data\n    volumes: ['./data:/data:ro']\n    \
         healthcheck: {test: [CMD, wget, -q, -O, /dev/null, http://localhost/page], interval: 1s, retries: 20}\n  \
         default:\n    build: image\n    command: sleep infinity\n    depends_on: {web: {condition: service_healthy}}\n    \
         environment: {GREETING: 'a$$b'}\n  once:\n    build: image\n    command: 'true'\n",
    );
    std::fs::create_dir(project.0.path().join("data")).unwrap();
    std::fs::write(project.0.path().join("data/page"), "hello\n").unwrap();
    let services = project.create(&fixture).await.unwrap();
    let names: Vec<_> = services.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "web"], "a service that has ended is none");
    let (default, web) = (&services[0].1, &services[1].1);
    assert_eq!(output(default, "wget -q -O - http://web/page; echo $GREETING").await, "hello\na$b");
    assert_eq!(
        output(web, "cat /data/page; hostname >/tmp/own; test -s /tmp/own && echo own").await,
        "hello\nown"
    );
    default.write_file("/tmp/file", "text".into()).await.unwrap();
    assert_eq!(&default.read_file("/tmp/file", 100).await.unwrap()[..], b"text");
    let error = web.read_file("/tmp/file", 100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileNotFound);
    fixture.finish().await;
}
