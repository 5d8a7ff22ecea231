//! Where Daytona is and who we are: the settings of a client, from the environment or from code.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

use super::retry::RetryPolicy;
use crate::{Error, ErrorKind, Result};

/// Where Daytona is when nothing else is said.
pub const DEFAULT_API_URL: &str = "https://app.daytona.io/api";
/// The value of `DAYTONA_API_URL` that asks for the embedded Daytona.
pub const LOCAL: &str = "local";

const API_KEY: &str = "DAYTONA_API_KEY";
const API_URL: &str = "DAYTONA_API_URL";
const SERVER_URL: &str = "DAYTONA_SERVER_URL";
const TARGET: &str = "DAYTONA_TARGET";
const JWT_TOKEN: &str = "DAYTONA_JWT_TOKEN";
const ORGANIZATION_ID: &str = "DAYTONA_ORGANIZATION_ID";

/// Who asks.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// An API key; it belongs to exactly one organization.
    ApiKey(SecretString),
    /// A user's token, which needs to know the organization.
    Jwt {
        /// The token.
        token: SecretString,
        /// The organization's id.
        organization_id: String,
    },
}

/// What happened on the wire in one attempt; see [`ClientOptions::observer`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Observation<'a> {
    /// The operation, for example `create sandbox`.
    pub operation: &'static str,
    /// The HTTP status; none where no answer came.
    pub status: Option<u16>,
    /// How long the answer's head took.
    pub elapsed: Duration,
    /// Pairs of throttler and requests left in its window, from `X-RateLimit-Remaining-<throttler>`.
    pub remaining: &'a [(String, u64)],
}

/// Called after each attempt; it must return at once.
pub type Observer = Arc<dyn Fn(&Observation<'_>) + Send + Sync>;

/// The settings of a [`Client`](super::Client).
#[derive(Clone)]
pub struct ClientOptions {
    /// The API's base, including `/api`, without a trailing slash.
    pub api_url: Url,
    /// Who asks.
    pub credentials: Credentials,
    /// The region for new sandboxes; the organization's default where absent.
    pub target: Option<String>,
    /// How failures are repeated.
    pub retry: RetryPolicy,
    /// Sees every attempt: the hook for a limit on concurrency that follows the account.
    pub observer: Option<Observer>,
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("api_url", &self.api_url.as_str())
            .field("credentials", &self.credentials)
            .field("target", &self.target)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// What the environment asks for.
#[derive(Clone, Debug)]
pub enum Environment {
    /// `DAYTONA_API_URL=local`: the caller starts the embedded Daytona and makes [`ClientOptions::new`] from its URL
    /// and key. Credentials in the environment are not for it and were not read.
    Local {
        /// The region for new sandboxes.
        target: Option<String>,
    },
    /// A Daytona server.
    Daytona(ClientOptions),
}

impl ClientOptions {
    /// Settings for the server at `api_url`, with default retries.
    ///
    /// # Errors
    /// `InvalidConfig` if the URL is not an HTTP URL, or has a user name, query or fragment.
    pub fn new(api_url: &str, credentials: Credentials) -> Result<Self> {
        Ok(Self {
            api_url: parse_api_url(api_url)?,
            credentials,
            target: None,
            retry: RetryPolicy::default(),
            observer: None,
        })
    }

    /// Whether the environment asks for the embedded Daytona; see [`from_env`](Self::from_env).
    pub fn is_local(lookup: impl Fn(&str) -> Option<String>) -> bool {
        api_url(lookup).eq_ignore_ascii_case(LOCAL)
    }

    /// Reads `DAYTONA_API_URL`, `DAYTONA_API_KEY` (or `DAYTONA_JWT_TOKEN` with `DAYTONA_ORGANIZATION_ID`) and
    /// `DAYTONA_TARGET` through `lookup`. Space around values is dropped and an empty value counts as missing, as
    /// both come from shell scripts and CI settings. With both a key and a token the key is used.
    ///
    /// # Errors
    /// `InvalidConfig` if there is no credential, a token without an organization, or a malformed URL.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Environment> {
        if read(&lookup, API_URL).is_none() && read(&lookup, SERVER_URL).is_some() {
            tracing::warn!("{SERVER_URL} is deprecated; set {API_URL} instead");
        }
        let target = read(&lookup, TARGET);
        if Self::is_local(&lookup) {
            return Ok(Environment::Local { target });
        }
        let api_url = api_url(&lookup);
        let read = |name| read(&lookup, name);
        let credentials = if let Some(key) = read(API_KEY) {
            Credentials::ApiKey(key.into())
        } else if let Some(token) = read(JWT_TOKEN) {
            let organization_id = read(ORGANIZATION_ID).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    format!("{JWT_TOKEN} is set, but {ORGANIZATION_ID} is not, and a token needs both"),
                )
            })?;
            Credentials::Jwt { token: token.into(), organization_id }
        } else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "{API_KEY} is not set: create a key in the Daytona dashboard and export it, or run without an \
                     account on this machine with {API_URL}={LOCAL}"
                ),
            ));
        };
        Ok(Environment::Daytona(Self { target, ..Self::new(&api_url, credentials)? }))
    }
}

