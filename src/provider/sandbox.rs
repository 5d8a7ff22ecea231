//! A sandbox that runs, as the provider uses it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::containers::Container;
use super::registry::Phase;
use super::run::Run;
use crate::client::{Client, Toolbox};
use crate::error::{Error, ErrorKind, Result};
use crate::shim::protocol::{Call, ExecId, quote, script, script_for_file};

/// The shim, a static program for linux/amd64 (see `build.rs`).
static SHIM: &[u8] = include_bytes!(env!("INSPECT_DAYTONA_SHIM"));

/// The program that is uploaded into each sandbox to run its commands.
pub fn shim() -> &'static [u8] {
    SHIM
}

/// Where the shim may live, in order: the first that can be written and executed in. `/var/tmp` comes first since
/// commands clean `/tmp`.
pub(super) const SHIM_PLACES: [&str; 3] = ["/var/tmp", "/tmp", "/dev/shm"];

/// The user that may do everything, by a number that needs no entry in the sandbox's `/etc/passwd`.
pub(super) const ROOT: &str = "0";

/// A cheap handle of a sandbox, or of a container inside one.
#[derive(Clone, Debug)]
pub struct Sandbox {
    machine: Arc<Machine>,
    place: Place,
}

/// Where the commands of a sandbox run.
#[derive(Clone, Debug)]
enum Place {
    /// Where its toolbox is.
    Machine,
    /// In a container there.
    Container(Arc<Container>),
}

/// Execs whose results are here and may be removed there, by the user whose state has them.
pub(super) type Acks = Mutex<BTreeMap<Option<String>, Vec<ExecId>>>;

#[derive(Debug)]
struct Machine {
    name: String,
    id: String,
    run: Run,
    client: Client,
    toolbox: Toolbox,
    /// Who runs commands that name no user; the toolbox's own user where absent.
    default_user: Option<String>,
    /// Where commands run and relative paths start; the toolbox's own directory where absent.
    working_dir: Option<String>,
    shim: Mutex<Shim>,
    /// Whether the toolbox runs as root, once an answer told.
    toolbox_is_root: OnceLock<bool>,
    acks: Acks,
    /// What containers have mounted, once it was made.
    containers: OnceLock<String>,
    since: Instant,
}

/// Where the shim is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shim {
    place: usize,
    directory: String,
    /// The program where the image brought it; otherwise it is uploaded into the directory.
    in_image: Option<String>,
    /// It has answered, so it can be executed.
    answered: bool,
}

impl Shim {
    fn at(place: usize) -> Self {
        // a name that nothing in an image or a command can know beforehand
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        let directory = format!("{}/.inspect-daytona-{}", SHIM_PLACES[place], &suffix[..12]);
        Self { place, directory, in_image: None, answered: false }
    }

    /// The program.
    pub(super) fn path(&self) -> String {
        self.in_image.clone().unwrap_or_else(|| format!("{}/shim", self.directory))
    }

    /// `script`, preceded by what an upload cannot do: make the file executable, and its directory passable for
    /// other users but not listable. An image has the file, but not the directory: where that cannot be made, the answer
    /// is that of a missing shim. The answer also tells whom the toolbox runs as.
    pub(super) fn prepared(&self, script: String) -> String {
        if self.answered {
            return script;
        }
        let (directory, program) = (quote(&self.directory), quote(&self.path()));
        if self.in_image.is_some() {
            return format!(
                "mkdir -p {directory} && chmod 711 {directory} || exit 126; echo \"<toolbox $(id -u)>\"; {script}"
            );
        }
        format!("chmod 711 {directory}; chmod 755 {program}; echo \"<toolbox $(id -u)>\"; {script}")
    }
}

impl Sandbox {
    /// Takes a started sandbox into use: uploads the shim, unless the image has it at `in_image`.
    ///
    /// # Errors
    ///
    /// If no directory takes the shim, or the sandbox does not answer.
    pub(super) async fn prepare(
        run: Run,
        name: String,
        id: String,
        toolbox: Toolbox,
        default_user: Option<String>,
        working_dir: Option<String>,
        in_image: Option<String>,
    ) -> Result<Self> {
        let client = run.client().clone();
        let machine = Machine {
            name,
            id,
            run,
            client,
            toolbox,
            default_user,
            working_dir,
            shim: Mutex::new(Shim { in_image: in_image.clone(), ..Shim::at(0) }),
            toolbox_is_root: OnceLock::new(),
            acks: Acks::default(),
            containers: OnceLock::new(),
            since: Instant::now(),
        };
        let sandbox = Self { machine: Arc::new(machine), place: Place::Machine };
        if in_image.is_none() {
            let shim = sandbox.install_shim(0).await?;
            *sandbox.lock_shim() = shim;
        }
        Ok(sandbox)
    }

