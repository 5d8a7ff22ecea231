//! What the tests have instead of a sandbox: a directory with the shim in it, and a toolbox that pipes scripts to shells.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use inspect_daytona::shim::protocol::{
    Action, Call, End, ExecId, Finished, Kept, MARKER, Output, Refusal, Reply, Start, Stdin, find_reply,
    script, script_for_file,
};

/// Far longer than anything takes; it only guards against hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    ids: Mutex<Vec<ExecId>>,
}

/// The shells of this machine, as command lines.
pub(crate) fn shells() -> Vec<Vec<&'static str>> {
    let known: [&[&str]; 5] = [
        &["/usr/bin/zsh"],
        &["/usr/bin/bash"],
        &["/usr/bin/dash"],
        &["/usr/bin/busybox", "sh"],
        &["/usr/bin/mksh"],
    ];
    let found: Vec<_> =
        known.iter().filter(|shell| Path::new(shell[0]).exists()).map(|shell| shell.to_vec()).collect();
    if found.is_empty() { vec![vec!["sh"]] } else { found }
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

/// Whether the test may go on; it says so when not.
pub(crate) fn has_root(why: &str) -> bool {
    if !is_root() {
        println!("skipped: {why} needs root");
    }
    is_root()
}

pub(crate) fn new_id() -> ExecId {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    ExecId::from_bytes(bytes)
}

/// A start of `argv` with limits that no test reaches by accident.
pub(crate) fn command<const N: usize>(argv: [&str; N]) -> Start {
    Start {
        argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: Vec::new(),
        cwd: None,
        stdin: Stdin::Null,
        timeout: None,
        output_limit: 1 << 30,
        inline_limit: 1 << 30,
    }
}

/// A start of a script for `/bin/sh`.
pub(crate) fn sh(script: &str) -> Start {
    command(["/bin/sh", "-c", script])
}

pub(crate) fn call(id: ExecId, action: Action) -> Call {
    Call { id, wait: LONG, acks: Vec::new(), user: None, action }
}

pub(crate) fn start_call(id: ExecId, start: Start) -> Call {
    call(id, Action::Start(Box::new(start)))
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self::at("")
    }

    /// A sandbox whose shim lies `deep` below its directory.
    pub(crate) fn at(deep: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("inspect-daytona-shim-").tempdir().unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o711)).unwrap();
        let place = directory.path().join(deep);
        fs::create_dir_all(&place).unwrap();
        // Copied by another process: a descriptor open for writing, inherited by a fork of another test, would make
        // the program busy.
        let shim = place.join("shim");
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_inspect-daytona-shim")).arg(&shim).status();
        assert!(copied.unwrap().success());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&shim, link).unwrap();
        Self { directory, ids: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn shim(&self) -> PathBuf {
        fs::canonicalize(self.path().join("link")).unwrap()
    }

    /// A file of the shim's state.
    pub(crate) fn find(&self, name: &str) -> PathBuf {
        let entries = fs::read_dir(self.path()).unwrap();
        let state = entries.map(|entry| entry.unwrap().path()).find(|path| path.join("done").exists());
        state.unwrap().join(name)
    }

    /// An id whose processes are ended with the sandbox.
    pub(crate) fn id(&self) -> ExecId {
        let id = new_id();
        self.ids.lock().unwrap().push(id);
        id
    }

    /// Runs a script as the toolbox does, and returns what its shell and everybody else printed until all let go.
    pub(crate) fn execute(&self, shell: &[&str], script: &str) -> String {
        self.execute_as(Command::new(shell[0]).args(&shell[1..]), script)
    }

    pub(crate) fn execute_as(&self, shell: &mut Command, script: &str) -> String {
        let (mut output, end) = pipe().unwrap();
        shell.stdin(Stdio::piped()).stdout(end.try_clone().unwrap()).stderr(end).current_dir(self.path());
        let mut child = shell.spawn().unwrap();
        // The command keeps its copies of the pipe's end.
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let mut text = Vec::new();
        output.read_to_end(&mut text).unwrap();
        child.wait().unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn deliver_by(&self, shell: &[&str], call: &Call) -> Reply {
        self.ids.lock().unwrap().push(call.id);
        let text = self.execute(shell, &script(self.shim().to_str().unwrap(), call));
        find_reply(&text, call.id).unwrap_or_else(|| panic!("no reply in {text:?}"))
    }

    pub(crate) fn deliver(&self, call: &Call) -> Reply {
        self.deliver_by(&["sh"], call)
    }

    /// Delivers a call as an uploaded file, which `upload` says whether to write first.
    pub(crate) fn deliver_file(&self, call: &Call, file: &Path, upload: bool) -> Reply {
        self.ids.lock().unwrap().push(call.id);
        if upload {
            fs::write(file, call.encode()).unwrap();
        }
        let script = script_for_file(self.shim().to_str().unwrap(), file.to_str().unwrap(), call);
        let text = self.execute(&["sh"], &script);
        find_reply(&text, call.id).unwrap_or_else(|| panic!("no reply in {text:?}"))
    }

    /// Starts a command and waits for its end.
    pub(crate) fn run(&self, start: Start) -> Reply {
        self.deliver(&start_call(self.id(), start))
    }

    /// Starts a command and does not wait.
    pub(crate) fn spawn(&self, start: Start) -> ExecId {
        let id = self.id();
        let reply = self.deliver(&Call { wait: Duration::ZERO, ..start_call(id, start) });
        assert_eq!(reply, Reply::Pending);
        id
    }
}

/// Ends what the tests left running, by the marker.
impl Drop for Sandbox {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut *self.ids.lock().unwrap());
        for pid in ids.iter().flat_map(|id| marked(*id)) {
            drop(Command::new("kill").args(["-9", &pid.to_string()]).output());
        }
    }
}

/// The processes that carry the marker of `id` and have not ended.
pub(crate) fn marked(id: ExecId) -> Vec<u32> {
    let marker = format!("{MARKER}={id}");
    let is_marked = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|variables| {
            variables.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
        })
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_marked)
        .collect()
}

/// Whether a process has not ended; one that has may wait for its parent to notice.
pub(crate) fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| !state.trim().starts_with(['Z', 'X']))
}

/// The parent of a process.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn finished(reply: Reply) -> Finished {
    match reply {
        Reply::Finished(finished) => finished,
        other => panic!("not finished: {other:?}"),
    }
}

pub(crate) fn refusal(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// The inline bytes of an output.
pub(crate) fn bytes(output: &Output) -> &[u8] {
    match &output.kept {
        Kept::Inline(bytes) => bytes,
        Kept::File { .. } => panic!("not inline: {output:?}"),
    }
}

/// How it ended, its stdout and its stderr, as text.
pub(crate) fn outcome(reply: Reply) -> (End, String, String) {
    let finished = finished(reply);
    let text = |output| String::from_utf8_lossy(bytes(output)).into_owned();
    (finished.end, text(&finished.stdout), text(&finished.stderr))
}

/// The stdout of a command that must succeed.
pub(crate) fn stdout(reply: Reply) -> String {
    let (end, stdout, stderr) = outcome(reply);
    assert_eq!((end, stderr.as_str()), (End::Exited(0), ""), "{stdout}");
    stdout
}
