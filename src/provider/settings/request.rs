//! The create request for what a task asks, and the check that it took effect.

use std::collections::BTreeMap;

use super::Settings;
use crate::api::sandbox::{CreateSandbox, Sandbox};
use crate::api::volume::VolumeMount;
use crate::config::{ImageSource, Network, Resources, SandboxPlan};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::images::Prepared;

impl Settings {
    /// The request for a sandbox.
    pub(in crate::provider) fn create_request(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        image: &Prepared,
    ) -> CreateSandbox {
        let SandboxPlan { service, settings, .. } = &self.plan;
        let mut request = CreateSandbox {
            name: Some(name.to_owned()),
            labels,
            env: service.environment.0.clone(),
            user: service.user.as_deref().and_then(toolbox_user),
            public: settings.public.then_some(true),
            target: settings.target.clone(),
            auto_stop_interval: Some(i64::from(settings.auto_stop_interval)),
            auto_pause_interval: self.auto_pause_interval(),
            auto_archive_interval: Some(i64::from(settings.auto_archive_interval)),
            auto_delete_interval: if settings.ephemeral { Some(0) } else { settings.auto_delete_interval },
            ttl_minutes: Some(i64::from(self.ttl_minutes())),
            queue_timeout: settings.queue_timeout.map(i64::from),
            volumes: settings.volumes.iter().map(mount).collect(),
            ..CreateSandbox::default()
        };
        if let Some(language) = &settings.language {
            // the official SDK reads the language from this label
            request.labels.insert("code-toolbox-language".to_owned(), language.clone());
        }
        match image {
            Prepared::Default => {}
            Prepared::Snapshot(snapshot) => request.snapshot = Some(snapshot.clone()),
            Prepared::Build(build) => {
                let resources = &service.resources;
                request.build_info = Some(build.clone());
                request.cpu = resources.cpu;
                request.memory = resources.memory;
                request.disk = resources.disk;
                request.gpu = resources.gpu;
                request.gpu_type = (!resources.gpu_types.is_empty()).then(|| resources.gpu_types.clone());
            }
        }
        if service.resources.gpu.is_some_and(|count| count > 0) && request.auto_delete_interval.is_none() {
            // the platform wants sandboxes with a GPU to be deleted when they stop; ours are deleted anyway
            request.auto_delete_interval = Some(0);
        }
        if !settings.secrets.is_empty() {
            let pairs = settings
                .secrets
                .iter()
                .map(|(name, secret)| BTreeMap::from([(name.clone(), secret.clone())]));
            request.secrets = Some(pairs.collect());
        }
        match &service.network {
            Network::Default => {}
            Network::Blocked => request.network_block_all = Some(true),
            Network::AllowCidrs(networks) => request.network_allow_list = Some(networks.join(",")),
            Network::AllowDomains(names) => request.domain_allow_list = Some(names.join(",")),
        }
        request
    }

    /// The platform pauses virtual machines after an hour without requests unless it is told not to; a model may think
    /// for longer.
    fn auto_pause_interval(&self) -> Option<i64> {
        let settings = &self.plan.settings;
        let never = (settings.is_virtual_machine() && !settings.ephemeral).then_some(0);
        settings.auto_pause_interval.map(i64::from).or(never)
    }

