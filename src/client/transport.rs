//! One attempt at one request: connections, headers, deadlines and whole bodies. No policy.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::multipart::Multipart;
use super::options::{Credentials, is_loopback};
use super::retry::Failure;
use crate::api::headers;
use crate::api::routes::Route;
use crate::{Error, ErrorKind, Result};

/// A name may resolve to an address that drops packets; a healthy handshake takes well under a second anywhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the 70 s after which Daytona's proxies close idle connections, so that none is used as it is being closed.
const POOL_IDLE: Duration = Duration::from_secs(55);
/// Detects peers that vanished without a word, well before the deadline of a request.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes that have begun to come keep coming: Daytona flushes every 100 ms.
const READ_IDLE: Duration = Duration::from_secs(30);
/// An answer in JSON larger than this is a mistake; the largest are command results, a few times Inspect's 10 MiB.
pub(super) const JSON_LIMIT: u64 = 128 << 20;
/// The version of Daytona's API that the types of [`crate::api`] were written from. The server reads it as the age
/// of the caller's SDK and answers older ones in obsolete formats, so the crate's own version would be wrong here.
const API_LEVEL: &str = "0.205.1";
const SOURCE: &str = "inspect-daytona";

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether a body that was cut would have been noticed. HTTP/1 can end a body by closing the connection.
    pub(super) delimited: bool,
}

/// What is sent besides the route.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    /// The route's own body, or none.
    Route,
    /// Files.
    Files(&'a Multipart),
}

/// How requests share connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Many at a time on one, where the server speaks HTTP/2: for short requests.
    Multiplexed,
    /// One at a time on each, by HTTP/1.1: for requests that are silent until a command ends. Fronts bound the
    /// streams of a connection, often at 100, and further requests would wait for others to end.
    Exclusive,
}

/// Sends requests; owns the connections.
pub(super) struct Transport {
    /// Never through a proxy, and without reading certificates where the server speaks plain HTTP.
    loopback: Clients,
    /// Through the system's proxies, trusting what the system trusts.
    network: Clients,
    loopback_tls: bool,
    headers: HeaderMap,
    secret: secrecy::SecretString,
}

#[derive(Default)]
struct Clients {
    multiplexed: OnceLock<reqwest::Client>,
    exclusive: OnceLock<reqwest::Client>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn new(api_url: &Url, credentials: &Credentials) -> Result<Self> {
        let (secret, organization) = match credentials {
            Credentials::ApiKey(key) => (key, None),
            Credentials::Jwt { token, organization_id } => (token, Some(organization_id)),
        };
        let unprintable = |what| {
            Error::new(ErrorKind::InvalidConfig, format!("{what} holds characters that HTTP cannot carry"))
        };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret()))
            .map_err(|_| unprintable("the Daytona API key or token"))?;
        authorization.set_sensitive(true);
        let mut map = HeaderMap::new();
        map.insert(AUTHORIZATION, authorization);
        map.insert(HeaderName::from_static(headers::SOURCE), HeaderValue::from_static(SOURCE));
        map.insert(HeaderName::from_static(headers::SDK_VERSION), HeaderValue::from_static(API_LEVEL));
        map.insert(http::header::ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"));
        if let Some(organization) = organization {
            let value =
                HeaderValue::from_str(organization).map_err(|_| unprintable("the organization's id"))?;
            map.insert(HeaderName::from_static(headers::ORGANIZATION), value);
        }
        Ok(Self {
            loopback: Clients::default(),
            network: Clients::default(),
            loopback_tls: api_url.scheme() == "https",
            headers: map,
            secret: secret.clone(),
        })
    }

    /// Hides the credential in a text from elsewhere, such as a proxy that repeats what it was sent.
    pub(super) fn redact(&self, text: &str) -> String {
        let secret = self.secret.expose_secret();
        if secret.is_empty() { text.to_owned() } else { text.replace(secret, "[redacted]") }
    }

    fn client(&self, url: &Url, sharing: Sharing) -> Result<&reqwest::Client> {
        let loopback = is_loopback(url);
        let clients = if loopback { &self.loopback } else { &self.network };
        let slot = match sharing {
            Sharing::Multiplexed => &clients.multiplexed,
            Sharing::Exclusive => &clients.exclusive,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = build(loopback, self.loopback_tls, sharing, self.headers.clone())?;
        Ok(slot.get_or_init(|| client))
    }

    /// A client for a server that is not Daytona and must not see our key.
    pub(super) fn stranger(url: &Url) -> Result<reqwest::Client> {
        build(is_loopback(url), url.scheme() == "https", Sharing::Exclusive, HeaderMap::new())
    }

    /// Sends a request and returns once the answer's head is there.
    pub(super) async fn send(
        &self,
        sharing: Sharing,
        base: &str,
        route: &Route,
        payload: Payload<'_>,
    ) -> Result<reqwest::Response, Failure> {
        let url = Url::parse(&format!("{base}{}", route.path)).map_err(|error| {
            Failure::refused(
                Error::new(ErrorKind::Protocol, "the server gave a malformed toolbox URL").with_source(error),
            )
        })?;
        let mut request =
            self.client(&url, sharing).map_err(Failure::refused)?.request(route.method.clone(), url.clone());
        match (payload, &route.body) {
            (Payload::Files(files), _) => {
                request = request
                    .header(CONTENT_TYPE, files.content_type())
                    .header(CONTENT_LENGTH, files.length())
                    .body(reqwest::Body::wrap_stream(files.stream()));
            }
            (Payload::Route, Some(body)) => {
                request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
            }
            (Payload::Route, None) => {}
        }
        request.send().await.map_err(|error| disconnected(&url, error))
    }

    /// Reads the whole body, refusing one of more than `limit` bytes as soon as that is known.
    pub(super) async fn read(response: reqwest::Response, limit: u64) -> Result<Bytes, Failure> {
        let url = response.url().clone();
        let expected =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let too_large = || {
            Failure::refused(Error::new(ErrorKind::OutputLimit, format!("more than {limit} bytes came back")))
        };
        if expected.is_some_and(|expected: u64| expected > limit) {
            return Err(too_large());
        }
        let mut chunks = response.bytes_stream();
        let mut first = None;
        let mut body = BytesMut::new();
        let mut length: u64 = 0;
        loop {
            let chunk = match timeout(READ_IDLE, chunks.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Err(disconnected(&url, error)),
                Err(_) => return Err(cut(&url, "the answer stopped coming", length, expected)),
            };
            length += chunk.len() as u64;
            if length > limit {
                return Err(too_large());
            }
            // most answers are one chunk, which then need not be copied
            match first.take() {
                None if body.is_empty() => first = Some(chunk),
                None => body.extend_from_slice(&chunk),
                Some(earlier) => {
                    body.reserve(usize::try_from(expected.unwrap_or(0)).unwrap_or(0));
                    body.extend_from_slice(&earlier);
                    body.extend_from_slice(&chunk);
                }
            }
        }
        if expected.is_some_and(|expected| expected != length) {
            return Err(cut(&url, "the answer ended early", length, expected));
        }
        Ok(first.unwrap_or_else(|| body.freeze()))
    }
}

