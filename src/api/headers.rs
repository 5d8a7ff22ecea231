//! Header names that carry meaning between a client and Daytona.

/// Which program calls, for example `sdk-python-async`.
pub const SOURCE: &str = "x-daytona-source";
/// The caller's version; it changes the shape of session output (0.167 and later: streams split by the server).
pub const SDK_VERSION: &str = "x-daytona-sdk-version";
/// The organization, sent with a JWT only; an API key belongs to exactly one.
pub const ORGANIZATION: &str = "x-daytona-organization-id";
/// The server's version, on every answer of the control plane.
pub const API_VERSION: &str = "x-daytona-api-version";
/// `true`: the request does not count as activity (auto-stop goes on counting).
pub const SKIP_ACTIVITY: &str = "x-daytona-skip-last-activity-update";
/// Credential of a preview URL, instead of a bearer token.
pub const PREVIEW_TOKEN: &str = "x-daytona-preview-token";
/// Prefix of the wait that a throttler asks for: `Retry-After` or `Retry-After-<throttler>`, in seconds.
pub const RETRY_AFTER_PREFIX: &str = "retry-after";