fn read(lookup: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn api_url(lookup: impl Fn(&str) -> Option<String>) -> String {
    let url = read(&lookup, API_URL).or_else(|| read(&lookup, SERVER_URL));
    url.unwrap_or_else(|| DEFAULT_API_URL.to_owned())
}

fn parse_api_url(text: &str) -> Result<Url> {
    let refuse = |why: &str| {
        let hint = format!("Set {API_URL} to a URL such as {DEFAULT_API_URL}, or to {LOCAL:?}");
        Error::new(ErrorKind::InvalidConfig, format!("the URL of the Daytona API {why}")).with_hint(hint)
    };
    // the text itself is not repeated, since it may hold a password
    let mut url = Url::parse(text.trim()).map_err(|error| refuse(&format!("is malformed ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("holds a user name or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("holds a query or fragment"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    warn_if_plain(&url);
    Ok(url)
}

/// Plain HTTP to another machine shows the key to the network; some people do that inside a VPN.
pub(super) fn warn_if_plain(url: &Url) {
    if url.scheme() == "http" && !is_loopback(url) {
        tracing::warn!(
            "{} is reached by plain http: the Daytona API key can be read on the network",
            url.host_str().unwrap_or_default()
        );
    }
}

/// Whether a URL stays on this machine. `*.localhost` is loopback by RFC 6761; Daytona's own development setup
/// uses `proxy.localhost`.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<std::net::IpAddr>().map_or_else(
        |_| host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
        |address| address.is_loopback(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment> {
        let pairs: std::collections::HashMap<_, _> = pairs.iter().copied().collect();
        ClientOptions::from_env(|name| pairs.get(name).map(|value| (*value).to_owned()))
    }

    fn daytona(pairs: &[(&str, &str)]) -> ClientOptions {
        match read(pairs).unwrap() {
            Environment::Daytona(options) => options,
            Environment::Local { .. } => panic!("local"),
        }
    }

    #[test]
    fn a_key_is_enough() {
        let options = daytona(&[("DAYTONA_API_KEY", " dtn_secret \n"), ("DAYTONA_TARGET", "eu")]);
        assert_eq!(options.api_url.as_str(), DEFAULT_API_URL);
        assert_eq!(options.target.as_deref(), Some("eu"));
        assert!(!format!("{options:?}").contains("dtn_secret"));
    }

    #[test]
    fn a_missing_key_is_one_sentence_that_says_how_to_run_without() {
        let error = read(&[("DAYTONA_API_KEY", "  ")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("DAYTONA_API_KEY is not set"), "{error}");
        assert!(error.to_string().contains("DAYTONA_API_URL=local"), "{error}");
    }

    #[test]
    fn local_needs_no_key_and_is_left_to_the_caller() {
        let environment = read(&[("DAYTONA_API_URL", " Local ")]).unwrap();
        assert!(matches!(environment, Environment::Local { target: None }));
        let environment = read(&[("DAYTONA_SERVER_URL", "local")]).unwrap();
        assert!(matches!(environment, Environment::Local { .. }));
        let both = [("DAYTONA_API_URL", "https://h/api"), ("DAYTONA_SERVER_URL", "local")];
        let error = read(&both).unwrap_err();
        assert!(error.to_string().contains("DAYTONA_API_KEY is not set"), "the newer name wins: {error}");
    }

    #[test]
    fn a_token_needs_its_organization_and_a_key_wins_over_it() {
        let error = read(&[("DAYTONA_JWT_TOKEN", "eyJ")]).unwrap_err();
        assert!(error.to_string().contains("DAYTONA_ORGANIZATION_ID"), "{error}");
        let jwt = [("DAYTONA_JWT_TOKEN", "eyJ"), ("DAYTONA_ORGANIZATION_ID", "o")];
        assert!(
            matches!(daytona(&jwt).credentials, Credentials::Jwt { organization_id, .. } if organization_id == "o")
        );
        let both = [jwt[0], jwt[1], ("DAYTONA_API_KEY", "k")];
        assert!(matches!(daytona(&both).credentials, Credentials::ApiKey(_)));
    }

    #[test]
    fn urls_that_cannot_be_meant_are_refused_without_repeating_them() {
        for url in [
            "app.daytona.io/api",
            "ftp://h/api",
            "https://u:hunter2@h/api",
            "https://h/api?hunter2",
            "http://",
        ] {
            let error = read(&[("DAYTONA_API_KEY", "k"), ("DAYTONA_API_URL", url)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let trimmed = daytona(&[("DAYTONA_API_KEY", "k"), ("DAYTONA_API_URL", "https://h/api//")]);
        assert_eq!(trimmed.api_url.as_str(), "https://h/api");
    }

    #[test]
    fn loopback_is_recognised_by_address_and_name() {
        for (url, expected) in [
            ("http://127.0.0.1:1/", true),
            ("http://[::1]:1/", true),
            ("http://proxy.localhost:4000/toolbox", true),
            ("http://localhost.example.org/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
