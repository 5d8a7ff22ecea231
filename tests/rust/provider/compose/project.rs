//! A project of services whose image is made of busybox, and a Daytona for it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inspect_daytona::api::toolbox::ExecuteRequest;
use inspect_daytona::client::Replay;
use inspect_daytona::local::control::LocalOptions;
use inspect_daytona::provider::{Listener, Note, Sandbox, Settings};
use serde_json::json;

use crate::fixture::{Fixture, name, until};

/// What the machine must have, and where it is from.
const NEEDED: [(&str, &str); 2] =
    [("/usr/sbin/dockerd", "apt-get install docker.io"), ("/bin/busybox", "apt-get install busybox-static")];
const PLUGINS: [&str; 2] =
    ["/usr/libexec/docker/cli-plugins/docker-compose", "/usr/lib/docker/cli-plugins/docker-compose"];

/// Whether sandboxes with an Engine can be made here; says what is missing otherwise.
pub(crate) fn possible() -> bool {
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

/// Two services that do nothing by themselves.
pub(crate) const IDLE: &str = "services:\n  default: {build: image, command: sleep infinity}\n  \
                               web: {build: image, command: sleep infinity}\n";

/// A project's folder, with an image of busybox below `image`.
pub(crate) struct Project(pub(crate) tempfile::TempDir);

impl Project {
    pub(crate) fn new(compose: &str) -> Self {
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

    pub(crate) fn settings(&self) -> Settings {
        self.try_settings().unwrap()
    }

    pub(crate) fn try_settings(&self) -> inspect_daytona::Result<Settings> {
        let source =
            json!({"source": {"path": self.0.path().join("compose.yaml")}, "directory": self.0.path()});
        Settings::from_json(&source.to_string())
    }

    pub(crate) async fn create(&self, fixture: &Fixture) -> inspect_daytona::Result<Vec<(String, Sandbox)>> {
        fixture.run.create_services(name(), self.settings()).await
    }

    /// Creates it and keeps the warnings.
    pub(crate) async fn create_told(
        &self,
        fixture: &Fixture,
    ) -> (inspect_daytona::Result<Vec<(String, Sandbox)>>, Vec<String>) {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&warnings);
        let listener = Listener::new(move |note, line| {
            if note == Note::Warning {
                told.lock().unwrap().push(line.to_owned());
            }
        });
        let created = fixture.run.create_services_told(name(), self.settings(), listener).await;
        let warnings = warnings.lock().unwrap().clone();
        (created, warnings)
    }
}

pub(crate) async fn daytona() -> Fixture {
    let docker = inspect_daytona::local::control::DockerChoice::Off;
    Fixture::with(LocalOptions { docker, ..LocalOptions::default() }).await
}

/// Runs a line in the machine around `service`.
pub(crate) async fn in_machine(fixture: &Fixture, service: &Sandbox, line: &str) -> String {
    let machine = fixture.client.sandboxes().find(service.id()).await.unwrap().unwrap();
    let toolbox = fixture.client.toolbox(&machine).await.unwrap();
    let request = ExecuteRequest { command: line.to_owned(), ..ExecuteRequest::default() };
    toolbox.execute(&request, Duration::from_secs(30), Replay::Safe).await.unwrap().result
}

/// Sees that all sandboxes that were made, `created` of them, are gone by themselves: the end of a run would delete them.
/// The platform may be at it a while longer.
pub(crate) async fn nothing_is_left(fixture: &Fixture, created: u64) {
    until("all sandboxes are deleted", async || {
        let counts = fixture.run.counts();
        let is_settled = fixture.run.left().is_empty() && counts.created == created;
        is_settled && counts.deleted == created && fixture.server.statistics().left == 0
    })
    .await;
    assert_eq!(fixture.server.statistics().created, created);
}
