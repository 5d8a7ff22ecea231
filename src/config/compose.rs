//! A whole compose file: which services run, which is the default, and `x-daytona` laid over them.

use super::extension::{self, XDaytona};
use super::keys::TOP;
use super::node::{Entry, Mapping, Node, Value};
use super::plan::{
    ComposeModel, ComposeProject, ImageSource, Network, Plan, Resources, SandboxPlan, Service,
};
use super::problem::{Problem, Read};
use super::reading::{Reading, unknown_key};
use super::resources::Asked;
use super::secrets;
use super::service::{self, Surroundings, is_marked_default};
use super::{build, model, multi, network, resources, storage};

/// Reads an interpolated compose file.
pub(crate) fn plan(mut reading: Reading<'_>, root: &Node) -> Read<Plan> {
    let top = match &root.value {
        Value::Mapping(mapping) => mapping,
        Value::Null => return Err(root.problem("the file is empty")),
        _ => return Err(root.problem("a compose file must be a mapping with `services`")),
    };
    check_extensions(&mut reading, top)?;
    let Some(services_node) = top.get("services") else {
        reading.check_keys(top, TOP, format_args!(""))?;
        return Err(root.problem("a compose file needs `services`"));
    };
    let services = services_node.mapping("services")?;
    let active = active(&reading, services)?;
    reading.multi = active.len() > 1;
    reading.check_keys(top, TOP, format_args!(""))?;
    let settings = match top.get("x-daytona") {
        Some(node) => extension::read(node)?,
        None => XDaytona::default(),
    };
    for label in ["created_by", "inspect_run_id"] {
        if settings.labels.contains_key(label)
            && let Some(entry) = top.entry("x-daytona")
        {
            reading.warn(&entry.place, format!("the label `{label}` has no effect: the provider sets it"));
        }
    }
    let section = |key: &str| top.get(key).map(|node| node.mapping(key)).transpose();
    let around = Surroundings {
        services,
        active: &active,
        networks: section("networks")?,
        volumes: section("volumes")?,
        platform: &settings.volumes,
    };
    if let Some(networks) = around.networks {
        network::check(&mut reading, networks)?;
    }
    if let Some(volumes) = around.volumes {
        storage::check_volumes(&mut reading, volumes)?;
    }
    let mut local = Vec::new();
    let mut read = Vec::new();
    let mut asked = Asked::default();
    for entry in &active {
        let (service, asks) = service::read(&mut reading, entry, around, &mut local)?;
        asked = asked.and(&asks);
        read.push(service);
    }
    match (active.as_slice(), read.len()) {
        ([], _) => Err(services_node.problem("no service is to run")),
        ([entry], 1) => {
            let service = read.swap_remove(0);
            let service = single(&mut reading, service, entry, &settings)?;
            let setting = top.get("x-daytona");
            resources::check_gpus(&mut reading, &active, &settings, setting, &service.resources)?;
            let warnings = reading.into_warnings();
            Ok(Plan::Single(Box::new(SandboxPlan { service, settings, warnings })))
        }
        _ => {
            let used = secrets::read(&reading, top, &active)?;
            multi::check(&mut reading, top, &active, &read, &settings)?;
            let default = default_service(&active)?;
            let resources = overlay(multi::total(&asked), &settings.resources);
            resources::check_gpus(&mut reading, &active, &settings, top.get("x-daytona"), &resources)?;
            Ok(Plan::Multi(Box::new(ComposeProject {
                directory: reading.directory.to_path_buf(),
                model: ComposeModel(model::render(top, &active, &read, &used)),
                secrets: used.secrets,
                default,
                local_paths: local,
                environment: settings.env_vars.clone(),
                snapshot: settings
                    .snapshot
                    .clone()
                    .unwrap_or_else(|| multi::snapshot_name(&resources, &settings)),
                snapshot_is_given: settings.snapshot.is_some(),
                resources,
                services: read,
                settings,
                warnings: reading.into_warnings(),
            })))
        }
    }
}

/// A misspelt `x-daytona` would lose every setting without a word.
fn check_extensions(reading: &mut Reading<'_>, top: &Mapping) -> Read<()> {
    for entry in top.iter().filter(|entry| entry.key.starts_with("x-") && entry.key != "x-daytona") {
        if super::suggest::nearest(&entry.key, ["x-daytona"]).is_some() {
            return Err(unknown_key(&entry.key, &entry.place, "", ["x-daytona"]));
        }
        if entry.key == "x-inspect_k8s_sandbox" && !entry.value.is_void() {
            reading.warn(
                &entry.place,
                "`x-inspect_k8s_sandbox` has no effect here: use `x-daytona.domain_allow_list` for `allow_domains`",
            );
        }
    }
    Ok(())
}

