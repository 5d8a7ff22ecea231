//! A project that is being created, whose machine a test looks into meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use inspect_daytona::Result;
use inspect_daytona::api::sandbox::SandboxState;
use inspect_daytona::api::toolbox::ExecuteRequest;
use inspect_daytona::client::Replay;
use inspect_daytona::provider::{Listener, Note, Sandbox};
use tokio::task::JoinHandle;

use super::project::Project;
use crate::fixture::{Fixture, name, until};

/// A creation under way.
pub(crate) struct Creation {
    pub(crate) name: String,
    pub(crate) task: JoinHandle<Result<Vec<(String, Sandbox)>>>,
    warnings: Arc<Mutex<Vec<String>>>,
    /// Its files are read meanwhile.
    _project: Project,
}

impl Creation {
    pub(crate) fn begin(fixture: &Fixture, project: Project) -> Self {
        let (name, warnings) = (name(), Arc::new(Mutex::new(Vec::new())));
        let told = Arc::clone(&warnings);
        let listener = Listener::new(move |note, line| {
            if note == Note::Warning {
                told.lock().unwrap().push(line.to_owned());
            }
        });
        let (run, settings, of) = (fixture.run.clone(), project.settings(), name.clone());
        let task = tokio::spawn(async move { run.create_services_told(of, settings, listener).await });
        Self { name, task, warnings, _project: project }
    }

    /// What the user was warned of up to now.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap().clone()
    }

    /// Runs a line in the machine, if it runs; what it printed if it succeeded.
    async fn try_in_machine(&self, fixture: &Fixture, line: &str) -> Option<String> {
        let machine = fixture.client.sandboxes().find(&self.name).await.ok()??;
        if machine.state != SandboxState::Started {
            return None;
        }
        let toolbox = fixture.client.toolbox(&machine).await.ok()?;
        let request = ExecuteRequest { command: line.to_owned(), ..ExecuteRequest::default() };
        let answer = toolbox.execute(&request, Duration::from_secs(30), Replay::Safe).await.ok()?;
        (answer.exit_code == 0).then_some(answer.result)
    }

    /// Waits until a line succeeds in the machine.
    pub(crate) async fn until_in_machine(&self, fixture: &Fixture, line: &str) {
        until(line, async || {
            assert!(!self.task.is_finished(), "the creation ended before {line}");
            self.try_in_machine(fixture, line).await.is_some()
        })
        .await;
    }

    /// Waits until the command line of a process in the machine contains `words`.
    pub(crate) async fn until_runs(&self, fixture: &Fixture, words: &str) {
        // the look itself must not be what is found
        let pattern = format!("[{}]{}", &words[..1], &words[1..]).replace(' ', ".");
        let line = format!("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q -- '{pattern}'");
        self.until_in_machine(fixture, &line).await;
    }

    /// Waits until there is a machine; its id.
    pub(crate) async fn machine(&self, fixture: &Fixture) -> String {
        self.machine_after(fixture, "").await
    }

    /// Waits until the machine is another one than `earlier`; its id.
    pub(crate) async fn machine_after(&self, fixture: &Fixture, earlier: &str) -> String {
        let id = async || {
            let found = fixture.client.sandboxes().find(&self.name).await.ok()??;
            (found.state == SandboxState::Started && found.id != earlier).then_some(found.id)
        };
        until("the machine is there", async || {
            assert!(!self.task.is_finished(), "the creation ended before its machine was there");
            id().await.is_some()
        })
        .await;
        id().await.unwrap()
    }

    /// How it failed.
    pub(crate) async fn error(self) -> inspect_daytona::Error {
        self.task.await.unwrap().expect_err("it must not start")
    }
}
