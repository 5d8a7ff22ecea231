//! Cores, memory and GPUs of a service.

use super::extension::XDaytona;
use super::keys::DEPLOY;
use super::node::{Entry, Mapping, Node, Value};
use super::plan::Resources;
use super::problem::{Problem, Read};
use super::reading::{Reading, unknown_key};
use super::units::{cores, memory, whole_cores, whole_gib};

/// The most GPUs that anybody can mean for one sandbox.
const MOST_GPUS: u32 = 64;

/// What a service asks for, exactly. Sandboxes have whole cores and GiB, but what several services share is rounded once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Billionths of a core.
    pub(crate) cores: Option<u64>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Devices.
    pub(crate) gpus: Option<u32>,
}

impl Asked {
    /// What both ask for together.
    pub(crate) fn and(self, other: &Self) -> Self {
        fn sum<T>(one: Option<T>, other: Option<T>, add: fn(T, T) -> T) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(add(one, other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            cores: sum(self.cores, other.cores, u64::saturating_add),
            memory: sum(self.memory, other.memory, u64::saturating_add),
            gpus: sum(self.gpus, other.gpus, u32::saturating_add),
        }
    }

    /// Cores and GiB rounded up.
    pub(crate) fn whole(&self) -> Resources {
        Resources {
            cpu: self.cores.map(whole_cores),
            memory: self.memory.map(whole_gib),
            disk: None,
            gpu: self.gpus,
            gpu_types: Vec::new(),
        }
    }
}

/// What a service asks for: limits before reservations before the keys of version 2.
pub(crate) fn read(reading: &mut Reading<'_>, service: &Mapping) -> Read<Asked> {
    let empty = Mapping::default();
    let mut limits = &empty;
    let mut reservations = &empty;
    if let Some(node) = service.get("deploy") {
        let deploy = node.mapping("deploy")?;
        reading.check_keys(deploy, DEPLOY, format_args!("deploy"))?;
        only_one(deploy.get("replicas"), "replicas")?;
        if let Some(node) = deploy.get("resources") {
            let resources = node.mapping("resources")?;
            known(resources, "resources", &["limits", "reservations"])?;
            if let Some(node) = resources.get("limits") {
                limits = node.mapping("limits")?;
                known(limits, "limits", &["cpus", "memory", "pids"])?;
            }
            if let Some(node) = resources.get("reservations") {
                reservations = node.mapping("reservations")?;
                known(reservations, "reservations", &["cpus", "memory", "devices", "generic_resources"])?;
            }
        }
    }
    only_one(service.get("scale"), "scale")?;
    for (mapping, key) in [(limits, "pids"), (reservations, "generic_resources")] {
        if let Some(entry) = mapping.entry(key)
            && !reading.multi
        {
            reading.warn(&entry.place, format!("`{key}` of deploy has no effect in a sandbox"));
        }
    }
    Ok(Asked {
        cores: first(&[(limits, "cpus"), (reservations, "cpus"), (service, "cpus")], cores)?,
        memory: first(
            &[
                (limits, "memory"),
                (reservations, "memory"),
                (service, "mem_limit"),
                (service, "mem_reservation"),
            ],
            memory,
        )?,
        gpus: gpus(reading, reservations.get("devices"), service.get("gpus"))?,
    })
}

/// The first of the keys that says something. All are read, so that none is wrong unnoticed.
fn first(keys: &[(&Mapping, &str)], read: impl Fn(&Node, &str) -> Read<Option<u64>>) -> Read<Option<u64>> {
    let mut found = None;
    for (mapping, key) in keys {
        if let Some(node) = mapping.get(key) {
            found = found.or(read(node, key)?);
        }
    }
    Ok(found)
}

fn gpus(reading: &mut Reading<'_>, devices: Option<&Node>, short: Option<&Node>) -> Read<Option<u32>> {
    let mut total = 0;
    if let Some(node) = devices {
        for device in node.sequence("devices")? {
            total += device_count(reading, device, true)?;
        }
    }
    match short {
        Some(node) if matches!(node.value, Value::Scalar(_)) => {
            if node.text("gpus")? != "all" {
                return Err(node.problem("`gpus` must be `all` or a list of devices"));
            }
            total += all(reading, node);
        }
        Some(node) => {
            for device in node.sequence("gpus")? {
                total += device_count(reading, device, false)?;
            }
        }
        None => {}
    }
    match devices.or(short) {
        Some(node) if total > MOST_GPUS => {
            Err(node.problem(format!("{total} GPUs are more than a sandbox can have")))
        }
        _ => Ok((total > 0).then_some(total)),
    }
}

fn device_count(reading: &mut Reading<'_>, node: &Node, needs_capabilities: bool) -> Read<u32> {
    let device = node.mapping("devices")?;
    known(device, "devices", &["capabilities", "count", "device_ids", "driver", "options"])?;
    let capabilities = match device.get("capabilities") {
        Some(node) => node.texts("capabilities")?,
        None if needs_capabilities => {
            return Err(node.problem("a device needs `capabilities`, for example [gpu]"));
        }
        None => vec!["gpu".to_owned()],
    };
    if !capabilities.iter().any(|capability| matches!(capability.as_str(), "gpu" | "nvidia")) {
        return Err(node.problem("only GPUs can be reserved: `capabilities` must contain gpu"));
    }
    if let Some(entry) = device.entry("options").filter(|entry| !entry.value.is_void()) {
        reading.warn(&entry.place, "`options` of a GPU have no effect");
    }
    // an empty list names none, so it says nothing
    match (device.get("count"), device.get("device_ids").filter(|ids| !ids.is_void())) {
        (Some(count), Some(_)) => Err(count.problem("`count` and `device_ids` exclude each other")),
        (Some(count), None) if matches!(count.text("count")?, "all" | "-1") => Ok(all(reading, count)),
        (Some(count), None) => count.integer("count", 0, MOST_GPUS),
        (None, Some(ids)) => Ok(u32::try_from(ids.texts("device_ids")?.len()).unwrap_or(MOST_GPUS + 1)),
        (None, None) => Ok(all(reading, node)),
    }
}

/// GPUs that are named in other words than how many there are to be.
pub(crate) fn check_gpus(
    reading: &mut Reading<'_>,
    services: &[&Entry],
    settings: &XDaytona,
    setting: Option<&Node>,
    asked: &Resources,
) -> Read<()> {
    if settings.snapshot.is_some() || asked.gpu.is_some_and(|count| count > 0) {
        return Ok(());
    }
    if !asked.gpu_types.is_empty()
        && let Some(setting) = setting
    {
        let mapping = setting.mapping("x-daytona")?;
        let inner = mapping.get("resources").map(|node| node.mapping("resources")).transpose()?;
        let place = mapping.entry("gpu_type").or(inner.and_then(|inner| inner.entry("gpu_type")));
        let place = place.map_or(&setting.place, |entry| &entry.place);
        return Err(Problem::at(place, "`gpu_type` has no effect without a GPU")
            .hint("Say how many with `x-daytona.resources.gpu`, or reserve them in the service"));
    }
    for service in services {
        let runtime = service.value.mapping(&service.key)?.get("runtime");
        if let Some(node) =
            runtime.filter(|node| !reading.multi && node.text("runtime").is_ok_and(|it| it == "nvidia"))
        {
            reading.warn(
                &node.place,
                "`runtime: nvidia` gives a sandbox no GPU: reserve it with `gpus`, `deploy.resources` or \
                 `x-daytona.resources.gpu`",
            );
        }
    }
    Ok(())
}

/// A sandbox has no machine whose GPUs could all be meant, so one is asked for.
fn all(reading: &mut Reading<'_>, node: &Node) -> u32 {
    reading.warn(&node.place, "all GPUs of a machine are taken as 1: set `x-daytona.resources.gpu` for more");
    1
}

fn only_one(node: Option<&Node>, key: &str) -> Read<()> {
    match node {
        Some(node) if node.text(key)? != "1" => {
            Err(node.problem(format!("`{key}` can only be 1: an environment is one container")))
        }
        _ => Ok(()),
    }
}

fn known(mapping: &Mapping, section: &str, keys: &[&'static str]) -> Read<()> {
    match mapping.iter().find(|entry| !keys.contains(&entry.key.as_str()) && !entry.key.starts_with("x-")) {
        Some(entry) => Err(unknown_key(&entry.key, &entry.place, section, keys.iter().copied())),
        None => Ok(()),
    }
}