    /// Checks that a sandbox came out as it was asked for, where it tells: servers drop fields that they do not know
    /// without a word. Returns what has no effect and harms nobody but the account.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] naming the restriction or the volume that did not take effect.
    pub(in crate::provider) fn verify(&self, created: &Sandbox) -> Result<Vec<String>> {
        let settings = &self.plan.settings;
        let missing = match &self.plan.service.network {
            Network::Default => None,
            Network::Blocked => (!created.network_block_all).then_some("network_block_all"),
            Network::AllowCidrs(wanted) => {
                (!same_list(wanted, created.network_allow_list.as_deref())).then_some("network_allow_list")
            }
            Network::AllowDomains(wanted) => {
                (!same_list(wanted, created.domain_allow_list.as_deref())).then_some("domain_allow_list")
            }
        };
        if let Some(missing) = missing {
            return Err(not_applied(created, missing, "would not be confined as the task asks"));
        }
        if let Some(class) = settings.class.as_deref() {
            // servers that do not know classes have containers only
            let got = created.sandbox_class.as_deref().unwrap_or("container");
            if got != class {
                return Err(not_applied(created, "class", &format!("is a {got} and not a {class}")));
            }
        }
        // by their paths: the answer names volumes by id, whatever they were asked for by
        let is_mounted = |path: &str| created.volumes.iter().any(|mount| mount.mount_path == path);
        if settings.volumes.iter().any(|volume| !is_mounted(&volume.mount_path)) {
            return Err(not_applied(created, "volumes", "would lack files that the task asks for"));
        }
        let ttl =
            settings.ttl_minutes.is_some_and(|minutes| minutes > 0) && created.auto_destroy_at.is_none();
        let pause = settings.auto_pause_interval.is_some() && created.auto_pause_interval.is_none();
        let queue = settings.queue_timeout.is_some() && created.queue_timeout.is_none();
        let ignored = [(ttl, "ttl_minutes"), (pause, "auto_pause_interval"), (queue, "queue_timeout")];
        let ignored = ignored.into_iter().filter(|(is_ignored, _)| *is_ignored);
        let ignored = ignored
            .map(|(_, name)| format!("the server does not know `{name}` of x-daytona: it has no effect"));
        // a snapshot brings its own, whatever services ask for
        let brings_its_own = matches!(self.plan.service.image, ImageSource::Snapshot(_));
        let asked = (!brings_its_own).then_some(&self.plan.service.resources);
        Ok(ignored.chain(asked.into_iter().flat_map(|asked| too_small(asked, created))).collect())
    }
}

/// Which resources came out smaller than they were asked for. Zero is what servers say that do not tell.
fn too_small(asked: &Resources, got: &Sandbox) -> impl Iterator<Item = String> {
    let pairs = [
        ("cores", asked.cpu, got.cpu),
        ("GiB of memory", asked.memory, got.memory),
        ("GiB of disk", asked.disk, got.disk),
    ];
    pairs.into_iter().filter_map(|(what, asked, got)| {
        let asked = i64::from(asked?);
        (0 < got && got < asked).then(|| format!("the sandbox has {got} {what}, and {asked} were asked for"))
    })
}

