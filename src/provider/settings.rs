//! What a task asks of its sandboxes.

mod request;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::snapshot::SnapshotState;
use crate::client::{Client, Credentials};
use crate::config::{
    ComposeProject, Context, Document, ImageSource, Network, Plan, RealFiles, SandboxPlan, Service, Source,
    XDaytona,
};
use crate::error::{Error, ErrorKind, Result};

use super::compose;
use super::documents::Documents;
use super::images::{Images, Prepared, Progress};
use super::keep_alive::TTL_MINUTES;

/// The configurations that this process read.
static DOCUMENTS: Documents = Documents::new();

/// What the Python side hands over, as JSON.
#[derive(Debug, Deserialize)]
struct Request {
    source: Origin,
    /// The task's directory, absolute.
    directory: PathBuf,
    /// The sample's metadata, as Python's `str()` shows it.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Where a configuration comes from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Origin {
    /// There is none.
    None,
    /// A Dockerfile or compose file.
    Path(PathBuf),
    /// Inspect's `ComposeConfig`.
    /// As text, since the order of its services may decide which is the default.
    Model(Box<RawValue>),
    /// The keys of `x-daytona` alone.
    Settings(serde_json::Value),
}

/// A configuration that this version can carry out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sandbox: the service itself, or the machine around several services.
    plan: SandboxPlan,
    /// The services in it, where there are several.
    project: Option<Arc<ComposeProject>>,
}

impl Settings {
    /// Takes a configuration from the Python side, see `Request` in this file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] naming what is wrong.
    pub fn from_json(json: &str) -> Result<Self> {
        read_request(json, &own_environment, |document, context| Ok(Self::from_plan(document.plan(context)?)))
    }

    /// The variables named `SAMPLE_METADATA_…` that change what must be prepared for this sample, with their values: what
    /// Inspect is to set for a `task_init` of its own. Empty where the sample needs nothing of its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] if the configuration cannot be read.
    pub fn task_environment(json: &str) -> Result<BTreeMap<String, String>> {
        read_request(json, &own_environment, |document, context| {
            Ok(document.task_environment(context.metadata))
        })
    }

    /// Takes a plan.
    pub fn from_plan(plan: Plan) -> Self {
        let (plan, project) = match plan {
            Plan::Single(plan) => (*plan, None),
            Plan::Multi(project) => (machine(&project), Some(Arc::from(project))),
        };
        Self { plan, project }
    }

    /// The services that run in the sandbox, where there are several.
    pub(super) fn project(&self) -> Option<&Arc<ComposeProject>> {
        self.project.as_ref()
    }

    /// What was ignored and why.
    pub fn warnings(&self) -> &[String] {
        &self.plan.warnings
    }

    /// How long the sandbox may take to start once the server has taken the request: `timeout`, and what the task allows
    /// for a wait for a free machine.
    pub(super) fn timeout(&self) -> Duration {
        let XDaytona { timeout, queue_timeout, .. } = &self.plan.settings;
        *timeout + Duration::from_secs(60 * u64::from(queue_timeout.unwrap_or_default()))
    }

    /// Who runs commands that name no user; the toolbox's own user where absent.
    pub(super) fn user(&self) -> Option<&str> {
        self.plan.service.user.as_deref()
    }

    /// Where commands run and relative paths start; the toolbox's own directory where absent.
    pub(super) fn working_dir(&self) -> Option<&str> {
        self.plan.service.working_dir.as_deref()
    }

    pub(super) fn service(&self) -> &Service {
        &self.plan.service
    }

    /// The user's labels.
    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.plan.settings.labels
    }

    /// The class that sandboxes must have, where the task says so.
    fn class(&self) -> Option<&str> {
        self.plan.settings.class.as_deref()
    }

    /// Minutes that a sandbox outlives this process by.
    pub(super) fn ttl_minutes(&self) -> u32 {
        self.plan.settings.ttl_minutes.unwrap_or(TTL_MINUTES)
    }

    /// Whether this process extends the time-to-live. One that the user set is an end that was asked for.
    pub(super) fn extends_ttl(&self) -> bool {
        self.plan.settings.ttl_minutes.is_none()
    }

    /// Checks key, server and configuration before anything is created; returns what the user should know.
    ///
    /// # Errors
    ///
    /// What would make every sample fail: a refused key, a server that is not there or not Daytona, a snapshot that
    /// does not exist or cannot be used.
    pub async fn check(&self, client: &Client) -> Result<Vec<String>> {
        let mut warnings = self.warnings().to_vec();
        // a token is no key, and is checked by the first request that needs it
        if matches!(client.options().credentials, Credentials::ApiKey(_)) {
            let key = client.current_api_key().await.map_err(|error| match error.kind() {
                ErrorKind::Unauthenticated => error.with_hint(
                    "Set DAYTONA_API_KEY to a valid key of this server, or run without an account: \
                     DAYTONA_API_URL=local",
                ),
                _ => error,
            })?;
            if !key.permissions.is_empty() && !key.permissions.iter().any(|name| name == "delete:sandboxes") {
                warnings.push(
                    "the API key lacks the permission delete:sandboxes: sandboxes will be stopped instead of deleted, \
                     and go on using disk quota"
                        .to_owned(),
                );
            }
        }
        if let ImageSource::Snapshot(name) = &self.plan.service.image {
            check_snapshot(client, name, self.class()).await?;
        }
        Ok(warnings)
    }
}

