//! `healthcheck`.

use std::time::Duration;

use super::keys::HEALTHCHECK;
use super::node::{Mapping, Node, Value};
use super::plan::{HealthTest, Healthcheck};
use super::problem::Read;
use super::reading::Reading;
use super::units::duration;

/// The service's healthcheck; nothing where it is absent or disabled.
pub(crate) fn read(reading: &mut Reading<'_>, service: &Mapping) -> Read<Option<Healthcheck>> {
    let Some(node) = service.get("healthcheck") else { return Ok(None) };
    let mapping = node.mapping("healthcheck")?;
    reading.check_keys(mapping, HEALTHCHECK, format_args!("healthcheck"))?;
    let time = |key: &str, default: u64| match mapping.get(key) {
        Some(node) => duration(node, key),
        None => Ok(Duration::from_secs(default)),
    };
    let interval = or_default(time("interval", 30)?, 30);
    let timeout = or_default(time("timeout", 30)?, 30);
    let start_period = time("start_period", 0)?;
    let start_interval = or_default(time("start_interval", 5)?, 5);
    let retries = match mapping.get("retries") {
        Some(node) => node.integer("retries", 0, 1_000_000)?,
        None => 3,
    };
    let retries = if retries == 0 { 3 } else { retries };
    if let Some(node) = mapping.get("disable")
        && node.boolean("disable")?
    {
        return Ok(None);
    }
    let test = match mapping.get("test") {
        Some(node) => test(node)?,
        None if reading.multi => None,
        None => {
            return Err(node
                .problem("`healthcheck` needs a `test`")
                .hint("Times without a test change the image's own check, which a sandbox does not run"));
        }
    };
    Ok(test.map(|test| Healthcheck { test, interval, timeout, retries, start_period, start_interval }))
}

/// Docker reads 0 as its default.
fn or_default(duration: Duration, default: u64) -> Duration {
    if duration.is_zero() { Duration::from_secs(default) } else { duration }
}

fn test(node: &Node) -> Read<Option<HealthTest>> {
    if let Value::Scalar(line) = &node.value {
        return match line.as_str() {
            "" => Err(node.problem("`test` is empty")),
            line => Ok(Some(HealthTest::Shell(line.to_owned()))),
        };
    }
    let items = node.texts("test")?;
    match items.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("NONE", _)) => Ok(None),
        Some(("CMD", rest)) if !rest.is_empty() => Ok(Some(HealthTest::Command(rest.to_vec()))),
        Some(("CMD-SHELL", [line])) => Ok(Some(HealthTest::Shell(line.clone()))),
        _ => Err(node.problem("`test` must be a line, or a list that begins with CMD, CMD-SHELL or NONE")),
    }
}
