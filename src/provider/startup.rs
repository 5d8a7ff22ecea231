//! What a service asks for beyond its image, done once its sandbox has started: its directory, host names and mounts,
//! its command, and the wait for its health.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::exec::{Background, Command, RawOutcome};
use super::sandbox::{ROOT, SHIM_PLACES, Sandbox};
use crate::config::{HealthTest, Healthcheck, Service, Tmpfs};
use crate::error::{Error, ErrorKind, Result};

/// How long one step of the preparation may take.
const STEP: Duration = Duration::from_secs(60);
/// How long a command must live to count as started, where no healthcheck tells.
const EARLY: Duration = Duration::from_secs(1);
/// What a healthcheck may take beyond its own times, for the requests that carry it.
const MARGIN: Duration = Duration::from_secs(60);
/// Bytes of output that messages show, and that are kept of a command.
const SHOWN: u64 = 4096;

const HEALTH_HINT: &str = "See `healthcheck` and `command` in the compose file";

/// Prepares a sandbox as root: `$1` working directory, `$2` host name, `$3` lines of /etc/hosts, `$4` mounts of
/// temporary file systems (options and path, one per line), `$5` bytes of /dev/shm, `$6` whose the directories are to be,
/// `$7` directories of volumes, one per line, `$8` something where those that cannot be made are only named. Each may be
/// empty.
const SCRIPT: &str = r#"
fail() { echo "$*" >&2; exit 1; }
if [ -n "$2" ]; then
  hostname "$2" 2>/dev/null || (printf '%s' "$2" >/proc/sys/kernel/hostname) 2>/dev/null
  [ "$(cat /proc/sys/kernel/hostname)" = "$2" ] || fail "the sandbox does not let its host name be changed (hostname)"
  printf '%s\n' "$2" >/etc/hostname || fail "/etc/hostname cannot be written (hostname)"
  printf '127.0.1.1\t%s\n' "$2" >>/etc/hosts || fail "/etc/hosts cannot be written (hostname)"
fi
if [ -n "$3" ]; then
  printf '%s\n' "$3" >>/etc/hosts || fail "/etc/hosts cannot be written (extra_hosts)"
fi
if [ -n "$5" ]; then
  mount -t tmpfs -o "nosuid,nodev,size=$5" tmpfs /dev/shm || fail "/dev/shm cannot be resized (shm_size)"
fi
if [ -n "$4" ]; then
  while IFS=' ' read -r options path; do
    mkdir -p -- "$path" && mount -t tmpfs -o "$options" tmpfs "$path" || fail "$path cannot be mounted (tmpfs)"
  done <<MOUNTS
$4
MOUNTS
fi
if [ -n "$7" ]; then
  while IFS= read -r path; do
    [ -d "$path" ] && continue
    if ! (umask 022; mkdir -p -- "$path"); then
      [ -n "$8" ] || fail "$path cannot be made (volumes)"
      printf 'lacks %s\n' "$path"
      continue
    fi
    [ -z "$6" ] || chown -- "$6" "$path" || fail "$path cannot be given to user $6 (volumes)"
  done <<VOLUMES
$7
VOLUMES
fi
if [ -n "$1" ] && ! [ -d "$1" ]; then
  mkdir -p -- "$1" || fail "$1 cannot be made (working_dir)"
  [ -z "$6" ] || chown -- "$6" "$1" || fail "$1 cannot be given to user $6 (working_dir)"
fi
"#;
/// Makes the working directory `$1` as the user that owns it, and says who that is.
const OWN_DIRECTORY: &str = r#"echo "$(id -u):$(id -g)"; mkdir -p -- "$1" && cd -- "$1""#;

impl Sandbox {
    /// Makes a started sandbox what its service asks for. Returns what the user should know.
    ///
    /// # Errors
    ///
    /// What could not be done, with the sandbox's own words.
    pub(super) async fn start_service(&self, service: &Service) -> Result<Vec<String>> {
        let mut warnings = self.prepare_system(service).await?;
        let argv = argv(service);
        let mut background = None;
        if !argv.is_empty() {
            let patience =
                if service.healthcheck.is_some() || is_idle(&argv) { Duration::ZERO } else { EARLY };
            let command = Command { argv: argv.clone(), output_limit: SHOWN, ..Command::default() };
            let started =
                self.start_background(command, patience).await.map_err(|error| match error.kind() {
                    ErrorKind::PermissionDenied => Error::new(
                        ErrorKind::InvalidConfig,
                        format!("the service's command {:?} is not executable", error.message()),
                    ),
                    _ => error.with_operation("start the service's command"),
                })?;
            background = Some(started);
        }
        let health = match &service.healthcheck {
            Some(check) => self.await_health(check).await,
            None => Ok(()),
        };
        let ended = match background {
            Some(Background::Ended(outcome)) => Some(outcome),
            Some(Background::Running(running)) if service.healthcheck.is_some() => {
                self.ended(running).await.unwrap_or_default()
            }
            _ => None,
        };
        let ended = ended.map(|outcome| format!("the service's command {argv:?} ended {}", told(&outcome)));
        match (health, ended) {
            (Err(error), Some(ended)) if error.kind() == ErrorKind::CreationFailed => {
                let message = format!("{}; {ended}", error.message());
                return Err(Error::new(error.kind(), message).with_hint(HEALTH_HINT));
            }
            (Err(error), _) => return Err(error),
            (Ok(()), ended) => {
                warnings.extend(ended.map(|ended| format!("{ended}. The sandbox goes on without it")));
            }
        }
        Ok(warnings)
    }

