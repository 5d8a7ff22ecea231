//! What the toolbox's user may not do itself: running a command as somebody else, and ending one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::environment;
use super::program;
use super::protocol::{self, Action, Call, Refusal, RefusalKind, Reply};
use super::system::{self, Pid};

/// Where sudo is looked for; not in `PATH`, which the sandbox's users control.
const PLACES: [&str; 5] =
    ["/usr/bin/sudo", "/usr/local/bin/sudo", "/bin/sudo", "/usr/sbin/sudo", "/usr/local/sbin/sudo"];
/// How often root's shim is asked. Its process and sudo may be killed while they wait, which says nothing about the
/// command; the call repeated finds it, or starts it if that had not happened.
const TRIES: u32 = 3;
/// The wait before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// How sudo exits if it does not run the command; the shim never does.
const REFUSED: i32 = 1;
/// How long a kill through sudo may take.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// Has root's shim answer `call`; the message where sudo could not be started.
pub(super) fn run(call: &Call, shim: &Path) -> Result<Reply, String> {
    let user = call.user.as_deref().unwrap_or_default();
    let Some(sudo) = find() else {
        return Ok(unsupported(format!(
            "the sandbox cannot run commands as user {user}: its toolbox is not root, and sudo is not installed"
        )));
    };
    let began = Instant::now();
    let mut call = with_environment(call.clone());
    let whole = call.wait;
    let mut last = None;
    for attempt in 0..TRIES {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
            call.wait = whole.saturating_sub(began.elapsed());
        }
        match ask(&sudo, &call, shim) {
            Ok(reply) => return Ok(reply),
            Err(Silence::NotAsked(why)) if attempt + 1 == TRIES && last.is_none() => return Err(why),
            Err(Silence::NotAsked(_)) => {}
            Err(Silence::Unanswered(why)) => last = Some(why),
        }
    }
    Ok(match call.action {
        // it may well run: whoever asked will ask again, and then only what root's shim says counts
        Action::Start(_) => Reply::Pending,
        Action::Attach | Action::Kill | Action::Read(_) => Reply::Lost(last.unwrap_or_default()),
    })
}

/// Why root's shim gave no answer.
enum Silence {
    /// It was not asked: sudo could not be started, or did not start it.
    NotAsked(String),
    /// It may have done what it was asked.
    Unanswered(String),
}

/// Asks root's shim once; says why there is no answer.
fn ask(sudo: &Path, call: &Call, shim: &Path) -> Result<Reply, Silence> {
    let mut command = Command::new(sudo);
    command.args(["-n", "--"]).arg(shim).args(["run", "--sudo"]);
    if let Ok(directory) = std::env::current_dir() {
        command.arg(directory);
    }
    // for what sudo says; the command's variables come with the call
    command.env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return Err(Silence::NotAsked(format!(
                "there is no process for sudo: {}",
                system::describe(&error)
            )));
        }
    };
    if let Some(mut stdin) = child.stdin.take() {
        // If sudo refuses it does not read; what it says then is the answer.
        drop(stdin.write_all(protocol::write_payload(call).as_bytes()));
    }
    let output = match child.wait_with_output() {
        Ok(output) => output,
        Err(error) => return Err(Silence::Unanswered(format!("sudo could not be waited for: {error}"))),
    };
    if let Some(reply) = protocol::find_reply(&String::from_utf8_lossy(&output.stdout), call.id) {
        return Ok(reply);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    if output.status.code() == Some(REFUSED) {
        // warnings come first
        let reason = said.lines().last().unwrap_or("sudo refuses");
        // a start got past this, or sudo itself lacks something
        let is_lack =
            ["unable to fork", "unable to allocate", "Cannot allocate memory", "temporarily unavailable"]
                .iter()
                .any(|lack| reason.contains(lack));
        if is_lack || !matches!(call.action, Action::Start(_) | Action::Read(_)) {
            return Err(Silence::NotAsked(reason.to_owned()));
        }
        let user = call.user.as_deref().unwrap_or_default();
        return Ok(unsupported(format!(
            "the sandbox cannot run commands as user {user}: its toolbox is not root, and {reason}"
        )));
    }
    Err(Silence::Unanswered(format!("the shim under sudo gave no answer ({}): {said}", output.status)))
}

fn unsupported(message: String) -> Reply {
    Reply::Refused(Refusal { kind: RefusalKind::UserUnsupported, message })
}

/// `call` with the whole environment of the toolbox, since sudo passes none on; what belongs to the toolbox's user
/// is left out.
fn with_environment(mut call: Call) -> Call {
    if let Action::Start(start) = &mut call.action {
        let mut toolbox = environment::without_user(environment::of_the_toolbox());
        if start.cwd.is_some() {
            toolbox.retain(|(name, _)| name != b"PWD");
        }
        start.env = environment::merge(toolbox, &start.env);
    }
    call
}

/// Kills processes of other users, such as what the command itself started through sudo.
pub(super) fn kill(pids: &[Pid]) {
    if system::effective_user() == 0 {
        return;
    }
    let (Some(sudo), Ok(shim)) = (find(), program::own_path()) else { return };
    let mut command = Command::new(sudo);
    command.args(["-n", "--"]).arg(shim).arg("kill").args(pids.iter().map(ToString::to_string));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return };
    let began = Instant::now();
    while began.elapsed() < KILL_LIMIT && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn find() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|place| place.exists())
}
