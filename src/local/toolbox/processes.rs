//! Ends a process and all that came from it.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// How long processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How often the table is looked at meanwhile.
const INTERVAL: Duration = Duration::from_millis(20);

/// A process to end later, with what comes from it. Its id may belong to another one by then, so the time of its start
/// is kept as well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pid: i32,
    started: u64,
}

impl Root {
    /// Of a child that was just started.
    pub(super) fn new(pid: Pid) -> Self {
        let pid = pid.as_raw();
        Self { pid, started: look(pid).map_or(0, |process| process.started) }
    }
}

/// A line of the process table.
#[derive(Clone, Copy, Debug)]
struct Process {
    parent: i32,
    group: i32,
    session: i32,
    /// With the id, it names a process for ever.
    started: u64,
    zombie: bool,
}

/// Sends SIGTERM to `root`, its descendants and whoever is in its process group or session, and SIGKILL to those that
/// are left after five seconds, and returns when they are gone, which the kernel may put off for as long again. Only
/// what left by `setsid` *and* lost its parent before is not found.
pub(super) async fn terminate(root: Root) {
    let mut victims = family(root, &table());
    signal(&victims, Signal::SIGTERM);
    if !are_gone(root, &mut victims).await {
        kill_all(root, &mut victims);
        are_gone(root, &mut victims).await;
    }
}

/// The same without grace, and without a wait for the end.
pub(super) fn kill_family(root: Root) {
    kill_all(root, &mut BTreeMap::new());
}

/// Waits until nothing of the family lives; false where something does after [`GRACE`].
async fn are_gone(root: Root, victims: &mut BTreeMap<i32, u64>) -> bool {
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        let table = table();
        victims.extend(family(root, &table));
        retain_living(victims, &table);
        if victims.is_empty() {
            return true;
        }
        sleep(INTERVAL).await;
    }
    false
}

fn kill_all(root: Root, victims: &mut BTreeMap<i32, u64>) {
    // twice, since a fork may have happened between the look and the signal
    for _ in 0..2 {
        let table = table();
        victims.extend(family(root, &table));
        retain_living(victims, &table);
        signal(victims, Signal::SIGKILL);
    }
}

fn signal(victims: &BTreeMap<i32, u64>, signal: Signal) {
    for pid in victims.keys() {
        // it may have ended, or belong to another user
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

fn retain_living(victims: &mut BTreeMap<i32, u64>, table: &BTreeMap<i32, Process>) {
    victims.retain(|pid, started| table.get(pid).is_some_and(|now| now.started == *started && !now.zombie));
}

/// `root` and what belongs to it, with the times of their starts.
fn family(root: Root, table: &BTreeMap<i32, Process>) -> BTreeMap<i32, u64> {
    let mut family = BTreeMap::new();
    if table.get(&root.pid).is_some_and(|process| process.started != root.started) {
        return family;
    }
    let root = root.pid;
    loop {
        let before = family.len();
        for (pid, process) in table {
            let belongs = *pid == root
                || process.group == root
                || process.session == root
                || family.contains_key(&process.parent);
            if belongs && !process.zombie {
                family.insert(*pid, process.started);
            }
        }
        if family.len() == before {
            return family;
        }
    }
}

/// The process table, as far as `/proc` shows it.
fn table() -> BTreeMap<i32, Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let own = std::process::id().cast_signed();
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok().filter(|pid| *pid != own)?;
            Some((pid, look(pid)?))
        })
        .collect()
}

fn look(pid: i32) -> Option<Process> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // the name, in parentheses, may contain anything
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
    Some(Process {
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        started: fields.get(19)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}
