//! A local Daytona of each test's own, and a run of the provider on it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use inspect_daytona::client::{Client, ClientOptions, Credentials};
use inspect_daytona::local::control::{LocalOptions, LocalServer};
use inspect_daytona::provider::{Command, Outcome, Run, Sandbox, Settings, names};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// Guards against hangs; nothing here is expected to take long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A server, and a run on it. `finish` must be called, since it checks that nothing is left.
pub(crate) struct Fixture {
    pub(crate) server: LocalServer,
    pub(crate) client: Client,
    pub(crate) run: Run,
    http: reqwest::Client,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(LocalOptions::default()).await
    }

    pub(crate) async fn with(options: LocalOptions) -> Self {
        let server = LocalServer::start(options).await.expect("this machine can isolate sandboxes");
        let options =
            ClientOptions::new(&server.url(), Credentials::ApiKey(server.api_key().clone())).unwrap();
        let client = Client::new(options).unwrap();
        // reqwest wants one even for plain HTTP; a second installation is refused, which is as good
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { run: Run::new(client.clone()), client, server, http }
    }

    /// Ends the run and the server.
    pub(crate) async fn finish(self) {
        let left = self.run.finish(true).await;
        assert_eq!(left, []);
        assert_eq!(self.server.statistics().left, 0);
        self.server.shutdown().await;
    }

    /// A sandbox as a task without a configuration gets it.
    pub(crate) async fn sandbox(&self) -> Sandbox {
        self.sandbox_with(json!({})).await.unwrap()
    }

    pub(crate) async fn sandbox_with(&self, settings: Value) -> inspect_daytona::Result<Sandbox> {
        self.run.create(name(), settings_of(settings)).await
    }

    async fn admin(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/admin/{path}", self.server.url());
        let mut request = self.http.request(method, url).bearer_auth(self.server.api_key().expose_secret());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
        serde_json::from_slice(&answer).unwrap_or(Value::Null)
    }

    /// Makes a volume.
    pub(crate) async fn make_volume(&self, name: &str) {
        let url = format!("{}/volumes", self.server.url());
        let request = self.http.post(url).bearer_auth(self.server.api_key().expose_secret());
        let body = json!({"name": name}).to_string();
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        answer.error_for_status().unwrap();
    }

    /// Makes the next `times` requests fail.
    pub(crate) async fn fault(&self, method: &str, path: &str, times: u64, fault: Value) {
        let rule = json!({"method": method, "path": path, "times": times, "fault": fault});
        self.admin(reqwest::Method::POST, "faults", Some(rule)).await;
    }

    /// The next request waits before it is carried out.
    pub(crate) async fn delay(&self, method: &str, path: &str, milliseconds: u64) {
        let rule = json!({"method": method, "path": path, "times": 1, "delayMilliseconds": milliseconds});
        self.admin(reqwest::Method::POST, "faults", Some(rule)).await;
    }

    /// The next execute request meets `fault`.
    pub(crate) async fn fault_execute(&self, fault: Value) {
        self.fault("POST", "/toolbox/*/process/execute", 1, fault).await;
    }

    pub(crate) async fn kill(&self, sandbox: &Sandbox) {
        self.kill_id(sandbox.id()).await;
    }

    /// Kills the sandbox with this id.
    pub(crate) async fn kill_id(&self, id: &str) {
        self.admin(reqwest::Method::POST, &format!("sandboxes/{id}/kill"), None).await;
    }

    pub(crate) async fn forget_requests(&self) {
        self.admin(reqwest::Method::DELETE, "requests", None).await;
    }

    /// Requests since the last [`Self::forget_requests`], by method and route.
    pub(crate) async fn requests(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.admin(reqwest::Method::GET, "requests", None).await).unwrap()
    }

    /// How many requests an operation takes.
    pub(crate) async fn count<T>(&self, operation: impl Future<Output = T>) -> (u64, T) {
        self.forget_requests().await;
        let result = operation.await;
        (self.requests().await.values().sum(), result)
    }
}

pub(crate) fn name() -> String {
    names::sandbox_name(Some("test"), None)
}

#[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
pub(crate) fn settings_of(settings: Value) -> Settings {
    Settings::from_json(&json!({"source": {"settings": settings}, "directory": "/"}).to_string()).unwrap()
}

/// A line for a shell.
pub(crate) fn shell(line: &str) -> Command {
    command(&["/bin/sh", "-c", line])
}

pub(crate) fn command(argv: &[&str]) -> Command {
    let argv = argv.iter().map(|text| (*text).to_owned()).collect();
    Command { argv, output_limit: 10 << 20, ..Command::default() }
}

pub(crate) fn with_input(command: Command, input: impl Into<Bytes>) -> Command {
    Command { input: Some(input.into()), ..command }
}

/// Runs a line that must succeed; its standard output.
pub(crate) async fn output(sandbox: &Sandbox, line: &str) -> String {
    let outcome: Outcome = sandbox.exec(shell(line)).await.unwrap();
    assert_eq!((outcome.returncode, outcome.stderr.as_str()), (0, ""), "{line}");
    outcome.stdout
}

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
