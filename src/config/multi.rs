//! What holds for several services in one sandbox, which `docker compose` runs there.

use super::extension::{VIRTUAL_MACHINE, XDaytona};
use super::node::{Entry, Mapping, Value};
use super::plan::{ImageSource, Resources, Service};
use super::problem::{Problem, Read};
use super::reading::Reading;
use super::resources::Asked;
use super::storage;

/// What cannot be applied to a sandbox that runs several services.
pub(crate) fn check(
    reading: &mut Reading<'_>,
    top: &Mapping,
    active: &[&Entry],
    services: &[Service],
    settings: &XDaytona,
) -> Read<()> {
    for (entry, service) in active.iter().zip(services) {
        // A remote build context leaves no image in the plan, since Compose fetches it.
        let builds = entry.value.mapping(&entry.key)?.get("build").is_some();
        if service.image == ImageSource::Default && !builds {
            return Err(Problem::at(
                &entry.place,
                format!("the service `{}` needs `image` or `build`", entry.key),
            ));
        }
    }
    check_memory(reading, top, services, settings);
    check_gpus(reading, active, services, settings);
    if settings.snapshot.is_none() {
        for section in ["volumes", "networks"] {
            check_external(top, active, section)?;
        }
    }
    let Some(node) = top.get("x-daytona") else { return Ok(()) };
    let setting = node.mapping("x-daytona")?;
    if let Some(entry) =
        setting.entry("network_block_all").filter(|_| settings.network_block_all == Some(true))
    {
        return Err(Problem::at(
            &entry.place,
            "`network_block_all` would keep several services from being pulled",
        )
        .hint("Give each service `network_mode: none`, or networks that are `internal: true`"));
    }
    if let Some(entry) = setting.entry("os_user").filter(|_| settings.os_user.is_some()) {
        reading.warn(&entry.place, "`os_user` has no effect on several services: give each its `user`");
    }
    if let Some(entry) = setting.entry("secrets").filter(|_| !settings.secrets.is_empty()) {
        return Err(Problem::at(
            &entry.place,
            "`secrets` of x-daytona are variables of the sandbox itself, which several services do not see",
        )
        .hint(
            "Use `secrets` of the compose file, with a `file` or an `environment` variable of this machine",
        ));
    }
    if let Some(entry) = setting.entry("volumes") {
        let named = top.get("volumes").map(|node| node.mapping("volumes")).transpose()?;
        storage::warn_of_unused(reading, &settings.volumes, &entry.place, active, named)?;
    }
    Ok(())
}

fn check_memory(reading: &mut Reading<'_>, top: &Mapping, services: &[Service], settings: &XDaytona) {
    let says_memory = |service: &Service| service.resources.memory.is_some();
    if settings.resources.memory.is_none()
        && settings.snapshot.is_none()
        && !services.iter().any(says_memory)
        && let Some(node) = top.get("services")
    {
        reading.warn(
            &node.place,
            "no service says how much memory it needs, so the sandbox for all of them has 1 GiB: set `mem_limit` or \
             `x-daytona.resources.memory`",
        );
    }
}

/// A Docker Engine hands out GPUs through NVIDIA's runtime, which its official image does not have.
fn check_gpus(reading: &mut Reading<'_>, active: &[&Entry], services: &[Service], settings: &XDaytona) {
    let asks = |service: &&Service| service.resources.gpu.is_some_and(|count| count > 0);
    if settings.snapshot.is_none()
        && let Some(service) = services.iter().find(asks)
        && let Some(entry) = active.iter().find(|entry| entry.key == service.name)
    {
        reading.warn(
            &entry.place,
            format!(
                "the service `{}` asks for a GPU, and the usual snapshot for several services has no container runtime of \
                 NVIDIA, so Docker is likely to refuse it: give `x-daytona.snapshot` one that has",
                service.name
            ),
        );
    }
}

/// What is made outside of the file cannot be in a machine that is made for it. Docker has three networks of its own.
fn check_external(top: &Mapping, active: &[&Entry], section: &str) -> Read<()> {
    let Some(node) = top.get(section) else { return Ok(()) };
    let used = used(active, section)?;
    // Compose makes nothing of what no service uses
    let is_used = |entry: &&Entry| entry.value.value != Value::Null && used.contains(&entry.key.as_str());
    for entry in node.mapping(section)?.iter().filter(is_used) {
        let options = entry.value.mapping(&entry.key)?;
        let Some(external) = options.get("external") else { continue };
        // Compose 2 takes the old form too: a mapping with the name
        let (is_external, old_name) = match &external.value {
            Value::Mapping(old) => (true, old.get("name")),
            _ => (external.boolean("external")?, None),
        };
        let name = match options.get("name").or(old_name) {
            Some(name) => name.text("name")?,
            None => entry.key.as_str(),
        };
        let is_dockers = section == "networks" && matches!(name, "bridge" | "host" | "none");
        if is_external && !is_dockers {
            let what = section.trim_end_matches('s');
            return Err(external
                .problem(format!(
                    "the {what} `{name}` is external: the sandbox is a new machine that has none"
                ))
                .hint(format!(
                    "Leave `external` out, or give `x-daytona.snapshot` a machine that has the {what}"
                )));
        }
    }
    Ok(())
}

/// The names of volumes or networks that services use.
fn used<'a>(active: &[&'a Entry], section: &str) -> Read<Vec<&'a str>> {
    let mut names = Vec::new();
    for entry in active {
        let service = entry.value.mapping(&entry.key)?;
        let is_apart = service.get("network_mode").is_some_and(|mode| !mode.is_void());
        match service.get(section).map(|node| &node.value) {
            Some(Value::Mapping(mapping)) => names.extend(mapping.iter().map(|entry| entry.key.as_str())),
            Some(Value::Sequence(items)) => names.extend(items.iter().filter_map(|item| match &item.value {
                Value::Mapping(long) => long.get("source")?.text("source").ok(),
                _ => item.text(section).ok()?.split(':').next(),
            })),
            _ if section == "networks" && !is_apart => names.push("default"),
            _ => {}
        }
    }
    Ok(names)
}

/// What all services ask for, plus one core and 1 GiB for the Docker daemon.
pub(crate) fn total(asked: &Asked) -> Resources {
    let sum = asked.whole();
    Resources {
        cpu: Some(sum.cpu.unwrap_or(0).saturating_add(1)),
        memory: Some(sum.memory.unwrap_or(0).saturating_add(1)),
        ..sum
    }
}

/// The name of the snapshot that sandboxes with these resources share; what is not in the usual name is appended to it.
pub(crate) fn snapshot_name(resources: &Resources, settings: &XDaytona) -> String {
    let part = |value: Option<u32>| value.unwrap_or(0);
    let mut name = format!(
        "inspect-dind-{}cpu-{}gb-{}gpu",
        part(resources.cpu),
        part(resources.memory),
        part(resources.gpu)
    );
    let disk = resources.disk.map(|disk| format!("{disk}gb-disk"));
    let class = settings.is_virtual_machine().then(|| VIRTUAL_MACHINE.to_owned());
    for more in resources.gpu_types.iter().cloned().chain(disk).chain(class).chain(settings.target.clone()) {
        name.push('-');
        name.push_str(&more);
    }
    name
}
