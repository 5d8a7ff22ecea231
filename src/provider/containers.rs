//! Containers inside a sandbox: each is a [`Sandbox`] of its own, whose commands the shim resident in it runs.
//!
//! The sandbox around them, the *machine*, runs a Docker Engine, and its toolbox is root. It hands calls over to the
//! residents through sockets in directories that the containers have mounted; see `docs/exec.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::exec::Command;
use super::sandbox::{Acks, Sandbox};
use crate::error::{Error, ErrorKind, Result};
use crate::shim::protocol::{Addressee, ExecId, quote};

/// Where the machine's directory for containers may be, in order: on a disk, where an Engine may take mounts from.
const PLACES: &str = "/var/lib /opt /var/tmp /tmp";
/// Where containers have the shim.
const PROGRAM: &str = "/.inspect-daytona/program";
/// Where the residents keep their sockets and the results of commands.
const STATE: &str = "/.inspect-daytona/state";
/// How long one step of the preparation may take; the Engine starts a resident in a tenth of a second.
const STEP: Duration = Duration::from_secs(60);
/// Bytes that are kept of what a step says.
const SAID: u64 = 64 * 1024;

/// Makes the directories on the machine: `$1` the places, `$2` the name, `$3` the shim, then the services. The state
/// directories may be written by every user of a container but listed by none, and each user's files are its own.
const PREPARE: &str = r#"
[ "$(id -u)" = 0 ] || { echo "its toolbox is not root" >&2; exit 1; }
places=$1 name=$2 shim=$3
shift 3
for place in $places; do
  directory=$place/$name
  if mkdir -m 700 -- "$directory" && mkdir -m 755 -- "$directory/program" && mkdir -m 711 -- "$directory/state" &&
    cp -- "$shim" "$directory/program/shim" && chmod 755 -- "$directory/program/shim" &&
    "$directory/program/shim" version >&2
  then
    for service; do
      mkdir -m 1733 -- "$directory/state/$service" || exit 1
    done
    printf %s "$directory"
    exit 0
  fi
  rm -rf -- "$directory"
done
echo "none of $places takes a program that can be executed" >&2
exit 1
"#;

/// One bind mount that every container needs, as Docker's `--volume` names its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The machine's directory.
    pub source: String,
    /// Where the container has it.
    pub target: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// What a container must be started with, so that commands can run in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMounts {
    /// The shim, the same for all containers.
    pub program: Mount,
    /// The sockets and results, of this service alone.
    pub state: Mount,
}

/// A container of a machine.
#[derive(Debug)]
pub(super) struct Container {
    service: String,
    id: String,
    /// The machine's directory that is the container's state.
    directory: String,
    /// What the residents of its users are called; the default user has no name.
    residents: Mutex<BTreeMap<Option<String>, String>>,
    pub(super) acks: Acks,
}

impl Container {
    pub(super) fn service(&self) -> &str {
        &self.service
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The resident that runs the commands of `user`. Its name is drawn when it is first wanted, so that nobody in the
    /// container can take it beforehand.
    pub(super) fn addressee(&self, user: Option<&str>) -> Addressee {
        let mut residents = self.residents.lock().unwrap_or_else(PoisonError::into_inner);
        let name = residents.entry(user.map(str::to_owned)).or_insert_with(random_name).clone();
        Addressee { container: self.id.clone(), directory: self.directory.clone(), name }
    }

    /// The shim, as commands in the container call it.
    pub(super) fn program() -> String {
        format!("{PROGRAM}/shim")
    }
}

fn random_name() -> String {
    ExecId::from_bytes(*uuid::Uuid::new_v4().as_bytes()).to_string()
}

impl Sandbox {
    /// Makes what the containers of `services` need on this machine, in one request. Each container must have the
    /// mounts of its service, also one whose file system is read-only. Call it once, before the containers are made.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the machine cannot have containers, with its own words.
    pub async fn prepare_containers(&self, services: &[&str]) -> Result<BTreeMap<String, ContainerMounts>> {
        let name = format!("inspect-daytona-{}", &random_name()[..12]);
        let shim = self.shim().path();
        let mut argv: Vec<String> = vec!["/bin/sh".into(), "-c".into(), PREPARE.into(), "sh".into()];
        argv.extend([PLACES.to_owned(), name, shim]);
        argv.extend(services.iter().map(|service| state_name(service)));
        let outcome = self.exec_bytes(step(argv)).await?;
        if outcome.returncode != 0 || outcome.timed_out {
            let message = format!("the sandbox cannot have containers: {}", outcome.stderr.text(SAID).trim());
            return Err(Error::new(ErrorKind::Unsupported, message).with_sandbox(self.label()));
        }
        let directory = outcome.stdout.text(SAID);
        self.keep_container_directory(directory.clone());
        Ok(services.iter().map(|service| ((*service).to_owned(), mounts(&directory, service))).collect())
    }