impl Settings {
    /// Checks that nothing has to be built for samples, as Inspect's `--sandbox-prebuilt` asks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] if something has to; what is wrong with the build's files.
    pub async fn expect_prebuilt(&self, client: &Client, images: &Images) -> Result<()> {
        let builds = |service: &&Service| matches!(service.image, ImageSource::Build(_));
        if let Some(service) = self.project.iter().flat_map(|project| &project.services).find(builds) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "sandbox images are expected to be prebuilt (sandbox_prebuilt is set), but service {} has a `build`, \
                     which every sandbox with several services carries out itself",
                    service.name
                ),
            )
            .with_hint("Push the image to a registry and name it with `image`"));
        }
        images.expect_prebuilt(client, &self.plan).await
    }

    /// Makes what samples start from, once for all of them: uploads and builds. Reads the build's files again if it was
    /// done before. `progress` is told what happens, in lines for a user.
    ///
    /// # Errors
    ///
    /// What is wrong with the build's files; [`ErrorKind::BuildFailed`] with the end of the build's log.
    pub async fn prepare(&self, client: &Client, images: &Images, progress: &Progress<'_>) -> Result<()> {
        if let Some(project) = &self.project {
            images.project(project, true).await?;
        }
        self.image(client, images, true, progress).await.map(drop)
    }

    /// What sandboxes are created from; prepared now unless it was before. With `fresh`, files are read again.
    pub(super) async fn image(
        &self,
        client: &Client,
        images: &Images,
        fresh: bool,
        progress: &Progress<'_>,
    ) -> Result<Prepared> {
        match &self.project {
            Some(project) if !project.snapshot_is_given => {
                let mut name = project.snapshot.clone();
                // the plan has the task's own region in the name
                if let (None, Some(region)) = (&self.plan.settings.target, &client.options().target) {
                    name.push('-');
                    name.push_str(region);
                }
                images.prepare_named(client, &self.plan, &name, compose::IMAGE, progress).await
            }
            _ => images.prepare(client, &self.plan, fresh, progress).await,
        }
    }
}

/// Checks that a snapshot can be started from.
async fn check_snapshot(client: &Client, name: &str, class: Option<&str>) -> Result<()> {
    let snapshot = match client.snapshots().get(name).await {
        Ok(snapshot) => snapshot,
        // a key may be allowed to use snapshots and not to read them; the create request tells then
        Err(error) if error.kind() == ErrorKind::Forbidden => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("there is no snapshot {name}"))
                .with_hint("Check its name in Daytona's dashboard, or leave it out for the default snapshot")
                .with_source(error));
        }
        Err(error) => return Err(error),
    };
    if let (Some(asked), Some(found)) = (class, snapshot.sandbox_class.as_deref())
        && asked != found
    {
        let message = format!("the snapshot {name} is of the class {found}, and the task asks for {asked}");
        return Err(Error::new(ErrorKind::InvalidConfig, message)
            .with_hint("Change `class` in x-daytona, or name a snapshot of that class"));
    }
    let state = match snapshot.state {
        SnapshotState::Error | SnapshotState::BuildFailed => "failed to build",
        SnapshotState::Removing => "is being removed",
        SnapshotState::Inactive => "is inactive; activate it in Daytona's dashboard",
        _ => return Ok(()),
    };
    let reason = snapshot.error_reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Error::new(ErrorKind::InvalidConfig, format!("the snapshot {name} {state}{reason}")))
}

/// Reads what the Python side hands over, see [`Request`].
pub(super) fn read_request<T>(
    json: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    read: impl FnOnce(&Document, &Context<'_>) -> Result<T>,
) -> Result<T> {
    let request: Request = serde_json::from_str(json).map_err(|error| {
        Error::new(ErrorKind::Unexpected, format!("the configuration is unreadable: {error}"))
    })?;
    let source = match request.source {
        Origin::None => Source::None,
        Origin::Path(path) => Source::from_path(path)?,
        Origin::Model(model) => Source::Model(model.get().to_owned()),
        Origin::Settings(settings) => Source::Settings(settings.to_string()),
    };
    let context = Context {
        directory: &request.directory,
        environment,
        metadata: &request.metadata,
        files: &RealFiles,
    };
    let document = DOCUMENTS.read(&source, &context)?;
    read(&document, &context)
}

fn own_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The sandbox around several services, as a plan of its own.
fn machine(project: &ComposeProject) -> SandboxPlan {
    let image = if project.snapshot_is_given {
        ImageSource::Snapshot(project.snapshot.clone())
    } else {
        ImageSource::Image(compose::IMAGE.to_owned())
    };
    let settings = project.settings.clone();
    let network = match (settings.network_allow_list.as_slice(), settings.domain_allow_list.as_slice()) {
        ([], []) => Network::Default,
        ([], names) => Network::AllowDomains(names.to_vec()),
        (networks, _) => Network::AllowCidrs(networks.to_vec()),
    };
    SandboxPlan {
        service: Service {
            name: project.default.clone(),
            image,
            environment: project.environment.clone(),
            network,
            resources: project.resources.clone(),
            ..Service::default()
        },
        settings,
        warnings: project.warnings.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_service_of_a_model_stays_the_first() {
        let model = r#"{"services": {"zeta": {"image": "a:1"}, "alpha": {"image": "b:1"}}}"#;
        let json = format!(r#"{{"source": {{"model": {model}}}, "directory": "/"}}"#);
        let request: Request = serde_json::from_str(&json).unwrap();
        let Origin::Model(text) = request.source else { panic!("a model") };
        assert!(text.get().find("zeta") < text.get().find("alpha"));
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_nearest_one() {
        let error = Settings::from_json(r#"{"source": {"settings": {"os_usr": "root"}}, "directory": "/"}"#)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("os_user"), "{error}");
    }
}
