//! Times, processor time and memory.

use std::fmt;
use std::time::{Duration, Instant};

/// The spread of repeated measurements.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn at(&self, part: f64) -> f64 {
        let last = self.0.len() - 1;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index within the list"
        )]
        let index = (last as f64 * part).round() as usize;
        self.0[index].as_secs_f64() * 1e3
    }

    /// Milliseconds.
    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:>8.2} ms   p99 {:>8.2} ms   (n = {})", self.median(), self.at(0.99), self.0.len())
    }
}

/// How long a successful operation takes.
pub(crate) async fn timed<T, E: fmt::Debug>(operation: impl Future<Output = Result<T, E>>) -> Duration {
    let began = Instant::now();
    operation.await.unwrap();
    began.elapsed()
}

/// Processor time that a process has used, user and system, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    /// `sysconf(_SC_CLK_TCK)` on every Linux that Rust runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}

/// Memory of a process and all its descendants in KiB, shared pages divided among their users.
pub(crate) fn pss_of_tree(root: u32) -> u64 {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut tree = vec![root];
    let mut index = 0;
    while let Some(parent) = tree.get(index).copied() {
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        index += 1;
    }
    let pss = |pid: &u32| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    tree.iter().filter_map(pss).sum()
}