    /// The sandbox's name.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// The sandbox's id.
    pub fn id(&self) -> &str {
        &self.machine.id
    }

    /// Deletes the sandbox; goes on in the background if the future is dropped.
    ///
    /// # Errors
    ///
    /// If it may still exist; the run keeps it and tries again when it finishes.
    pub async fn delete(&self) -> Result<()> {
        self.machine.run.delete(&self.machine.name).await
    }

    /// Whether its run has deleted it, or is about to.
    pub fn is_deleted(&self) -> bool {
        let entry = self.machine.run.registry().get(&self.machine.name);
        entry.is_none_or(|entry| entry.phase == Phase::Deleting)
    }

    pub(super) fn toolbox(&self) -> &Toolbox {
        &self.machine.toolbox
    }

    /// The container that this is, if it is one.
    pub(super) fn container(&self) -> Option<&Container> {
        match &self.place {
            Place::Machine => None,
            Place::Container(container) => Some(container),
        }
    }

    /// The same machine's `container`.
    pub(super) fn with_container(&self, container: Container) -> Self {
        Self { machine: Arc::clone(&self.machine), place: Place::Container(Arc::new(container)) }
    }

    /// What messages call it.
    pub(super) fn label(&self) -> String {
        match self.container() {
            Some(container) => format!("{}, service {}", self.name(), container.service()),
            None => self.name().to_owned(),
        }
    }

    /// The machine's directory for containers, if it was made.
    pub(super) fn container_directory(&self) -> Option<&str> {
        self.machine.containers.get().map(String::as_str)
    }

    pub(super) fn keep_container_directory(&self, directory: String) {
        // containers that were made with the first one still have it
        let _first_stays = self.machine.containers.set(directory);
    }

    /// Who runs commands that name no user; the toolbox's own user, or the container's, where absent.
    pub(super) fn default_user(&self) -> Option<&str> {
        match self.place {
            Place::Machine => self.machine.default_user.as_deref(),
            Place::Container(_) => None,
        }
    }

    /// Where commands run and relative paths start; the toolbox's own directory, or the container's, where absent.
    fn working_dir(&self) -> Option<&str> {
        match self.place {
            Place::Machine => self.machine.working_dir.as_deref(),
            Place::Container(_) => None,
        }
    }

    /// The directory that `path` means, or the default one; the toolbox's own where nothing says.
    pub(super) fn directory(&self, path: Option<String>) -> Option<String> {
        match path {
            Some(path) => Some(self.resolve(&path).into_owned()),
            None => self.working_dir().map(str::to_owned),
        }
    }

