//! Toolboxes to test, in this process or as a child, and a client for them.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use inspect_daytona::local::toolbox::{Options, serve};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;

/// Guards against hangs; far above what anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A toolbox and its private directory.
pub(crate) struct Server {
    directory: TempDir,
    host: Host,
}

enum Host {
    Task(tokio::task::JoinHandle<()>),
    Process(Child),
}

/// How a toolbox in a child process is to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// As whoever runs the tests, adopting orphans.
    Subreaper,
    /// As `nobody`; needs root.
    Nobody,
}

impl Server {
    /// Serves in a task of this process.
    pub(crate) fn start() -> Self {
        Self::with_env(&[])
    }

    /// The same, with more variables.
    pub(crate) fn with_env(env: &[(&str, &str)]) -> Self {
        let directory = new_directory();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let mut options = options(&directory.path().join("work"));
        options.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let task = tokio::spawn(async move { serve(listener, options).await.unwrap() });
        Self { directory, host: Host::Task(task) }
    }

    /// Serves in a process of its own: this program again, entering [`serves_as_a_child`].
    pub(crate) async fn spawn(kind: As) -> Self {
        let directory = new_directory();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["server::serves_as_a_child", "--exact", "--ignored", "--quiet"])
            .env(DIRECTORY, directory.path())
            .env(KIND, if kind == As::Nobody { "nobody" } else { "subreaper" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let socket = directory.path().join("socket");
        let started = std::time::Instant::now();
        while UnixStream::connect(&socket).await.is_err() {
            assert!(started.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(), "no server");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { directory, host: Host::Process(child) }
    }

    /// The process id of a child server.
    pub(crate) fn pid(&self) -> u32 {
        match &self.host {
            Host::Task(_) => std::process::id(),
            Host::Process(child) => child.id(),
        }
    }

    /// The toolbox's work directory.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("socket")).await.unwrap()
    }

    /// Sends a request on a connection of its own and returns the answer's head with its body to come.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let stream = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("an answer").unwrap()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        let (head, body) = self.send(request).await.into_parts();
        let body = tokio::time::timeout(PATIENCE, to_bytes(Body::new(body), usize::MAX)).await;
        Answer { status: head.status, headers: head.headers, body: body.expect("a whole body").unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(request(Method::GET, path, Body::empty())).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.call(request(Method::POST, path, body.into())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(request(Method::DELETE, path, Body::empty())).await
    }

    /// Runs a script and returns its exit code and output.
    pub(crate) async fn execute(&self, command: &str) -> (i64, String) {
        let answer =
            self.post("/process/execute", serde_json::json!({ "command": command }).to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let json = answer.json();
        (json["exitCode"].as_i64().unwrap(), json["result"].as_str().unwrap().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.host {
            Host::Task(task) => task.abort(),
            Host::Process(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

pub(crate) fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).header("host", "toolbox").body(body).unwrap()
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts a status without a body.
    #[track_caller]
    pub(crate) fn is_empty_with(&self, status: u16) {
        assert_eq!((self.status.as_u16(), self.body.len()), (status, 0), "{self:?}");
        if status != 204 {
            assert_eq!(self.header("content-length"), "0");
        }
    }

    /// Asserts a typed error.
    #[track_caller]
    pub(crate) fn is_failure(&self, status: u16, code: &str, message: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let json = self.json();
        assert_eq!(json["statusCode"], status);
        assert_eq!(json["code"], code);
        assert_eq!(json["message"], message);
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what}: did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Percent-encodes a path for a query.
pub(crate) fn encode(path: impl AsRef<Path>) -> String {
    let bytes = path.as_ref().as_os_str().as_encoded_bytes().iter();
    bytes.fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

/// Whether the tests run as root; says why a test is skipped if not.
pub(crate) fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let _ = writeln!(std::io::stderr(), "{test}: skipped, needs root to become another user");
    }
    root
}

fn new_directory() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let work = directory.path().join("work");
    std::fs::create_dir(&work).unwrap();
    for path in [directory.path(), &work] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    directory
}

fn options(work: &Path) -> Options {
    Options {
        user: nix::unistd::getuid().to_string(),
        work_dir: work.to_owned(),
        env: vec![
            ("HOME".to_owned(), work.to_str().unwrap().to_owned()),
            ("GREETING".to_owned(), "hello".to_owned()),
        ],
        entrypoint: Vec::new(),
        version: "v0.190.0".to_owned(),
    }
}

const DIRECTORY: &str = "TOOLBOX_TEST_DIRECTORY";
const KIND: &str = "TOOLBOX_TEST_KIND";

/// Not a test of its own: the program of child servers. It ends with the process that started it.
#[test]
#[ignore = "started by other tests, as a child process"]
fn serves_as_a_child() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("started by another test"));
    let listener = UnixListener::bind(directory.join("socket")).unwrap();
    std::env::set_current_dir(directory.join("work")).unwrap();
    if std::env::var(KIND).as_deref() == Ok("nobody") {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(directory.join("socket"), std::fs::Permissions::from_mode(0o777)).unwrap();
        nix::unistd::setgroups(&[]).unwrap();
        nix::unistd::setgid(65_534.into()).unwrap();
        nix::unistd::setuid(65_534.into()).unwrap();
    } else {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
    }
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::abort();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(listener, options(&directory.join("work")))).unwrap();
}
