//! A server to test and a small HTTP client for it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use inspect_daytona::local::control::{Clock, LocalOptions, LocalServer, ManualClock, SystemClock};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::engine::FixtureEngine;

/// Guards against hangs; nothing here takes nearly as long.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Daytona {
    engine: Option<Arc<FixtureEngine>>,
    pub(crate) server: LocalServer,
    pub(crate) address: String,
    pub(crate) key: String,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_else(|| panic!("no message: {:?}", self.body)).to_owned()
    }

    /// The JSON body of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// An answer that must be a refusal with this status and text.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, text: &str) {
        let message = self.message();
        assert_eq!(self.status.as_u16(), status, "{message}");
        assert!(message.contains(text), "{message:?} does not contain {text:?}");
    }
}

impl Daytona {
    pub(crate) async fn start() -> Self {
        Self::with(LocalOptions::default(), Arc::new(SystemClock)).await
    }

    pub(crate) async fn with_clock() -> (Self, ManualClock) {
        let clock = ManualClock::new();
        (Self::with(LocalOptions::default(), Arc::new(clock.clone())).await, clock)
    }

    pub(crate) async fn with(options: LocalOptions, clock: Arc<dyn Clock>) -> Self {
        Self::with_engine(FixtureEngine::new(None), options, clock).await
    }

    /// One whose engine has no gateways.
    pub(crate) async fn without_gateway() -> Self {
        let engine = FixtureEngine::new(Some("the fixture has none"));
        Self::with_engine(engine, LocalOptions::default(), Arc::new(SystemClock)).await
    }

    async fn with_engine(engine: Arc<FixtureEngine>, options: LocalOptions, clock: Arc<dyn Clock>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server =
            LocalServer::start_with(options, Arc::clone(&engine) as _, directory.path().to_owned(), clock)
                .await
                .unwrap();
        Self::of(server, Some(engine), directory)
    }

    pub(crate) fn of(
        server: LocalServer,
        engine: Option<Arc<FixtureEngine>>,
        directory: tempfile::TempDir,
    ) -> Self {
        let address = server.url().trim_start_matches("http://").trim_end_matches("/api").to_owned();
        let key = server.api_key().expose_secret().to_owned();
        Self { engine, server, address, key, directory }
    }

    /// The engine, where it is the fixture.
    pub(crate) fn engine(&self) -> &Arc<FixtureEngine> {
        self.engine.as_ref().expect("the fixture engine")
    }

    /// Sends a request as it is and returns the answer's head.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        tokio::time::timeout(LIMIT, sender.send_request(request)).await.expect("an answer")
    }

    /// A request with the key. `body` null sends none.
    pub(crate) fn request(&self, method: Method, path: &str, body: &Value) -> Request<Full<Bytes>> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .unwrap()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn try_call(&self, request: Request<Full<Bytes>>) -> Result<Reply, hyper::Error> {
        let response = self.send(request).await?;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(LIMIT, body.collect()).await.expect("a whole answer")?;
        Ok(Reply { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Reply {
        self.try_call(self.request(method, path, &body)).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, Value::Null).await
    }

    /// Creates a sandbox that starts.
    pub(crate) async fn create(&self, body: Value) -> String {
        let sandbox = self.post("/api/sandbox", body).await.expect(200);
        assert_eq!(sandbox["state"], "started");
        sandbox["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a sandbox is in a state; `gone` means 404.
    pub(crate) async fn wait_for(&self, id: &str, state: &str) -> Value {
        until(state, || async {
            let reply = self.get(&format!("/api/sandbox/{id}")).await;
            let found = if reply.status == StatusCode::NOT_FOUND {
                json!("gone")
            } else {
                reply.json()["state"].clone()
            };
            (found == state).then(|| reply.json())
        })
        .await
    }
}

/// Asks until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, asked).await.unwrap_or_else(|_| panic!("never: {what}"))
}
