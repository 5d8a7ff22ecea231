//! A Docker Engine, driven by the `docker` program.
//!
//! The program rather than the Engine's socket: it knows contexts, `DOCKER_HOST` with ssh and TLS, credentials of
//! registries, and how to talk to BuildKit, whose protocol is gRPC over an upgraded connection. It runs a few times per
//! image, so that what it costs to start does not matter.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::{ChildStdout, Command};

use super::Image;
use crate::local::spec::RootFs;

const PROGRAM: &str = "docker";
/// Daytona's only platform.
const PLATFORM: &str = "linux/amd64";
/// For what answers at once.
const SHORT: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(10);
const VERSION: [&str; 3] = ["version", "--format", "{{.Server.Version}}"];

/// What Docker knows about an image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    /// `sha256:…`.
    pub(super) id: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    user: Option<String>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
}

impl Inspected {
    /// The image, once its files are in `root`.
    ///
    /// # Errors
    ///
    /// An image of another platform.
    pub(super) fn image(&self, root: PathBuf) -> Result<Image, String> {
        let platform = format!("{}/{}", self.os, self.architecture);
        if platform != PLATFORM {
            return Err(format!("the image is for {platform}; sandboxes are {PLATFORM}"));
        }
        let default = Config::default();
        let config = self.config.as_ref().unwrap_or(&default);
        let mut image = Image::plain(RootFs::Directory(root));
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        image.user = given(&config.user).unwrap_or(image.user);
        // Docker starts processes in the root directory where an image says nothing, not in a home
        image.work_dir = Some(PathBuf::from(given(&config.working_dir).unwrap_or_else(|| "/".to_owned())));
        let pairs = config.env.iter().flatten().filter_map(|pair| pair.split_once('='));
        image.env =
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>();
        if let Some(entrypoint) = config.entrypoint.as_ref().filter(|entrypoint| !entrypoint.is_empty()) {
            image.entrypoint.clone_from(entrypoint);
        }
        Ok(image)
    }
}

/// Whether an Engine answers.
///
/// # Errors
///
/// Why none does.
pub(super) async fn probe() -> Result<(), String> {
    let asked = run(&VERSION, PROBE).await?;
    if asked.status.success() { Ok(()) } else { Err(said(&asked)) }
}

/// What the Engine knows about an image, by name or id; `None` where it does not have it.
pub(super) async fn inspect(image: &str) -> Result<Option<Inspected>, String> {
    let asked = run(&["image", "inspect", "--", image], SHORT).await?;
    if !asked.status.success() {
        let said = said(&asked);
        return if said.to_lowercase().contains("no such image") { Ok(None) } else { Err(said) };
    }
    let found: Vec<Inspected> = serde_json::from_slice(&asked.stdout)
        .map_err(|error| format!("docker image inspect: its answer is not understood: {error}"))?;
    Ok(found.into_iter().next())
}

/// Fetches an image; `log` gets what Docker says.
pub(super) async fn pull(image: &str, log: File) -> Result<(), String> {
    follow(command(&["pull", "--platform", PLATFORM, "--", image]), "pull", Stdio::null(), log).await
}

/// Builds an image from an archive with `dockerfile` in it.
pub(super) async fn build(reference: &str, dockerfile: &str, context: File, log: File) -> Result<(), String> {
    let file = super::context::DOCKERFILE;
    let arguments = ["build", "--force-rm", "--platform", PLATFORM, "--tag", reference, "--file", file, "-"];
    // older Engines forget to tell what a step said that failed
    let classic = !needs_buildkit(dockerfile) && major_version().await.is_some_and(|major| major < 23);
    let mut command = command(&arguments);
    if classic {
        command.env("DOCKER_BUILDKIT", "0");
    }
    follow(command, "build", context.into(), log).await
}

/// Whether a Dockerfile has something that only BuildKit knows. Being wrong about it costs nothing but words of a log.
fn needs_buildkit(dockerfile: &str) -> bool {
    [
        "--mount=",
        "--chmod=",
        "--link",
        "--parents",
        "--exclude=",
        "--network=",
        "--security=",
        "--checksum=",
        "<<",
    ]
    .iter()
    .any(|feature| dockerfile.contains(feature))
        || dockerfile.lines().any(|line| {
            line.trim_start()
                .strip_prefix('#')
                .is_some_and(|directive| directive.trim_start().starts_with("syntax"))
        })
}

