//! Where a compose file takes numbers and booleans, so that `0755` without quotes is octal there and a text elsewhere.

use serde_json::{Number, Value as Json};

use super::node::{Node, Value};

/// Below a service, by Compose's schema. `*` is any key, `[]` any item.
const PLACES: &[&str] = &[
    "blkio_config.*",
    "blkio_config.*.[].rate",
    "blkio_config.*.[].weight",
    "build.no_cache",
    "build.privileged",
    "build.pull",
    "build.secrets.[].mode",
    "build.shm_size",
    "build.ulimits.*",
    "build.ulimits.*.*",
    "configs.[].mode",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpus",
    "depends_on.*.required",
    "depends_on.*.restart",
    "deploy.placement.max_replicas_per_node",
    "deploy.replicas",
    "deploy.resources.limits.cpus",
    "deploy.resources.limits.pids",
    "deploy.resources.reservations.cpus",
    "deploy.resources.reservations.devices.[].count",
    "deploy.resources.reservations.generic_resources.[].discrete_resource_spec.value",
    "deploy.restart_policy.max_attempts",
    "deploy.rollback_config.max_failure_ratio",
    "deploy.rollback_config.parallelism",
    "deploy.update_config.max_failure_ratio",
    "deploy.update_config.parallelism",
    "expose.[]",
    "gpus.[].count",
    "group_add.[]",
    "healthcheck.disable",
    "healthcheck.retries",
    "init",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "networks.*.gw_priority",
    "networks.*.priority",
    "networks.*.use_service_name_alias",
    "oom_kill_disable",
    "oom_score_adj",
    "pids_limit",
    "ports.[]",
    "ports.[].published",
    "ports.[].target",
    "post_start.[].privileged",
    "pre_stop.[].privileged",
    "privileged",
    "read_only",
    "scale",
    "secrets.[].mode",
    "shm_size",
    "stdin_open",
    "tty",
    "ulimits.*",
    "ulimits.*.*",
    "umask",
    "use_api_socket",
    "volumes.[].bind.create_host_path",
    "volumes.[].read_only",
    "volumes.[].tmpfs.*",
    "volumes.[].volume.nocopy",
];

/// The number or boolean that a scalar without quotes is as YAML, where the file takes one at this path below a service.
pub(crate) fn typed(node: &Node, path: &[&str]) -> Option<Json> {
    let Value::Scalar(text) = &node.value else { return None };
    let boolean = match text.as_str() {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    };
    let json = match (boolean, node.plain_integer()) {
        (Some(boolean), _) => Json::Bool(boolean),
        (_, Some(number)) => Json::from(number),
        _ => Json::Number(fraction(text)?),
    };
    (node.plain && PLACES.iter().any(|place| is_at(place, path))).then_some(json)
}

fn is_at(place: &str, path: &[&str]) -> bool {
    let mut parts = place.split('.');
    path.iter().all(|key| parts.next().is_some_and(|part| part == "*" || part == *key))
        && parts.next().is_none()
}

/// A number with a point or an exponent. A leading 0 that is not octal, as in `08`, is one of those.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
fn fraction(text: &str) -> Option<Number> {
    let is_digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !text.contains(|c: char| c.is_ascii_digit()) || !text.chars().all(is_digits) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Place;

    fn read(text: &str, path: &[&str]) -> Option<Json> {
        let place = Place::text(1, 1);
        typed(&Node { place, value: Value::Scalar(text.to_owned()), plain: true }, path)
    }

    #[test]
    fn numbers_are_those_of_yaml_where_numbers_are_taken() {
        for (text, number) in [
            ("0755", 493),
            ("0o755", 493),
            ("0x10", 16),
            ("0b11", 3),
            ("-0x10", -16),
            ("+5", 5),
            ("1_000", 1000),
            ("08", 8),
            ("1e3", 1000),
            ("10", 10),
        ] {
            assert_eq!(read(text, &["pids_limit"]), Some(number.into()), "{text}");
            assert_eq!(read(text, &["user"]), None, "{text}");
        }
        assert_eq!(read(".5", &["cpus"]), Some(Json::from(0.5)));
        assert_eq!(read("0x10", &["ulimits", "nofile", "soft"]), Some(16.into()));
        assert_eq!(read("0x10", &["ulimits", "nofile", "soft", "more"]), None);
        for text in ["22:22", "1.2.3", "0o9", "0x", "-", "8000-8002", "1g"] {
            assert_eq!(read(text, &["ports", "[]"]), None, "{text}");
        }
        assert_eq!(read("True", &["tty"]), Some(true.into()));
        assert_eq!(read("True", &["hostname"]), None);
    }
}
