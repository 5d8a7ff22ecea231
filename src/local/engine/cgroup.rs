//! Resource limits, by control groups of version 1 or 2.
//!
//! Each server has one group per hierarchy, and each sandbox with limits one below it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::delegate;
use super::hierarchy::{Controller, Hierarchy, PREFIX, find};
use crate::error::{Error, ErrorKind, Result};
use crate::local::spec::Limits;
use crate::local::wire::Delegation;

/// The kernel's default scheduling period.
const PERIOD_MICROSECONDS: u64 = 100_000;
/// Freezes the processes of a group of version 1.
const FREEZER: &str = "freezer.state";

/// The groups of one server.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

/// The groups of one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cgroup {
    pub(super) directories: Vec<PathBuf>,
    memory: Option<(PathBuf, bool)>,
    /// The groups below that are the sandbox's to divide.
    pub(super) delegated: Vec<PathBuf>,
    pub(super) delegation: Option<Delegation>,
}

impl Cgroups {
    /// Makes the server's groups where this user may.
    pub(super) fn open(name: &str) -> Self {
        Self { hierarchies: find(&format!("{PREFIX}{name}")) }
    }

    /// What cannot be limited here, one sentence each.
    pub(super) fn lost(&self) -> Vec<String> {
        [
            (Controller::Memory, "Memory limits are not enforced"),
            (Controller::Cpu, "CPU limits are not enforced"),
            (Controller::Pids, "Limits on the number of processes are not enforced"),
        ]
        .into_iter()
        .filter(|(controller, _)| self.hierarchy(*controller).is_none())
        .map(|(_, what)| format!("{what}, since this user has no cgroup for them."))
        .collect()
    }