    /// A path that starts at the working directory if it is relative.
    pub(super) fn resolve<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match self.working_dir() {
            Some(directory) if !path.starts_with('/') => {
                Cow::Owned(format!("{}/{path}", directory.trim_end_matches('/')))
            }
            _ => Cow::Borrowed(path),
        }
    }

    /// Whether the toolbox runs as root, for whom no file is unreadable. Assumed until an answer tells.
    pub(super) fn toolbox_is_root(&self) -> bool {
        self.machine.toolbox_is_root.get().copied().unwrap_or(true)
    }

    fn lock_shim(&self) -> MutexGuard<'_, Shim> {
        self.machine.shim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the shim is now.
    pub(super) fn shim(&self) -> Shim {
        self.lock_shim().clone()
    }

    /// The script that delivers `call`; outputs that become files hold at most `limit` bytes.
    pub(super) fn script(&self, shim: &Shim, limit: u64, call: &Call) -> String {
        match &self.place {
            Place::Machine => script(&shim.path(), call),
            Place::Container(container) => {
                container.addressee(call.user.as_deref()).script(&shim.path(), limit, call)
            }
        }
    }

    /// The same for a call that was uploaded to `file`.
    pub(super) fn script_for_file(&self, shim: &Shim, limit: u64, file: &str, call: &Call) -> String {
        match &self.place {
            Place::Machine => script_for_file(&shim.path(), file, call),
            Place::Container(container) => {
                container.addressee(call.user.as_deref()).script_for_file(&shim.path(), limit, file, call)
            }
        }
    }

    /// The shim as commands in the sandbox call it.
    pub(super) fn program(&self) -> String {
        match self.place {
            Place::Machine => self.shim().path(),
            Place::Container(_) => Container::program(),
        }
    }

    /// Notes that a shim can be executed, and what its first answer tells.
    pub(super) fn shim_answered(&self, shim: &Shim, text: &str) {
        if shim.answered {
            return;
        }
        if text.contains("<toolbox ") {
            // whoever got there first saw the same
            let _known = self.machine.toolbox_is_root.set(text.contains("<toolbox 0>"));
        }
        let mut current = self.lock_shim();
        if current.directory == shim.directory {
            current.answered = true;
        }
    }

    /// Uploads the shim to the first place from `first` on that takes it.
    async fn install_shim(&self, first: usize) -> Result<Shim> {
        let mut refused = None;
        for place in first..SHIM_PLACES.len() {
            let shim = Shim::at(place);
            match self.toolbox().upload(&shim.path(), Bytes::from_static(SHIM)).await {
                Ok(()) => return Ok(shim),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::PermissionDenied
                            | ErrorKind::FileNotFound
                            | ErrorKind::IsADirectory
                            | ErrorKind::FileSystem
                            | ErrorKind::InvalidRequest
                            | ErrorKind::System
                    ) =>
                {
                    refused = Some(error);
                }
                Err(error) => return Err(self.explain(error.with_operation("prepare the sandbox")).await),
            }
        }
        let places = SHIM_PLACES.join(", ");
        let error = self.unavailable(format!(
            "no directory of the sandbox takes the program that runs commands (tried {places})"
        ));
        Err(match refused {
            Some(source) => error.with_source(source),
            None => error,
        })
    }

    /// Puts the shim somewhere else, because it vanished or cannot be executed where it is.
    pub(super) async fn replace_shim(&self, old: &Shim) -> Result<Shim> {
        let current = self.shim();
        if current.directory != old.directory {
            return Ok(current);
        }
        // one that has answered was deleted and may come back to its place, where one of the image has not been tried;
        // another one cannot be executed there
        let place = if old.answered || old.in_image.is_some() { old.place } else { old.place + 1 };
        let shim = self.install_shim(place).await?;
        *self.lock_shim() = shim.clone();
        Ok(shim)
    }

    /// Where files of an exec are uploaded to, before their extension.
    pub(super) fn upload_path(&self, id: ExecId) -> String {
        format!("{}/in-{id}", self.lock_shim().directory)
    }

    pub(super) async fn upload_all(&self, files: &[(String, Bytes)]) -> Result<()> {
        let borrowed = files.iter().map(|(path, contents)| (path.as_str(), contents.clone()));
        match self.toolbox().upload_many(borrowed).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.own_file(error.with_operation("send a command's input")).await),
        }
    }

    /// The error of a file of ours. It must not look like one of the command's files.
    pub(super) async fn own_file(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::FileNotFound | ErrorKind::PermissionDenied | ErrorKind::IsADirectory => self
                .unavailable("files that running commands needs were removed or locked".to_owned())
                .with_source(error),
            ErrorKind::FileSystem => error.with_kind(ErrorKind::System).with_sandbox(self.label()),
            _ => self.explain(error).await,
        }
    }

    fn lock_acks(&self) -> MutexGuard<'_, BTreeMap<Option<String>, Vec<ExecId>>> {
        let acks = self.container().map_or(&self.machine.acks, |container| &container.acks);
        acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The acknowledgements that the next call of `user` carries.
    pub(super) fn take_acks(&self, user: Option<&str>) -> Vec<ExecId> {
        let mut acks = self.lock_acks();
        let Some(due) = acks.get_mut(&user.map(str::to_owned)) else { return Vec::new() };
        // bounded, so that a call stays small after a burst
        due.split_off(due.len().saturating_sub(256))
    }

    /// Notes that the result of an exec is here.
    pub(super) fn push_ack(&self, user: Option<&str>, id: ExecId) {
        self.lock_acks().entry(user.map(str::to_owned)).or_default().push(id);
    }

    /// The error of a sandbox that cannot be used any more.
    pub(super) fn unavailable(&self, message: String) -> Error {
        Error::new(ErrorKind::SandboxUnavailable, message).with_sandbox(self.label())
    }

    /// What became of a sandbox whose answers have no reply of the shim in them.
    pub(super) async fn broken(&self, exit_code: i64, text: &str) -> Error {
        let tail: String = text.chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
        let error = self.unavailable(format!(
            "the sandbox runs no commands any more: its shell answered exit code {exit_code} and {:?}",
            tail.trim()
        ));
        self.explain(error).await
    }

    /// Asks the control plane whether an error is the sandbox's end, and says so if it is.
    pub(super) async fn explain(&self, error: Error) -> Error {
        let age = self.machine.since.elapsed().as_secs();
        self.machine
            .client
            .explain(error, &self.machine.id)
            .await
            .with_sandbox(format!("{}, {age} s old", self.label()))
    }
}