/// The services that run: those without profiles, and those with an active one.
fn active<'a>(reading: &Reading<'_>, services: &'a Mapping) -> Read<Vec<&'a Entry>> {
    let wanted = (reading.lookup)("COMPOSE_PROFILES").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
    let mut active = Vec::new();
    for entry in services.iter() {
        let profiles = match entry.value.mapping(&entry.key)?.get("profiles") {
            Some(node) => node.texts("profiles")?,
            None => Vec::new(),
        };
        let runs = |profile: &String| wanted.contains(&"*") || wanted.contains(&profile.as_str());
        if profiles.is_empty() || profiles.iter().any(runs) {
            active.push(entry);
        }
    }
    Ok(active)
}

/// `x-default: true`, or else `default` or `main`, or else the first.
fn default_service(active: &[&Entry]) -> Read<String> {
    let mut marked: Option<&Entry> = None;
    for entry in active {
        if is_marked_default(entry.value.mapping(&entry.key)?)? {
            if let Some(other) = marked {
                let message =
                    format!("`{}` and `{}` are both marked with x-default: true", other.key, entry.key);
                return Err(Problem::at(&entry.place, message));
            }
            marked = Some(entry);
        }
    }
    let named = |name: &str| active.iter().find(|entry| entry.key == name).copied();
    let chosen = marked.or_else(|| named("default")).or_else(|| named("main")).or(active.first().copied());
    Ok(chosen.map(|entry| entry.key.clone()).unwrap_or_default())
}

/// Lays `x-daytona` over the only service.
fn single(
    reading: &mut Reading<'_>,
    mut service: Service,
    entry: &Entry,
    settings: &XDaytona,
) -> Read<Service> {
    is_marked_default(entry.value.mapping(&entry.key)?)?;
    if let Some(snapshot) = &settings.snapshot {
        if service.resources != Resources::default() {
            reading
                .warn(&entry.place, "resources of the service have no effect: the snapshot brings its own");
            service.resources = Resources::default();
        }
        service.image = ImageSource::Snapshot(snapshot.clone());
    } else if service.image == ImageSource::Default {
        return Err(Problem::at(
            &entry.place,
            format!("the service `{}` needs `image` or `build`", entry.key),
        ));
    }
    if service.command.is_some()
        && service.entrypoint.is_none()
        && let ImageSource::Build(image) = &service.image
    {
        service.image_entrypoint = build::entrypoint(reading, image);
    }
    Ok(laid_over(service, settings))
}

/// The sandbox of `x-daytona` settings that stand alone, without a compose file.
pub(crate) fn alone(node: &Node) -> Read<SandboxPlan> {
    let settings = extension::read(node)?;
    let image = settings.snapshot.clone().map_or(ImageSource::Default, ImageSource::Snapshot);
    if image == ImageSource::Default && settings.resources != Resources::default() {
        let mapping = node.mapping("x-daytona")?;
        let entry = ["resources", "disk", "gpu_type"].iter().find_map(|key| mapping.entry(key));
        return Err(Problem::at(
            entry.map_or(&node.place, |entry| &entry.place),
            "the default snapshot brings its own resources, so `resources` need an image",
        )
        .hint("Use a compose file with `image`, or a `snapshot` that has them"));
    }
    if image == ImageSource::Default && settings.is_virtual_machine() {
        let entry = node.mapping("x-daytona")?.entry("class");
        return Err(Problem::at(
            entry.map_or(&node.place, |entry| &entry.place),
            "the default snapshot is a container's, so the class linux-vm needs an image",
        )
        .hint("Use a compose file with `image`, or a `snapshot` of that class"));
    }
    let service = Service { name: "default".to_owned(), image, ..Service::default() };
    Ok(SandboxPlan { service: laid_over(service, &settings), settings, warnings: Vec::new() })
}

/// `service` with the settings that win over it.
fn laid_over(mut service: Service, settings: &XDaytona) -> Service {
    service.resources = overlay(service.resources, &settings.resources);
    service.environment.extend(settings.env_vars.0.clone());
    if let Some(user) = &settings.os_user {
        service.user = Some(user.clone());
    }
    service.network = match settings.network_block_all {
        Some(true) => Network::Blocked,
        _ if !settings.network_allow_list.is_empty() => {
            Network::AllowCidrs(settings.network_allow_list.clone())
        }
        _ if !settings.domain_allow_list.is_empty() => {
            Network::AllowDomains(settings.domain_allow_list.clone())
        }
        Some(false) => Network::Default,
        None => service.network,
    };
    service
}

/// `over` where it says something, else `under`.
fn overlay(under: Resources, over: &Resources) -> Resources {
    Resources {
        cpu: over.cpu.or(under.cpu),
        memory: over.memory.or(under.memory),
        disk: over.disk.or(under.disk),
        gpu: over.gpu.or(under.gpu),
        gpu_types: if over.gpu_types.is_empty() { under.gpu_types } else { over.gpu_types.clone() },
    }
}
