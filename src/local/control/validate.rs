//! Checks of single fields.

use std::collections::BTreeMap;

use super::error::{ApiError, ApiResult};
use crate::api::snapshot::BuildInfo;
use crate::local::spec::{Access, Cidr};

/// A sandbox name: no HTML tags, URLs or control characters. Empty means the default.
pub(super) fn name(name: &str) -> ApiResult<()> {
    let lower = name.to_ascii_lowercase();
    let tag = name.split_once('<').is_some_and(|(_, rest)| rest.contains('>'));
    let url = lower.contains("://") || lower.contains("www.");
    if tag || url || name.chars().any(char::is_control) {
        return Err(ApiError::bad_request("name must not contain HTML tags, URLs or control characters"));
    }
    if name.len() > 255 {
        return Err(ApiError::bad_request("name must be shorter than or equal to 255 characters"));
    }
    Ok(())
}

/// A user name as the user database can hold it. Empty means the default.
pub(super) fn user(user: &str) -> ApiResult<()> {
    if user.contains(|character: char| {
        character.is_control() || character.is_whitespace() || ":/".contains(character)
    }) {
        return Err(ApiError::bad_request("user must be a user name"));
    }
    Ok(())
}

/// Environment variables that `execve` can pass on.
pub(super) fn environment(env: &BTreeMap<String, String>) -> ApiResult<()> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(ApiError::bad_request(format!("env: {name:?} is not a valid environment variable")));
        }
    }
    Ok(())
}

/// The most entries of an allow list.
const LISTED: usize = 10;

/// The entries of a comma-separated list of networks; none where it is absent or empty.
pub(super) fn networks(list: Option<&str>) -> ApiResult<Vec<Cidr>> {
    let network = |entry: &str| {
        Cidr::parse(entry).ok_or_else(|| {
            let message = "networkAllowList: expected an IPv4 network such as 10.0.0.0/8";
            ApiError::bad_request(format!("{message}, got {entry:?}"))
        })
    };
    entries(list, "networkAllowList")?.into_iter().map(network).collect()
}

/// The entries of a comma-separated list of host names; none where it is absent or empty.
pub(super) fn domains(list: Option<&str>) -> ApiResult<Vec<String>> {
    let domain = |entry: &str| {
        let name = entry.strip_prefix("*.").unwrap_or(entry);
        let label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len())
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            let message = "domainAllowList: expected a host name, optionally with `*.` in front";
            return Err(ApiError::bad_request(format!("{message}, got {entry:?}")));
        }
        Ok(entry.to_owned())
    };
    entries(list, "domainAllowList")?.into_iter().map(domain).collect()
}

fn entries<'a>(list: Option<&'a str>, field: &str) -> ApiResult<Vec<&'a str>> {
    let list = list.map(str::trim).filter(|list| !list.is_empty());
    let entries: Vec<&str> = list.map(|list| list.split(',').map(str::trim).collect()).unwrap_or_default();
    if entries.len() > LISTED {
        return Err(ApiError::bad_request(format!("{field}: at most {LISTED} entries are allowed")));
    }
    Ok(entries)
}

/// What the network settings of a sandbox let through; `None` where no list limits it.
pub(super) fn access(networks: Option<&str>, domains: Option<&str>) -> ApiResult<Option<Access>> {
    let (networks, domains) = (self::networks(networks)?, self::domains(domains)?);
    match (networks.is_empty(), domains.is_empty()) {
        (true, true) => Ok(None),
        (false, true) => Ok(Some(Access::Networks(networks))),
        (true, false) => Ok(Some(Access::Domains(domains))),
        (false, false) => Err(ApiError::bad_request(
            "networkAllowList and domainAllowList exclude each other; an empty string clears one",
        )),
    }
}

/// A build that says what to build.
pub(super) fn build(build: &BuildInfo) -> ApiResult<()> {
    if build.dockerfile_content.trim().is_empty() {
        return Err(ApiError::bad_request("buildInfo.dockerfileContent should not be empty"));
    }
    Ok(())
}

/// A snapshot name: path components of letters, digits and `_.-:`, optionally with a digest.
pub(super) fn snapshot_name(name: &str) -> ApiResult<()> {
    let (path, digest) =
        name.split_once("@sha256:").map_or((name, None), |(path, digest)| (path, Some(digest)));
    let hexadecimal = |digest: &str| {
        digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let component = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-:".contains(&byte))
    };
    if path.split('/').all(component) && digest.is_none_or(hexadecimal) {
        return Ok(());
    }
    Err(ApiError::bad_request(
        "name can only contain letters, numbers, underscores, dots, dashes, colons and slashes",
    ))
}

/// An image: it has a tag or digest, and the tag is not `latest`.
pub(super) fn image_name(image: &str) -> ApiResult<()> {
    if image.contains("@sha256:") {
        return Ok(());
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        Some((name, tag)) if !name.is_empty() && !tag.is_empty() => {
            if tag == "latest" {
                return Err(ApiError::bad_request("Images with tag \":latest\" are not allowed"));
            }
            Ok(())
        }
        _ => Err(ApiError::bad_request("Image name must include a tag (e.g., ubuntu:22.04) or digest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_markup_urls_or_control_characters_are_refused() {
        for good in ["", "inspect-task-1", "a<b", "x y", "ü", "1 < 2"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["<b>", "a</p>b", "http://x", "WWW.example.org", "a\nb", "\u{7f}"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn allow_lists_are_checked_entry_by_entry() {
        assert_eq!(access(None, Some(" ")).unwrap(), None);
        assert!(
            matches!(access(Some("10.0.0.0/8, 192.0.2.1/32"), None).unwrap(), Some(Access::Networks(list)) if list.len() == 2)
        );
        assert!(matches!(access(None, Some("*.example.org,a_b.test")).unwrap(), Some(Access::Domains(_))));
        let eleven = ["10.0.0.0/8"; 11].join(",");
        for bad in [&eleven, "10.0.0.1", "::/0", "10.0.0.0/8,,", "10.0.0.0/8;1.0.0.0/8"] {
            assert!(access(Some(bad), None).is_err(), "{bad}");
        }
        for bad in ["*", "a.*.b", "http://a.test", "a..b", "-a.test", "a b", "a.test/x", "10.0.0.0/8"] {
            assert!(access(None, Some(bad)).is_err(), "{bad}");
        }
        assert!(access(Some("10.0.0.0/8"), Some("a.test")).is_err());
    }

    #[test]
    fn snapshot_and_image_names_follow_the_servers_rules() {
        let digest = "a".repeat(64);
        for good in ["a", "daytonaio/sandbox:0.5.0-slim", &format!("a/b@sha256:{digest}")] {
            assert!(snapshot_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a//b", "/a", "a@sha256:abc", "ä"] {
            assert!(snapshot_name(bad).is_err(), "{bad}");
        }
        for good in ["python:3.12", "localhost:5000/a:1", &format!("a@sha256:{digest}")] {
            assert!(image_name(good).is_ok(), "{good}");
        }
        for bad in ["python", "python:latest", "localhost:5000/a", "a:"] {
            assert!(image_name(bad).is_err(), "{bad}");
        }
    }
}