/// Whom the toolbox runs as: a user without the group, which it takes no part of. Each command has both.
fn toolbox_user(user: &str) -> Option<String> {
    user.split(':').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn not_applied(created: &Sandbox, setting: &str, consequence: &str) -> Error {
    let message = format!("the server did not apply {setting}, so the sandbox {consequence}");
    Error::new(ErrorKind::Unsupported, message)
        .with_sandbox(&created.name)
        .with_hint("Use a server that supports it, or remove the setting")
}

fn mount(volume: &crate::config::PlatformVolume) -> VolumeMount {
    VolumeMount {
        volume_id: volume.volume.clone(),
        mount_path: volume.mount_path.clone(),
        subpath: volume.subpath.clone(),
    }
}

/// Whether a comma-separated list holds exactly these items.
fn same_list(wanted: &[String], list: Option<&str>) -> bool {
    let mut wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
    let mut got: Vec<_> =
        list.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    wanted.sort_unstable();
    got.sort_unstable();
    wanted == got
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(json: &str) -> Result<Settings> {
        Settings::from_json(&format!(r#"{{"source": {{"settings": {json}}}, "directory": "/"}}"#))
    }

    fn request(json: &str) -> CreateSandbox {
        let settings = settings(json).unwrap();
        let image = match &settings.plan.service.image {
            ImageSource::Snapshot(name) => Prepared::Snapshot(name.clone()),
            _ => Prepared::Default,
        };
        settings.create_request("n", BTreeMap::new(), &image)
    }

    #[test]
    fn without_a_configuration_a_sandbox_never_stops_by_itself_but_expires() {
        let request = request("{}");
        assert_eq!(request.auto_stop_interval, Some(0));
        assert_eq!(request.ttl_minutes, Some(60));
        assert_eq!((request.snapshot, request.network_block_all), (None, None));
    }

    /// Every field of the request, as it is sent: a setting that gets lost on the way changes this.
    #[test]
    fn settings_reach_the_create_request() {
        let request = request(
            r#"{"snapshot": "s", "os_user": "root", "env_vars": {"A": "1"}, "public": true, "language": "python",
                "network_allow_list": "10.0.0.0/8", "secrets": {"KEY": "my-secret"}, "ttl_minutes": 5, "target": "eu",
                "auto_stop_interval": 11, "auto_archive_interval": 13,
                "auto_delete_interval": 14, "queue_timeout": 15,
                "volumes": [{"volume": "v", "mount_path": "/v", "subpath": "a/b"}]}"#,
        );
        let sent = serde_json::to_value(&request).unwrap();
        let expected = serde_json::json!({
            "name": "n", "snapshot": "s", "user": "root", "env": {"A": "1"},
            "labels": {"code-toolbox-language": "python"}, "public": true, "target": "eu",
            "networkAllowList": "10.0.0.0/8", "secrets": [{"KEY": "my-secret"}], "ttlMinutes": 5,
            "autoStopInterval": 11, "autoArchiveInterval": 13, "autoDeleteInterval": 14,
            "queueTimeout": 15, "volumes": [{"volumeId": "v", "mountPath": "/v", "subpath": "a/b"}],
        });
        assert_eq!(sent, expected);
        let only = |json: &str, field: &str| serde_json::to_value(self::request(json)).unwrap()[field].take();
        assert_eq!(only(r#"{"ephemeral": true}"#, "autoDeleteInterval"), 0);
        assert_eq!(only(r#"{"auto_pause_interval": 12}"#, "autoPauseInterval"), 12);
        assert_eq!(only(r#"{"network_block_all": true}"#, "networkBlockAll"), true);
        assert_eq!(
            only(r#"{"domain_allow_list": ["a.org", "*.b.org"]}"#, "domainAllowList"),
            "a.org,*.b.org"
        );
    }

    #[test]
    fn resources_reach_the_request_of_what_is_built_with_each_sandbox() {
        let model = r#"{"source": {"model": {"services": {"default": {"image": "a:1", "cpus": 2, "mem_limit": "3g"}},
            "x-daytona": {"prepare": false, "disk": 4, "resources": {"gpu": 1}, "gpu_type": ["A", "B"]}}}, "directory": "/"}"#;
        let image = Prepared::Build(crate::provider::images::from("a:1"));
        let request = Settings::from_json(model).unwrap().create_request("n", BTreeMap::new(), &image);
        let sent = serde_json::to_value(&request).unwrap();
        let fields = ["cpu", "memory", "disk", "gpu", "gpuType"].map(|field| sent[field].clone());
        assert_eq!(serde_json::json!(fields), serde_json::json!([2, 3, 4, 1, ["A", "B"]]));
        assert_eq!(sent["buildInfo"]["dockerfileContent"], "FROM a:1\n");
        // the platform wants it of sandboxes with a GPU
        assert_eq!(sent["autoDeleteInterval"], 0);
    }

    #[test]
    fn a_wait_for_a_free_machine_does_not_count_as_the_creation() {
        assert_eq!(settings("{}").unwrap().timeout(), Duration::from_secs(60));
        let patient = settings(r#"{"queue_timeout": 5, "timeout": 1.5}"#).unwrap();
        assert_eq!(patient.timeout(), Duration::from_millis(301_500));
    }

    #[test]
    fn less_than_was_asked_for_is_a_warning() {
        let model = r#"{"source": {"model": {"services": {"default": {"image": "a:1", "cpus": 2, "mem_limit": "3g"}}}}, "directory": "/"}"#;
        let settings = Settings::from_json(model).unwrap();
        let warnings = |cpu, memory| settings.verify(&Sandbox { cpu, memory, ..Sandbox::default() }).unwrap();
        assert_eq!(warnings(2, 2), ["the sandbox has 2 GiB of memory, and 3 were asked for"]);
        assert!(warnings(2, 3).is_empty() && warnings(0, 0).is_empty() && warnings(4, 8).is_empty());
        let own = r#"{"source": {"model": {"services": {"a": {"image": "a:1", "cpus": 2}, "b": {"image": "b:1"}},
            "x-daytona": {"snapshot": "s"}}}, "directory": "/"}"#;
        let few = Sandbox { cpu: 1, memory: 1, ..Sandbox::default() };
        assert!(Settings::from_json(own).unwrap().verify(&few).unwrap().is_empty());
    }

    #[test]
    fn a_group_is_no_part_of_the_sandboxes_user() {
        for (user, sent) in [("1000:1000", "1000"), ("agent:staff", "agent"), ("root", "root")] {
            let request = request(&format!(r#"{{"os_user": "{user}"}}"#));
            assert_eq!(request.user.as_deref(), Some(sent), "{user}");
        }
    }

    #[test]
    fn a_restriction_that_did_not_take_effect_is_an_error() {
        let blocked = settings(r#"{"network_block_all": true}"#).unwrap();
        let error = blocked.verify(&Sandbox::default()).unwrap_err();
        assert!(error.to_string().contains("network_block_all"), "{error}");
        assert!(blocked.verify(&Sandbox { network_block_all: true, ..Sandbox::default() }).is_ok());
        let named = settings(r#"{"domain_allow_list": ["a.org", "b.org"]}"#).unwrap();
        let answer =
            |names: &str| Sandbox { domain_allow_list: Some(names.to_owned()), ..Sandbox::default() };
        assert!(named.verify(&answer("b.org,a.org")).is_ok());
        assert!(
            named.verify(&answer("a.org")).is_err() && named.verify(&answer("a.org,b.org,c.org")).is_err()
        );
        assert!(named.verify(&Sandbox::default()).is_err());
        let listed = settings(r#"{"network_allow_list": "10.0.0.0/8,192.168.0.0/16"}"#).unwrap();
        let answer = Some("192.168.0.0/16, 10.0.0.0/8".to_owned());
        assert!(listed.verify(&Sandbox { network_allow_list: answer, ..Sandbox::default() }).is_ok());
        assert!(listed.verify(&Sandbox::default()).is_err());
    }

    #[test]
    fn a_class_that_the_sandbox_has_not_is_an_error_and_a_virtual_machine_does_not_pause_by_itself() {
        let machine = settings(r#"{"class": "linux-vm", "snapshot": "s"}"#).unwrap();
        let of = |class: &str| Sandbox { sandbox_class: Some(class.to_owned()), ..Sandbox::default() };
        assert!(machine.verify(&of("linux-vm")).unwrap().is_empty());
        for other in [of("container"), Sandbox::default()] {
            let error = machine.verify(&other).unwrap_err().to_string();
            assert!(error.contains("did not apply class") && error.contains("not a linux-vm"), "{error}");
        }
        let container = settings(r#"{"class": "container"}"#).unwrap();
        assert!(container.verify(&Sandbox::default()).is_ok());
        assert!(container.verify(&of("linux-vm")).is_err());
        assert_eq!(request(r#"{"class": "linux-vm", "snapshot": "s"}"#).auto_pause_interval, Some(0));
        assert_eq!(request("{}").auto_pause_interval, None);
    }

    #[test]
    fn a_volume_that_was_not_mounted_is_an_error_and_a_lifetime_that_is_ignored_a_warning() {
        let json = r#"{"volumes": [{"volume": "data", "mount_path": "/data"}], "ttl_minutes": 5, "auto_pause_interval": 7, "queue_timeout": 3}"#;
        let settings = settings(json).unwrap();
        let error = settings.verify(&Sandbox::default()).unwrap_err();
        assert!(error.to_string().contains("did not apply volumes"), "{error}");
        let mounts = || vec![mount(&settings.plan.settings.volumes[0])];
        let warnings = settings.verify(&Sandbox { volumes: mounts(), ..Sandbox::default() }).unwrap();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[2].contains("queue_timeout"));
        assert!(warnings[0].contains("ttl_minutes") && warnings[1].contains("auto_pause_interval"));
        let known = Sandbox {
            volumes: mounts(),
            auto_destroy_at: Some("2026-01-01T00:00:00Z".to_owned()),
            auto_pause_interval: Some(7),
            queue_timeout: Some(3),
            ..Sandbox::default()
        };
        assert!(settings.verify(&known).unwrap().is_empty());
    }
}