    /// The container `container_id` of `service` as a sandbox. Nothing is sent; a resident starts with the first
    /// command. Its name, id and deletion are the machine's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unexpected`] before [`Self::prepare_containers`].
    pub fn in_container(&self, service: &str, container_id: &str) -> Result<Self> {
        let Some(directory) = self.container_directory() else {
            return Err(Error::new(ErrorKind::Unexpected, "containers were not prepared on this machine"));
        };
        Ok(self.with_container(Container {
            service: service.to_owned(),
            id: container_id.to_owned(),
            directory: format!("{directory}/state/{}", state_name(service)),
            residents: Mutex::default(),
            acks: Acks::default(),
        }))
    }

    /// Starts the residents of the default users of `containers` of this machine, where they do not run yet, in one
    /// request.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SandboxUnavailable`] that names each service in whose container none starts, and why.
    pub async fn enter_containers<'a>(&self, containers: impl Iterator<Item = &'a Self>) -> Result<()> {
        let mut script = String::new();
        let shim = quote(&self.shim().path());
        for container in containers.filter_map(Self::container) {
            let to = container.addressee(None);
            let words = [&to.container, &to.directory, &to.name].map(|word| quote(word)).join(" ");
            // to a string, which is never full
            let _ = writeln!(
                script,
                "(said=$({shim} enter {words} 2>&1) || printf 'service %s: %s\\n' {} \"$said\") &",
                quote(container.service())
            );
        }
        script.push_str("wait\n");
        let outcome = self.exec_bytes(step(vec!["/bin/sh".into(), "-c".into(), script])).await?;
        let said = [outcome.stdout.text(SAID), outcome.stderr.text(SAID)].concat();
        if outcome.returncode == 0 && !outcome.timed_out && said.trim().is_empty() {
            return Ok(());
        }
        Err(self.unavailable(format!("commands cannot run in every container: {}", said.trim())))
    }

    /// The compose service whose container this is; none for a sandbox that is no container.
    pub fn service(&self) -> Option<&str> {
        self.container().map(Container::service)
    }

    /// The id of the container that this is.
    pub fn container_id(&self) -> Option<&str> {
        self.container().map(Container::id)
    }
}

/// A service's state directory. Services may be called `..`.
fn state_name(service: &str) -> String {
    format!("service-{service}")
}

fn mounts(directory: &str, service: &str) -> ContainerMounts {
    let mount =
        |source: String, target: &str, read_only| Mount { source, target: target.to_owned(), read_only };
    ContainerMounts {
        program: mount(format!("{directory}/program"), PROGRAM, true),
        state: mount(format!("{directory}/state/{}", state_name(service)), STATE, false),
    }
}

fn step(argv: Vec<String>) -> Command {
    Command { argv, timeout: Some(STEP), output_limit: SAID, cwd: Some("/".to_owned()), ..Command::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_state_directory_of_its_own_whatever_it_is_called() {
        let mounts = mounts("/var/lib/x", "..");
        assert_eq!(mounts.state.source, "/var/lib/x/state/service-..");
        assert!(mounts.program.read_only && !mounts.state.read_only);
    }

    #[test]
    fn each_user_has_a_resident_with_a_name_of_its_own() {
        let container = Container {
            service: "web".to_owned(),
            id: "c".to_owned(),
            directory: "/d".to_owned(),
            residents: Mutex::default(),
            acks: Acks::default(),
        };
        let name = |user| container.addressee(user).name;
        assert_eq!(name(None), name(None));
        assert_ne!(name(None), name(Some("root")));
    }
}
