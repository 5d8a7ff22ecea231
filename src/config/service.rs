//! One service of a compose file.

use super::command_line::argv;
use super::keys::SERVICE;
use super::node::{Entry, Mapping, Node, Value};
use super::plan::{LocalPath, Service};
use super::platform_volume::PlatformVolume;
use super::problem::{Problem, Read};
use super::reading::{Reading, unknown_key};
use super::resources::Asked;
use super::units::bytes;
use super::{build, environment, healthcheck, network, resources, security, storage, tmpfs};

/// The rest of the file, as far as a service refers to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// All services, those of inactive profiles too.
    pub(crate) services: &'a Mapping,
    /// The services that run.
    pub(crate) active: &'a [&'a Entry],
    /// Top-level `networks`.
    pub(crate) networks: Option<&'a Mapping>,
    /// Top-level `volumes`.
    pub(crate) volumes: Option<&'a Mapping>,
    /// Volumes of the platform.
    pub(crate) platform: &'a [PlatformVolume],
}

/// Reads a service, and what it asks for exactly.
pub(crate) fn read(
    reading: &mut Reading<'_>,
    entry: &Entry,
    around: Surroundings<'_>,
    local: &mut Vec<LocalPath>,
) -> Read<(Service, Asked)> {
    let name = entry.key.as_str();
    let service = entry.value.mapping(name)?;
    check_extensions(service)?;
    reading.check_keys(service, SERVICE, format_args!("service `{name}`"))?;
    check_platform(service)?;
    security::options(reading, service, name, local)?;
    check_namespaces(reading, service)?;
    check_dependencies(service, around)?;
    // what interpolates to nothing is unset
    let text = |key: &str| -> Read<Option<String>> {
        let text = service.get(key).map(|node| node.text(key)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    };
    let mut tmpfs = tmpfs::short(service)?;
    let mounts = storage::volumes(reading, service, name, around.volumes, around.platform, local)?;
    tmpfs.extend(mounts.tmpfs);
    let asked = resources::read(reading, service)?;
    let service = Service {
        name: name.to_owned(),
        image: build::image(reading, service, name, local)?,
        command: service.get("command").map(|node| argv(reading, node, "command")).transpose()?,
        entrypoint: service.get("entrypoint").map(|node| argv(reading, node, "entrypoint")).transpose()?,
        image_entrypoint: None,
        environment: environment::read(reading, service)?,
        // `${UID}:${GID}` without either
        user: text("user")?.filter(|user| user != ":"),
        working_dir: working_dir(service)?,
        hostname: text("hostname")?,
        extra_hosts: network::extra_hosts(reading, service)?,
        healthcheck: healthcheck::read(reading, service)?,
        network: network::access(reading, service, around.networks)?,
        resources: asked.whole(),
        ports: network::ports(reading, service)?,
        // Docker reads 0 as its default.
        shm_size: service
            .get("shm_size")
            .map(|node| bytes(node, "shm_size"))
            .transpose()?
            .filter(|size| *size > 0),
        tmpfs,
        volumes: mounts.directories,
        labels: environment::labels(reading, service)?,
        ulimits: storage::ulimits(service)?,
    };
    Ok((service, asked))
}

/// Whether a service is marked as the default. A model that went through an eval log says `x_default`.
pub(crate) fn is_marked_default(service: &Mapping) -> Read<bool> {
    for key in ["x-default", "x_default"] {
        if let Some(node) = service.get(key) {
            return node.boolean(key);
        }
    }
    Ok(false)
}

/// `x-daytona` belongs at the top of the file, and a misspelt `x-default` would choose the wrong service.
fn check_extensions(service: &Mapping) -> Read<()> {
    for entry in service.iter().filter(|entry| entry.key.starts_with("x-")) {
        if entry.key == "x-daytona" {
            return Err(Problem::at(
                &entry.place,
                "`x-daytona` belongs at the top of the file, not in a service",
            ));
        }
        if entry.key != "x-default" && super::suggest::nearest(&entry.key, ["x-default"]).is_some() {
            return Err(unknown_key(&entry.key, &entry.place, "a service", ["x-default"]));
        }
    }
    Ok(())
}

fn working_dir(service: &Mapping) -> Read<Option<String>> {
    let Some(node) = service.get("working_dir") else { return Ok(None) };
    let path = node.text("working_dir")?;
    if path.is_empty() {
        return Ok(None);
    }
    if !path.starts_with('/') {
        return Err(node.problem(format!("`working_dir` must be an absolute path, not `{path}`")));
    }
    Ok(Some(path.to_owned()))
}

/// Whether a platform is the one that exists.
pub(crate) fn is_amd64(platform: &str) -> bool {
    matches!(platform, "linux/amd64" | "linux/x86_64" | "linux/x86-64" | "linux" | "amd64" | "linux/amd64/v1")
}

fn check_platform(service: &Mapping) -> Read<()> {
    match service.get("platform") {
        Some(node) if !matches!(node.text("platform")?, "") && !is_amd64(node.text("platform")?) => Err(node
            .problem(format!("the platform {} does not exist on Daytona", node.describe()))
            .hint("Daytona runs linux/amd64 only")),
        _ => Ok(()),
    }
}

/// Sharing another container's namespace needs another container.
fn check_namespaces(reading: &Reading<'_>, service: &Mapping) -> Read<()> {
    for key in ["ipc", "pid"] {
        if let Some(node) = service.get(key).filter(|_| !reading.multi) {
            let value = node.text(key)?;
            if value.starts_with("service:") || value.starts_with("container:") {
                return Err(node.problem(format!("`{key}: {value}` needs another container")));
            }
        }
    }
    Ok(())
}

fn check_dependencies(service: &Mapping, around: Surroundings<'_>) -> Read<()> {
    let Some(node) = service.get("depends_on") else { return Ok(()) };
    let check = |name: &str, node: &Node| {
        if around.active.iter().any(|entry| entry.key == name) {
            return Ok(());
        }
        let why = match around.services.entry(name) {
            Some(_) => "does not run: `COMPOSE_PROFILES` names none of its profiles",
            None => "does not exist",
        };
        Err(node.problem(format!("`depends_on` names the service `{name}`, which {why}")))
    };
    if let Value::Mapping(mapping) = &node.value {
        return mapping.iter().try_for_each(|entry| {
            let dependency = entry.value.mapping(&entry.key)?;
            let known = ["condition", "required", "restart"];
            let is_unknown = |key: &str| !known.contains(&key) && !key.starts_with("x-");
            if let Some(other) = dependency.iter().find(|other| is_unknown(&other.key)) {
                return Err(unknown_key(&other.key, &other.place, "depends_on", known));
            }
            match dependency.get("required") {
                Some(required) if !required.boolean("required")? => Ok(()),
                _ => check(&entry.key, &entry.value),
            }
        });
    }
    node.sequence("depends_on")?.iter().try_for_each(|item| check(item.text("depends_on")?, item))
}
