//! The end of a command that must end: all its processes, wherever they went.

use std::fs;
use std::time::{Duration, Instant};

use super::protocol::{ExecId, MARKER};
use super::sudo;
use super::system::{self, Pid};

/// How long processes may take to end by themselves.
const GRACE: Duration = Duration::from_secs(1);
/// How long killing goes on after that; what is left then is beyond signals, in a system call that does not return.
const KILLING: Duration = Duration::from_secs(3);
/// How often it is looked whether they are gone.
const TICK: Duration = Duration::from_millis(20);

/// The processes of one command: the descendants of its supervisor, those of its session, and those that carry its
/// marker. Each of the three alone misses some that the others find.
pub(super) struct Tree {
    supervisor: Option<Pid>,
    session: Option<Pid>,
    marker: Vec<u8>,
}

/// What the kernel tells about a process.
struct Process {
    pid: Pid,
    parent: Pid,
    session: Pid,
    is_alive: bool,
}

impl Tree {
    /// The processes of the command `session` of the exec `id`, whose supervisor is this process.
    pub(super) fn of_command(id: ExecId, session: Pid) -> Self {
        Self { supervisor: Some(own_pid()), session: Some(session), marker: marker(id) }
    }

    /// What can still be found of the exec `id` after its supervisor died.
    pub(super) fn without_supervisor(id: ExecId) -> Self {
        Self { supervisor: None, session: None, marker: marker(id) }
    }

    /// Those that have not ended, without this process.
    fn members(&self) -> Vec<Pid> {
        let processes = processes();
        let mut found: Vec<Pid> = Vec::new();
        if let Some(supervisor) = self.supervisor {
            add_descendants(&processes, vec![supervisor], &mut found);
        }
        let alone = processes.iter().filter(|process| {
            Some(process.session) == self.session || (process.is_alive && self.is_marked(process.pid))
        });
        let others =
            alone.map(|process| process.pid).filter(|pid| *pid > 1 && *pid != own_pid()).collect::<Vec<_>>();
        found.extend(others);
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| processes.iter().any(|process| process.pid == *pid && process.is_alive));
        found
    }

    fn is_marked(&self, pid: Pid) -> bool {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|variables| variables.split(|byte| *byte == 0).any(|variable| variable == self.marker))
    }

    /// Kills until a look finds nobody new; returns those that may not be killed.
    fn kill(&self) -> Vec<Pid> {
        /// Enough for any command that is not a fork bomb, which the next tick meets again.
        const LOOKS: usize = 50;
        let mut seen = Vec::new();
        let mut forbidden = Vec::new();
        for _ in 0..LOOKS {
            let new: Vec<_> = self.members().into_iter().filter(|pid| !seen.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            for pid in &new {
                let refused = system::kill(*pid, libc::SIGKILL).err().and_then(|error| error.raw_os_error());
                if refused == Some(libc::EPERM) {
                    forbidden.push(*pid);
                }
            }
            seen.extend(new);
        }
        forbidden
    }
}

/// A tree on its way out: asked to end, then made to.
pub(super) struct Termination {
    tree: Tree,
    began: Instant,
    next: Instant,
    used_sudo: bool,
}

impl Termination {
    /// Asks the whole tree to end.
    pub(super) fn begin(tree: Tree) -> Self {
        for pid in tree.members() {
            // A stopped process acts on the request only once it is continued.
            drop(system::kill(pid, libc::SIGTERM));
            drop(system::kill(pid, libc::SIGCONT));
        }
        let began = Instant::now();
        Self { tree, began, next: began, used_sudo: false }
    }

    /// When [`Self::step`] has something to do.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Goes on; returns whether nobody is left, or nothing more can be done.
    pub(super) fn step(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        let elapsed = now - self.began;
        if self.tree.members().is_empty() || elapsed >= GRACE + KILLING {
            return true;
        }
        if elapsed >= GRACE {
            let forbidden = self.tree.kill();
            if !forbidden.is_empty() && !self.used_sudo {
                self.used_sudo = true;
                sudo::kill(&forbidden);
            }
        }
        // A look at thousands of processes takes a while; they need the time more.
        self.next = Instant::now() + TICK.max(now.elapsed() * 4);
        false
    }

    /// Goes on to the end.
    pub(super) fn finish(mut self) {
        while !self.step() {
            std::thread::sleep(TICK);
        }
    }
}

/// Kills the processes `pids` and their descendants, for a shim that may not; see [`sudo::kill`].
pub(super) fn kill_with_descendants(pids: &[Pid]) {
    let processes = processes();
    let mut found = Vec::new();
    add_descendants(&processes, pids.to_vec(), &mut found);
    for pid in pids.iter().chain(&found).filter(|pid| **pid != own_pid()) {
        drop(system::kill(*pid, libc::SIGKILL));
    }
}

fn add_descendants(processes: &[Process], mut parents: Vec<Pid>, found: &mut Vec<Pid>) {
    while let Some(parent) = parents.pop() {
        for child in processes.iter().filter(|process| process.parent == parent) {
            if !found.contains(&child.pid) {
                found.push(child.pid);
                parents.push(child.pid);
            }
        }
    }
}

fn marker(id: ExecId) -> Vec<u8> {
    format!("{MARKER}={id}").into_bytes()
}

fn own_pid() -> Pid {
    std::process::id().cast_signed()
}

fn processes() -> Vec<Process> {
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<Pid>().ok()));
    pids.filter_map(|pid| parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// Reads `/proc/<pid>/stat`, whose second field is a name that may hold anything, parentheses and newlines included.
fn parse(pid: Pid, stat: &[u8]) -> Option<Process> {
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(stat.get(behind_name..)?).ok()?.split_ascii_whitespace();
    let is_alive = !matches!(fields.next()?, "Z" | "X" | "x");
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { pid, parent, session, is_alive })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_is_skipped() {
        let process = parse(7, b"7 (a) Z 9 9 (b\n)) S 3 4 5 0").unwrap();
        assert_eq!((process.parent, process.session, process.is_alive), (3, 5, true));
        assert!(parse(7, b"7 (gone").is_none());
    }

    #[test]
    fn descendants_are_found_whatever_the_order() {
        let process = |pid, parent| Process { pid, parent, session: 0, is_alive: true };
        let processes = [process(30, 20), process(20, 10), process(40, 1), process(10, 1)];
        let mut found = Vec::new();
        add_descendants(&processes, vec![10], &mut found);
        assert_eq!(found, [20, 30]);
    }
}