/// The Engine's version, if it has one that is understood.
async fn major_version() -> Option<u32> {
    let asked = run(&VERSION, PROBE).await.ok()?;
    String::from_utf8_lossy(&asked.stdout).split('.').next()?.trim().parse().ok()
}

/// A container of an image that never runs, for its files. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Export {
    container: String,
}

impl Export {
    pub(super) async fn of(image: &str) -> Result<Self, String> {
        // a command is only needed where the image has none; it is never run
        let arguments =
            ["create", "--network", "none", "--label", "inspect-daytona=export", "--", image, "true"];
        let created = run(&arguments, SHORT).await?;
        if !created.status.success() {
            return Err(format!("docker create: {}", said(&created)));
        }
        Ok(Self { container: String::from_utf8_lossy(&created.stdout).trim().to_owned() })
    }

    /// Starts to write the files as an archive, which ends early when the program fails: wait for it.
    pub(super) fn start(&self) -> Result<(tokio::process::Child, ChildStdout), String> {
        let mut child = command(&["export", "--", &self.container])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| unable(&error))?;
        let stdout = child.stdout.take().ok_or("docker export has no output")?;
        Ok((child, stdout))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        let container = std::mem::take(&mut self.container);
        // without a runtime, the process is ending
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                match run(&["rm", "--force", "--volumes", "--", &container], SHORT).await {
                    Ok(removed) if removed.status.success() => {}
                    Ok(removed) => tracing::warn!("docker rm {container}: {}", said(&removed)),
                    Err(error) => tracing::warn!("docker rm {container}: {error}"),
                }
            });
        }
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("DOCKER_CLI_HINTS", "false").kill_on_drop(true);
    command
}

async fn run(arguments: &[&str], limit: Duration) -> Result<Output, String> {
    let asked = command(arguments).stdin(Stdio::null()).output();
    let asked = tokio::time::timeout(limit, asked).await;
    let first = arguments.first().copied().unwrap_or_default();
    asked
        .map_err(|_| format!("docker {first} did not answer within {} s", limit.as_secs()))?
        .map_err(|error| unable(&error))
}

/// Runs to the end, however long that takes: the caller has the limit.
async fn follow(mut command: Command, first: &str, input: Stdio, log: File) -> Result<(), String> {
    let errors = log.try_clone().map_err(|error| format!("cannot write the log: {error}"))?;
    command.stdin(input).stdout(log).stderr(errors);
    let mut child = command.spawn().map_err(|error| unable(&error))?;
    let status = child.wait().await.map_err(|error| unable(&error))?;
    if status.success() { Ok(()) } else { Err(format!("docker {first} failed ({status})")) }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn unable(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return "there is no program `docker`".to_owned();
    }
    format!("cannot run `docker`: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_buildkit_knows_is_seen() {
        for text in [
            "FROM a\nRUN --mount=type=cache,target=/c true\n",
            "RUN <<E\nE\n",
            "# syntax=docker/dockerfile:1\n",
        ] {
            assert!(needs_buildkit(text), "{text}");
        }
        assert!(!needs_buildkit("FROM a:1\n# a comment\nCOPY --from=b /x /y\nRUN true\n"));
    }

    #[test]
    fn the_configuration_of_an_image_is_taken_along() {
        let text = r#"{"Id": "sha256:1", "Os": "linux", "Architecture": "amd64", "Config": {"User": "1000:1000",
            "Env": ["PATH=/bin", "A=b=c"], "WorkingDir": "", "Entrypoint": null, "Cmd": ["sh"]}}"#;
        let inspected: Inspected = serde_json::from_str(text).unwrap();
        let image = inspected.image("/root".into()).unwrap();
        assert_eq!((image.user.as_str(), image.env["A"].as_str()), ("1000:1000", "b=c"));
        assert_eq!(
            (image.work_dir, image.entrypoint),
            (Some("/".into()), vec!["sleep".to_owned(), "infinity".to_owned()])
        );
        let other: Inspected =
            serde_json::from_str(r#"{"Id": "sha256:1", "Os": "linux", "Architecture": "arm64"}"#).unwrap();
        assert!(other.image("/root".into()).unwrap_err().contains("linux/arm64"));
    }
}