    async fn prepare_system(&self, service: &Service) -> Result<Vec<String>> {
        let hosts: Vec<_> =
            service.extra_hosts.iter().map(|(name, address)| format!("{address}\t{name}")).collect();
        let mounts: Vec<_> = service.tmpfs.iter().map(mount).collect();
        let mut directory = service.working_dir.clone().unwrap_or_default();
        let volumes = service.volumes.join("\n");
        let mut owner = String::new();
        if service.user.is_none() && !(directory.is_empty() && volumes.is_empty()) {
            // in Docker the user is root then, who may write there; here it is whoever the toolbox runs as
            let own = if directory.is_empty() { "/" } else { &directory };
            let outcome = self.exec_bytes(set_up(&[OWN_DIRECTORY, "sh", own], None)).await?;
            if outcome.returncode == 0 {
                directory.clear();
            }
            outcome.stdout.text(SHOWN).trim().clone_into(&mut owner);
        }
        let arguments = [
            directory,
            service.hostname.clone().unwrap_or_default(),
            hosts.join("\n"),
            mounts.join("\n"),
            service.shm_size.map(|size| size.to_string()).unwrap_or_default(),
        ];
        if arguments.iter().chain([&volumes]).all(String::is_empty) {
            return Ok(Vec::new());
        }
        let needs_root = arguments[1..].iter().any(|argument| !argument.is_empty());
        let words: Vec<&str> = [SCRIPT, "sh"]
            .into_iter()
            .chain(arguments.iter().map(String::as_str))
            .chain([owner.as_str(), volumes.as_str()])
            .collect();
        let outcome = match self.exec_bytes(set_up(&words, Some(ROOT))).await {
            Err(error) if error.kind() == ErrorKind::UserUnsupported && !needs_root => {
                self.exec_bytes(set_up(&[words.as_slice(), &["lenient"]].concat(), None)).await
            }
            Err(error) if error.kind() == ErrorKind::UserUnsupported => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "hostname, extra_hosts, tmpfs and shm_size need root inside the sandbox, which this one does not give",
                )
                .with_source(error));
            }
            outcome => outcome,
        }?;
        if outcome.returncode == 0 && !outcome.timed_out {
            let said = outcome.stdout.text(SHOWN);
            let lacking = said.lines().filter_map(|line| line.strip_prefix("lacks "));
            let warning = |path: &str| {
                format!(
                    "the volume {path} does not exist: making it needs root, which this sandbox does not give"
                )
            };
            return Ok(lacking.map(warning).collect());
        }
        let kind = if needs_root { ErrorKind::Unsupported } else { ErrorKind::InvalidConfig };
        let what = format!(
            "the sandbox could not be set up as the configuration asks; the set-up ended {}",
            told(&outcome)
        );
        Err(Error::new(kind, what))
    }

    /// Waits until the service is healthy, as Docker does: failures within the start period do not count, and
    /// `retries` of them in a row afterwards are the end. One check more is made at once, and counts only if it succeeds.
    async fn await_health(&self, check: &Healthcheck) -> Result<()> {
        let began = Instant::now();
        let limit = check.start_period
            + check.interval.saturating_add(check.timeout).saturating_mul(check.retries)
            + MARGIN;
        let mut counted = 0;
        let mut first = true;
        loop {
            let in_start_period = began.elapsed() < check.start_period;
            let Some(failure) = self.check_health(check).await? else { return Ok(()) };
            if !in_start_period && !first {
                counted += 1;
            }
            first = false;
            if counted >= check.retries || began.elapsed() > limit {
                let message = format!(
                    "the service did not become healthy within {:.0} s; its last check ended {failure}",
                    began.elapsed().as_secs_f64()
                );
                return Err(Error::new(ErrorKind::CreationFailed, message).with_hint(HEALTH_HINT));
            }
            let in_start_period = began.elapsed() < check.start_period;
            sleep(if in_start_period { check.start_interval } else { check.interval }).await;
        }
    }

    /// One check; how it failed.
    async fn check_health(&self, check: &Healthcheck) -> Result<Option<String>> {
        let argv = match &check.test {
            HealthTest::Command(argv) => argv.clone(),
            HealthTest::Shell(line) => ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
        };
        let command =
            Command { argv, timeout: Some(check.timeout), output_limit: SHOWN, ..Command::default() };
        match self.exec_bytes(command).await {
            Ok(outcome) if outcome.returncode == 0 && !outcome.timed_out => Ok(None),
            Ok(outcome) => Ok(Some(told(&outcome))),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Ok(Some(format!("before it began: {} is not executable", error.message())))
            }
            Err(error) => Err(error.with_operation("check the service's health")),
        }
    }
}

