//! The Docker Engine of a sandbox: started unless it runs, and known to be ready by its own answer.

use std::time::Duration;

use super::Failure;
use crate::error::{Error, ErrorKind};
use crate::provider::exec::Command;
use crate::provider::sandbox::Sandbox;

/// How long an Engine may take until it answers; it takes less than a second where it works at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the requests may take beyond that.
const MARGIN: Duration = Duration::from_secs(30);
/// Bytes of output that are kept.
const SAID: u64 = 16 * 1024;

/// The image lacks something: another sandbox of it would too.
const LACKING: i32 = 10;
/// The Engine ended, or cannot work on this machine of the platform: another sandbox may be luckier.
const UNFIT: i32 = 11;

/// Starts the Engine, `$1` seconds of patience. The image's own entrypoint may have done so already, or be about to: then
/// ours may be the second one, which ends, and is not missed. Its script also prepares the control groups that a nested
/// Engine needs. A file with the number of a daemon that ran when the image was made says nothing.
///
/// Daytona's daemon takes orders from whoever connects to it (toolbox, ssh, web terminal, recordings), and only its
/// proxies ask for a key. So the machine drops what containers send to these ports through the bridges, those of
/// internal networks included. For IPv6 the Engine itself needs `ip6tables`: where that fails, containers have none.
const START: &str = r#"
log=/var/log/inspect-daytona-dockerd
lacking() { echo "$*" >&2; exit 10; }
unfit() { echo "$*" >&2; [ -s "$log.log" ] && tail -n 40 "$log.log" >&2; exit 11; }
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
  set -- "$1" dockerd --host=unix:///var/run/docker.sock
  if command -v dockerd-entrypoint.sh >/dev/null; then
    set -- "$1" dockerd-entrypoint.sh dockerd --host=unix:///var/run/docker.sock
  fi
  seconds=$1
  shift
  DOCKER_TLS_CERTDIR= setsid sh -c 'log=$1; shift; "$@" >"$log.log" 2>&1 </dev/null; echo $? >"$log.ended"' sh "$log" "$@" \
    >/dev/null 2>&1 </dev/null &
  started=1
  set -- "$seconds"
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
fence() {
  command -v "$1" >/dev/null || return 1
  for link in docker0 br-+; do
    for port in 2280 22220 22222 33333; do
      "$1" -w -C INPUT -i "$link" -p tcp --dport "$port" -j DROP 2>/dev/null ||
        "$1" -w -I INPUT -i "$link" -p tcp --dport "$port" -j DROP || return 1
    done
  done
}
fence iptables || fence /usr/local/sbin/.iptables-legacy/iptables || echo unfenced
fence ip6tables 2>/dev/null
exit 0
"#;
/// What services may do where the fence cannot be put up.
const UNFENCED: &str = "the sandbox's packet filter refuses rules, so services that have a network reach the toolbox of the \
                        sandbox around them, which commands all services";

/// Starts the Engine of `machine` and waits until it answers; fences the machine's own services off from containers.
/// Harmless where it runs. Returns what the user should know.
///
/// # Errors
///
/// [`Failure::Unfit`] where another sandbox may work, with the end of the daemon's log.
pub(super) async fn start(machine: &Sandbox) -> Result<Option<String>, Failure> {
    let seconds = PATIENCE.as_secs().to_string();
    let argv = ["/bin/sh", "-c", START, "sh", &seconds].map(str::to_owned).to_vec();
    let command = Command {
        argv,
        cwd: Some("/".to_owned()),
        timeout: Some(PATIENCE + MARGIN),
        output_limit: SAID,
        ..Command::default()
    };
    let outcome = machine.exec_bytes(command).await?;
    if outcome.returncode == 0 && !outcome.timed_out {
        return Ok(outcome.stdout.text(SAID).contains("unfenced").then(|| UNFENCED.to_owned()));
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
