//! The Docker Engine of a sandbox: started unless it runs, and known to be ready by its own answer.

use std::time::Duration;

use serde_json::Value;

use super::Failure;
use super::fence::{self, FENCE};
use super::up::shell;
use crate::error::{Error, ErrorKind};
use crate::provider::sandbox::Sandbox;

/// How long an Engine may take until it answers; it takes less than a second where it works at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the requests may take beyond that.
const MARGIN: Duration = Duration::from_secs(30);
/// Bytes of output that are kept.
const SAID: u64 = 16 * 1024;

/// How long the question whether it still answers may take.
const QUESTION: Duration = Duration::from_secs(30);

/// The image lacks something: another sandbox of it would too.
const LACKING: i32 = 10;
/// The Engine ended, or cannot work on this machine of the platform: another sandbox may be luckier.
const UNFIT: i32 = 11;

/// Where the daemon's log is, if it was started here, and its end, without the chatter of its connections. One that ended
/// because another one ran before it says nothing of that one.
const LOG: &str = r#"
log=/var/log/inspect-daytona-dockerd
is_ours() { [ -s "$log.log" ] && ! grep -q 'is still running' "$log.log"; }
last_words() { ! is_ours || grep -v 'level=info.* module=grpc' "$log.log" | tail -n 40; }
"#;
/// Starts the Engine, `$1` seconds of patience, and fences the bridges `$2`. The image's own entrypoint may have started
/// it already, or be about to: then ours may be the second one, which ends, and is not missed. Its script also prepares
/// the control groups that a nested Engine needs. A file with the number of a daemon that ran when the image was made
/// says nothing.
const START: &str = r#"
lacking() { echo "$*" >&2; exit 10; }
unfit() { echo "$*" >&2; last_words >&2; exit 11; }
answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
runs() {
  for file in /proc/[0-9]*/comm; do
    read -r name 2>/dev/null <"$file" || continue
    case $name in dockerd | dockerd-entrypo) return 0 ;; esac
  done
  return 1
}
[ "$(id -u)" = 0 ] || lacking "commands in it do not run as root"
for program in docker dockerd; do
  command -v "$program" >/dev/null || lacking "it has no program $program"
done
started=
if ! answers && ! runs; then
  rm -f "$log.log" "$log.ended" /run/docker.pid /var/run/docker.pid
  entrypoint=$(command -v dockerd-entrypoint.sh)
  DOCKER_TLS_CERTDIR= setsid sh -c 'log=$1; shift; "$@" >"$log.log" 2>&1 </dev/null; echo $? >"$log.ended"' sh "$log" \
    $entrypoint dockerd --host=unix:///var/run/docker.sock >/dev/null 2>&1 </dev/null &
  started=1
fi
docker compose version >/dev/null 2>&1 || lacking "it has no Docker Compose 2 (the command docker compose)"
end=$(($(date +%s) + $1))
until answers; do
  if [ -n "$started" ]; then
    [ -s "$log.ended" ] && ! runs && unfit "its Docker daemon ended with exit code $(cat "$log.ended")"
    grep -qi 'cgroup.*read-only file system' "$log.log" 2>/dev/null && unfit "its control groups are read-only"
  fi
  [ "$(date +%s)" -lt "$end" ] || unfit "its Docker daemon did not answer within $1 s"
  sleep 0.1
done
fence "$2"
exit 0
"#;
/// Succeeds if the Engine answers; otherwise says what is known of its end.
const STATE: &str = r#"
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 && exit 0
if [ -s "$log.ended" ] && is_ours; then
  code=$(cat "$log.ended")
  echo "its Docker daemon ended with exit code $code"
  [ "$code" != 137 ] || echo "It was killed: if memory ran out, raise \`x-daytona.resources.memory\`"
else
  echo "its Docker daemon does not answer any more"
fi
last_words
exit 1
"#;
/// Starts the Engine of `machine` and waits until it answers; fences the machine's own services off from containers of
/// the project `model`. Harmless where it runs. Returns what the user should know.
///
/// # Errors
///
/// [`Failure::Unfit`] where another sandbox may work, with the end of the daemon's log.
pub(super) async fn start(machine: &Sandbox, model: &Value) -> Result<Vec<String>, Failure> {
    let seconds = PATIENCE.as_secs().to_string();
    let script = [LOG, FENCE, START].concat();
    let command = shell(&script, &[&seconds, &fence::bridges(model)], PATIENCE + MARGIN);
    let outcome = machine.exec_bytes(command).await?;
    if outcome.returncode == 0 && !outcome.timed_out {
        return Ok(fence::warnings(&outcome.stdout.text(SAID)));
    }
    let said = outcome.stderr.text(SAID);
    let message = format!("the sandbox's Docker Engine did not start: {}", said.trim());
    let error = Error::new(ErrorKind::CreationFailed, message);
    Err(match outcome.returncode {
        LACKING => Failure::Final(error.with_hint(
            "Several services need a snapshot with a Docker Engine and Compose 2: leave `x-daytona.snapshot` out, or \
             make one of the image docker:28.3.3-dind",
        )),
        _ if outcome.timed_out => Failure::Unfit(error),
        UNFIT => Failure::Unfit(error),
        _ => Failure::Final(error),
    })
}

/// What the `error` of a step that needs the Engine means: if it does not answer any more, that is what failed, and
/// another sandbox may be luckier.
pub(super) async fn judge(machine: &Sandbox, error: Error) -> Failure {
    // a machine that does not answer either is what `error` is about
    let Ok(outcome) = machine.exec_bytes(shell(&[LOG, STATE].concat(), &[], QUESTION)).await else {
        return Failure::Final(error);
    };
    if outcome.returncode == 0 && !outcome.timed_out {
        return Failure::Final(error);
    }
    let said = outcome.stdout.text(SAID);
    let said = if outcome.timed_out { "its Docker daemon does not answer any more" } else { said.trim() };
    let message =
        format!("the sandbox's Docker Engine died: {said}\nWhat failed with it: {}", error.message());
    let hint = error.hint().map(str::to_owned);
    let died = Error::new(ErrorKind::CreationFailed, message).with_source(error);
    Failure::Unfit(match hint {
        Some(hint) => died.with_hint(hint),
        None => died,
    })
}