/// A line for the shell with its arguments, run where every sandbox has a directory.
fn set_up(words: &[&str], user: Option<&str>) -> Command {
    Command {
        argv: ["/bin/sh", "-c"].iter().chain(words).map(|word| (*word).to_owned()).collect(),
        // the working directory may not exist yet
        cwd: Some("/".to_owned()),
        user: user.map(str::to_owned),
        timeout: Some(STEP),
        output_limit: SHOWN,
        ..Command::default()
    }
}

/// What the service runs; empty where it says nothing, since the image's own command is the platform's matter.
fn argv(service: &Service) -> Vec<String> {
    let entrypoint = service.entrypoint.as_ref().or(service.image_entrypoint.as_ref());
    let parts = [entrypoint, service.command.as_ref()];
    parts.into_iter().flatten().flatten().cloned().collect()
}

/// Whether a command does nothing but keep a container alive, so that there is no early end to wait for.
fn is_idle(argv: &[String]) -> bool {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    matches!(words.as_slice(), ["sleep", "infinity" | "inf"] | ["tail", "-f" | "-F", "/dev/null"])
}

/// Options and path of a mount, in the form of [`SCRIPT`]. Docker's defaults come first, since later options win. Where
/// our own program may be, it can be executed unless the file forbids it.
fn mount(tmpfs: &Tmpfs) -> String {
    let holds_a_place = SHIM_PLACES.iter().any(|place| Path::new(place).starts_with(&tmpfs.path));
    let mut options = if holds_a_place { "nosuid,nodev" } else { "noexec,nosuid,nodev" }.to_owned();
    if let Some(size) = tmpfs.size {
        options = format!("{options},size={size}");
    }
    if let Some(mode) = &tmpfs.mode {
        options = format!("{options},mode={mode}");
    }
    for option in &tmpfs.options {
        options = format!("{options},{option}");
    }
    format!("{options} {}", tmpfs.path)
}

/// How something ended, with what it said.
fn told(outcome: &RawOutcome) -> String {
    let how = if outcome.timed_out {
        "by its timeout".to_owned()
    } else {
        format!("with status {}", outcome.returncode)
    };
    let said = [outcome.stdout.text(SHOWN), outcome.stderr.text(SHOWN)].concat();
    match said.trim() {
        "" => format!("{how} and said nothing"),
        said => format!("{how} and said: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrypoint_comes_before_the_command_and_an_empty_one_is_none() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let service = |entrypoint: Option<&str>, command: Option<&str>| Service {
            entrypoint: entrypoint.map(words),
            command: command.map(words),
            ..Service::default()
        };
        assert_eq!(argv(&service(Some("a b"), Some("c"))), ["a", "b", "c"]);
        assert_eq!(argv(&service(Some(""), Some("c"))), ["c"]);
        assert_eq!(argv(&service(Some("a"), None)), ["a"]);
        assert!(argv(&service(None, None)).is_empty());
        assert!(is_idle(&words("tail -f /dev/null")) && !is_idle(&words("sleep 1")));
    }

    #[test]
    fn a_mount_says_what_the_file_says() {
        let tmpfs = Tmpfs {
            path: "/a b".to_owned(),
            size: Some(64),
            mode: Some("1777".to_owned()),
            options: ["uid=7", "exec"].map(str::to_owned).to_vec(),
        };
        assert_eq!(mount(&tmpfs), "noexec,nosuid,nodev,size=64,mode=1777,uid=7,exec /a b");
    }

    #[test]
    fn our_own_program_can_be_executed_in_what_is_mounted_over_it() {
        let over = |path: &str, options: &[&str]| {
            let options = options.iter().map(|option| (*option).to_owned()).collect();
            mount(&Tmpfs { path: path.to_owned(), options, ..Tmpfs::default() })
        };
        for path in ["/tmp", "/var/tmp", "/var", "/dev/shm"] {
            assert_eq!(over(path, &[]), format!("nosuid,nodev {path}"));
        }
        for path in ["/tmpfs", "/tmp/below", "/run"] {
            assert_eq!(over(path, &[]), format!("noexec,nosuid,nodev {path}"));
        }
        assert_eq!(over("/tmp", &["noexec"]), "nosuid,nodev,noexec /tmp");
    }
}
