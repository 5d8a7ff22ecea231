//! Configuration of the server, API keys, regions.

use serde::{Deserialize, Serialize};

/// `GET /config`: public facts about a server. Only what somebody here reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    /// The server's version.
    pub version: String,
    /// The snapshot used when a create request names none.
    pub default_snapshot: String,
    /// Base of toolbox URLs, where the sandbox does not carry one.
    pub proxy_toolbox_url: Option<String>,
}

/// `GET /api-keys/current`: the key that made the request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CurrentApiKey {
    /// The key's name.
    pub name: String,
    /// The masked key.
    pub value: String,
    /// When it was made, RFC 3339.
    pub created_at: Option<String>,
    /// Its permissions, for example `write:sandboxes`, `delete:sandboxes`.
    pub permissions: Vec<String>,
    /// When it was last used, RFC 3339.
    pub last_used_at: Option<String>,
    /// When it ends, RFC 3339.
    pub expires_at: Option<String>,
    /// Its owner.
    pub user_id: String,
}

/// An item of `GET /regions` and `GET /shared-regions`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Region {
    /// Id, used as `target`.
    pub id: String,
    /// Name.
    pub name: String,
    /// Owner; none for shared regions.
    pub organization_id: Option<String>,
    /// `shared`, `dedicated` or `custom`.
    pub region_type: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}
