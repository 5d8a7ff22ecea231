//! Checks of single fields.

use std::collections::BTreeMap;

use super::error::{ApiError, ApiResult};
use crate::api::snapshot::BuildInfo;

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

/// Allow lists, which no engine enforces yet; leaving one out would open the network further than was asked.
pub(super) fn no_lists(networks: Option<&str>, domains: Option<&str>) -> ApiResult<()> {
    for (list, field) in [(networks, "networkAllowList"), (domains, "domainAllowList")] {
        if list.is_some_and(|list| !list.trim().is_empty()) {
            return Err(ApiError::bad_request(format!(
                "Local Daytona does not support {field}; it can block all network access (networkBlockAll) or none"
            )));
        }
    }
    Ok(())
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
