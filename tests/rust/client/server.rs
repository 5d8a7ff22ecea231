//! A scripted HTTP server that misbehaves on demand. It closes each connection after one answer, unless told to
//! keep it.

#![expect(
    clippy::unwrap_used,
    reason = "a fixture of tests; only the bodies of tests are exempt by themselves"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inspect_daytona::client::{Client, ClientOptions, Credentials, RetryPolicy, Toolbox};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The key of every client; it must appear nowhere but in the header.
pub(crate) const KEY: &str = "dtn_0123456789abcdef";

/// What arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What to do about it.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole answer.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// The connection is reset after the request was read.
    Reset,
    /// The answer promises `promised` bytes, sends `body` and closes.
    Cut { promised: usize, body: Vec<u8> },
    /// The answer promises more than `body` and goes silent.
    Stall { body: Vec<u8> },
    /// No byte ever comes.
    Silence,
    /// An answer whose end is the end of the connection.
    Unbounded { body: Vec<u8> },
}

pub(crate) fn answer(status: u16, body: &Value) -> Reply {
    raw(status, "application/json", body.to_string())
}

pub(crate) fn message(status: u16, text: &str) -> Reply {
    answer(status, &json!({"statusCode": status, "message": text, "path": "/api/x"}))
}

pub(crate) fn raw(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    Reply::Answer { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
}

pub(crate) fn empty(status: u16) -> Reply {
    Reply::Answer { status, headers: vec![], body: vec![] }
}

/// A server and what it has seen. It ends when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers by `script`, which is given the request and how many came before it.
    pub(crate) async fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_async(move |request, number| {
            let reply = script(&request, number);
            async move { reply }
        })
        .await
    }

    pub(crate) async fn start_async<F>(script: impl Fn(Request, usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(script));
        let (log, count) = (Arc::clone(&seen), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, script, count) = (Arc::clone(&log), Arc::clone(&script), Arc::clone(&count));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let Some(request) = read(&mut stream).await else { return };
                    log.lock().unwrap().push(request.clone());
                    let reply = script(request, count.fetch_add(1, Ordering::SeqCst)).await;
                    write(stream.into_inner(), reply).await;
                });
            }
        });
        Self { port, seen, task }
    }

    /// `METHOD path` of each request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(Request::line).collect()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api", self.port)
    }

    /// A client that waits only milliseconds between attempts.
    pub(crate) fn client(&self) -> Client {
        client(&self.url(), quick())
    }

    /// The toolbox of sandbox `s`, whose requests come to this server as `/toolbox/s/...`.
    pub(crate) async fn toolbox(&self) -> Toolbox {
        let sandbox = sandbox("s", "started");
        let mut sandbox: inspect_daytona::api::sandbox::Sandbox = serde_json::from_value(sandbox).unwrap();
        sandbox.toolbox_proxy_url = Some(format!("http://127.0.0.1:{}/toolbox/", self.port));
        self.client().toolbox(&sandbox).await.unwrap()
    }
}

pub(crate) fn quick() -> RetryPolicy {
    RetryPolicy {
        attempts: 4,
        total: Duration::from_secs(20),
        base: Duration::from_millis(1),
        cap: Duration::from_millis(5),
    }
}

pub(crate) fn client(url: &str, retry: RetryPolicy) -> Client {
    let mut options = ClientOptions::new(url, Credentials::ApiKey(KEY.to_owned().into())).unwrap();
    options.retry = retry;
    Client::new(options).unwrap()
}

/// A sandbox as the control plane writes it.
pub(crate) fn sandbox(id: &str, state: &str) -> Value {
    json!({"id": id, "name": format!("name-{id}"), "state": state, "labels": {"run": "r"}, "target": "us"})
}

/// Runs one test again in a process of its own, where `proxy` was set from the start.
pub(crate) async fn again_with_proxy(test: &str, proxy: &str) -> std::process::Output {
    let names = [PROXY, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    again(test, &names.map(|name| (name, proxy))).await
}

/// Runs one test again in a process of its own, with `variables` in its environment.
pub(crate) async fn again(test: &str, variables: &[(&str, &str)]) -> std::process::Output {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env_remove("no_proxy").env_remove("NO_PROXY");
    command.envs(variables.iter().copied()).kill_on_drop(true).output().await.unwrap()
}

/// Set, to the proxy's URL, in processes of [`again_with_proxy`].
pub(crate) const PROXY: &str = "INSPECT_DAYTONA_TEST_PROXY";

pub(crate) async fn read(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines[0].split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: Vec<_> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, value)| value);
    let mut body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { method, path, headers, body })
}

async fn write(mut stream: TcpStream, reply: Reply) {
    let head = |status: u16, length: Option<usize>, extra: &str| {
        let length = length.map_or(String::new(), |length| format!("content-length: {length}\r\n"));
        format!("HTTP/1.1 {status} Scripted\r\n{length}{extra}connection: close\r\n\r\n").into_bytes()
    };
    let (mut bytes, body, stay) = match reply {
        Reply::Answer { status, headers, body } => {
            let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            (head(status, Some(body.len()), &lines.concat()), body, false)
        }
        Reply::Reset => {
            // closing without lingering sends a reset
            let _ = stream.set_zero_linger();
            return;
        }
        Reply::Cut { promised, body } => (head(200, Some(promised), ""), body, false),
        Reply::Stall { body } => (head(200, Some(body.len() + 1), ""), body, true),
        Reply::Silence => (vec![], vec![], true),
        Reply::Unbounded { body } => (head(200, None, ""), body, false),
    };
    bytes.extend(body);
    let _ = stream.write_all(&bytes).await;
    if stay {
        // until the client gives up
        let _ = stream.read(&mut [0]).await;
    }
    let _ = stream.shutdown().await;
}