    fn hierarchy(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Makes the groups of a sandbox for the limits that can be enforced; with `nesting`, in every hierarchy, and a
    /// group below each that is the sandbox's to divide.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where the kernel refuses a limit or a group; nothing is left then.
    pub(super) fn create(&self, id: &str, limits: &Limits, nesting: bool) -> Result<Cgroup> {
        let mut group = Cgroup::default();
        let mut written = self.write(id, limits, &mut group);
        if nesting {
            written = written.and_then(|()| delegate::delegate(&self.hierarchies, id, &mut group));
        }
        written.map_err(|(path, error)| {
            let _ = group.remove();
            let what =
                if nesting { "make the sandbox's control groups" } else { "limit the sandbox's resources" };
            let message = format!("cannot {what}: {}: {error}", path.display());
            Error::new(ErrorKind::System, message).with_sandbox(id).with_source(error)
        })?;
        Ok(group)
    }

    fn write(&self, id: &str, limits: &Limits, group: &mut Cgroup) -> Result<(), (PathBuf, io::Error)> {
        for (controller, hierarchy, limit) in self.wanted(limits) {
            let directory = hierarchy.directory.join(id);
            group.make(&directory)?;
            set(&directory, settings(controller, hierarchy.unified, limit))?;
            if controller == Controller::Memory {
                group.memory = Some((directory, hierarchy.unified));
            }
        }
        Ok(())
    }

    /// The limits that can be enforced, memory first.
    fn wanted(&self, limits: &Limits) -> impl Iterator<Item = (Controller, &Hierarchy, u64)> {
        let wanted = [
            (Controller::Memory, limits.memory),
            (Controller::Cpu, limits.cpus.map(u64::from)),
            (Controller::Pids, limits.pids.map(u64::from)),
        ];
        wanted
            .into_iter()
            .filter_map(|(controller, limit)| Some((controller, self.hierarchy(controller)?, limit?)))
    }

    /// Raises the limits of a sandbox, if it has groups.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where the kernel refuses a limit.
    pub(super) fn raise(&self, id: &str, limits: &Limits) -> Result<()> {
        for (controller, hierarchy, limit) in self.wanted(limits) {
            let directory = hierarchy.directory.join(id);
            // the other way round: memory and swap together are raised before memory, which must not be more
            let settings = settings(controller, hierarchy.unified, limit).into_iter().rev();
            match set(&directory, settings) {
                // it never had one, or has just ended
                Err(_) if !directory.exists() => {}
                Err((path, error)) => {
                    let message = format!("cannot raise the sandbox's limits: {}: {error}", path.display());
                    return Err(Error::new(ErrorKind::System, message).with_sandbox(id).with_source(error));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// What groups a sandbox with this id may have left.
    pub(super) fn remains(&self, id: &str) -> Cgroup {
        let directories = self.hierarchies.iter().map(|hierarchy| hierarchy.directory.join(id));
        Cgroup { directories: directories.filter(|path| path.exists()).collect(), ..Cgroup::default() }
    }

    /// Removes the server's groups.
    pub(super) fn remove(&self) {
        for hierarchy in &self.hierarchies {
            if let Err(error) = remove_tree(&hierarchy.directory) {
                tracing::warn!("cannot remove the cgroup {}: {error}", hierarchy.directory.display());
            }
        }
    }
}

/// Writes to files of a group.
fn set(
    directory: &Path,
    settings: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<(), (PathBuf, io::Error)> {
    for (file, text) in settings {
        let path = directory.join(file);
        match fs::write(&path, text) {
            // kernels without accounting of swap lack the file
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.contains("sw") => {}
            written => written.map_err(|error| (path, error))?,
        }
    }
    Ok(())
}

/// Files and texts that set a limit.
fn settings(controller: Controller, unified: bool, limit: u64) -> Vec<(&'static str, String)> {
    let quota = limit.saturating_mul(PERIOD_MICROSECONDS);
    match (controller, unified) {
        // memory before memory and swap together, which must not be less
        (Controller::Memory, false) => vec![
            ("memory.limit_in_bytes", limit.to_string()),
            ("memory.memsw.limit_in_bytes", limit.to_string()),
        ],
        (Controller::Memory, true) => {
            vec![("memory.max", limit.to_string()), ("memory.swap.max", "0".into())]
        }
        (Controller::Cpu, false) => vec![
            ("cpu.cfs_period_us", PERIOD_MICROSECONDS.to_string()),
            ("cpu.cfs_quota_us", quota.to_string()),
        ],
        (Controller::Cpu, true) => vec![("cpu.max", format!("{quota} {PERIOD_MICROSECONDS}"))],
        (Controller::Pids, _) => vec![("pids.max", limit.to_string())],
    }
}

impl Cgroup {
    /// The files through which a process is put into the groups.
    pub(super) fn procs(&self) -> Vec<PathBuf> {
        let directories = if self.delegated.is_empty() { &self.directories } else { &self.delegated };
        directories.iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    /// What is the sandbox's to divide.
    pub(super) fn delegation(&self) -> Option<Delegation> {
        self.delegation.clone()
    }

    /// Makes a group, if it was not made before.
    pub(super) fn make(&mut self, directory: &Path) -> Result<(), (PathBuf, io::Error)> {
        if !self.directories.iter().any(|known| known == directory) {
            fs::create_dir(directory).map_err(|error| (directory.to_owned(), error))?;
            self.directories.push(directory.to_owned());
        }
        Ok(())
    }

    /// Whether the memory limit has killed a process.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let Some((directory, unified)) = &self.memory else { return false };
        if *unified {
            return fs::read_to_string(directory.join("memory.events")).is_ok_and(|text| kills(&text) > 0);
        }
        // version 1 counts where the process was
        let inner = self.delegated.iter().filter(|inner| inner.starts_with(directory));
        std::iter::once(directory).chain(inner).any(|directory| {
            fs::read_to_string(directory.join("memory.oom_control")).is_ok_and(|text| kills(&text) > 0)
        })
    }

    /// The group below which the sandbox may freeze processes so that not even a kill ends them.
    pub(super) fn freezer(&self) -> Option<PathBuf> {
        self.delegated.iter().find(|directory| directory.join(FREEZER).exists()).cloned()
    }

    /// Removes the groups, and those that were made below them.
    pub(super) fn remove(&self) -> io::Result<()> {
        // where the runner was killed, what is frozen still lives
        self.directories
            .iter()
            .filter(|directory| directory.join(FREEZER).exists())
            .for_each(|one| thaw(one));
        self.directories.iter().try_for_each(|directory| remove_tree(directory))
    }
}

/// Both versions write `oom_kill` and a number on a line.
fn kills(text: &str) -> u64 {
    let number = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    number.unwrap_or(0)
}

/// Thaws a group of version 1, and those below it, again and again while what is in it `lives`, for some seconds.
pub(super) fn thaw_while(lives: impl Fn() -> bool, directory: &Path) {
    const BETWEEN: Duration = Duration::from_millis(20);
    const TRIES: usize = 500;
    for _ in 0..TRIES {
        std::thread::sleep(BETWEEN);
        if !lives() {
            return;
        }
        thaw(directory);
    }
}

fn thaw(directory: &Path) {
    // whatever vanishes meanwhile needs it no more
    let _ = fs::write(directory.join(FREEZER), "THAWED");
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            thaw(&entry.path());
        }
    }
}

/// Removes a group depth-first. Files in it cannot be removed and need not be.
pub(super) fn remove_tree(directory: &Path) -> io::Result<()> {
    const TRIES: u32 = 250;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let freezer = directory.join(FREEZER);
    if freezer.exists() {
        // the top of a hierarchy has none; what is frozen could not have died
        let _ = fs::write(freezer, "THAWED");
    }
    let device = fs::metadata(directory)?.dev();
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() && entry.metadata()?.dev() == device {
            remove_tree(&entry.path())?;
        }
    }
    for _ in 0..TRIES {
        match fs::remove_dir(directory) {
            // processes leave their group a moment after they have ended
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => return removed,
        }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_in_both_versions() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(kills("low 0\noom 2\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(kills(""), 0);
    }

    #[test]
    fn limits_are_written_in_the_terms_of_each_version() {
        assert_eq!(settings(Controller::Cpu, true, 2), [("cpu.max", "200000 100000".to_owned())]);
        assert_eq!(settings(Controller::Memory, false, 7)[0], ("memory.limit_in_bytes", "7".to_owned()));
        assert_eq!(settings(Controller::Memory, true, 7)[1], ("memory.swap.max", "0".to_owned()));
        assert_eq!(settings(Controller::Pids, true, 9), [("pids.max", "9".to_owned())]);
    }
}