fn unusable(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::new(ErrorKind::System, format!("no HTTPS client could be made: {}", chain(error)))
        .with_hint("Install the system's certificates, for example the package ca-certificates")
}

fn cut(url: &Url, what: &str, length: u64, expected: Option<u64>) -> Failure {
    let of = expected.map_or(String::new(), |expected| format!(" of {expected}"));
    let message = format!("{what} after {length}{of} bytes from {}", authority(url));
    Failure::ambiguous(Error::new(ErrorKind::Transport, message).temporary())
}

/// An error of the connection, without the URL: queries hold paths and signatures.
pub(super) fn disconnected(url: &Url, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let reason = chain(&error);
    let host = authority(url);
    if !error.is_connect() {
        let message = format!("the connection to {host} failed: {reason}");
        return Failure::ambiguous(Error::new(ErrorKind::Transport, message).temporary().with_source(error));
    }
    let certificate = reason.contains("certificate") || reason.contains("UnknownIssuer");
    let (hint, temporary) = if certificate {
        (
            "Its certificate is not trusted on this machine: check DAYTONA_API_URL and the system's certificates",
            false,
        )
    } else if is_loopback(url) {
        ("Check DAYTONA_API_URL and that the server is running", true)
    } else {
        ("Check DAYTONA_API_URL, the network and the proxy settings (HTTPS_PROXY, NO_PROXY)", true)
    };
    let mut error = Error::new(ErrorKind::Transport, format!("{host} cannot be reached: {reason}"))
        .with_hint(hint)
        .with_source(error);
    if temporary {
        error = error.temporary();
    }
    Failure::refused(error)
}

/// `loopback_tls`: whether a server of this machine speaks TLS.
fn build(
    loopback: bool,
    loopback_tls: bool,
    sharing: Sharing,
    headers: HeaderMap,
) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("inspect-daytona/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        // a redirect turns POST into GET, and no route of Daytona's has one
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEP_ALIVE);
    builder = match sharing {
        Sharing::Multiplexed => {
            builder.http2_keep_alive_interval(KEEP_ALIVE).http2_keep_alive_timeout(KEEP_ALIVE)
        }
        Sharing::Exclusive => builder.http1_only(),
    };
    if loopback {
        builder = builder.no_proxy();
    }
    let provider = rustls::crypto::ring::default_provider();
    if loopback && !loopback_tls {
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder = builder.tls_backend_preconfigured(tls);
    } else {
        // reqwest asks for the process's provider; one that is already there is as good
        let _ = provider.install_default();
    }
    builder.build().map_err(|error| unusable(&error))
}

/// Host and port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The inner causes, since the outer ones ("error sending request", "client error (Connect)") only say that a
/// request failed.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        cause = inner.source();
    }
    let vague = texts
        .iter()
        .take_while(|text| text.starts_with("error ") || text.starts_with("client error"))
        .count();
    texts.drain(..vague.min(texts.len() - 1));
    texts.join(": ")
}
