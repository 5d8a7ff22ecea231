//! A local Daytona in a process of its own, so that the client's processor time is the client's alone.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use inspect_daytona::client::Client;
use inspect_daytona::local::control::{LocalOptions, LocalServer};
use secrecy::ExposeSecret;

/// Makes this program the server.
pub(crate) const ARGUMENT: &str = "--serve";

/// Serves until standard input ends.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = LocalOptions::from_environment().unwrap();
        let server = LocalServer::start(options).await.unwrap();
        println!("{}", server.url());
        println!("{}", server.api_key().expose_secret());
        println!("{}", server.isolation().name);
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
        server.shutdown().await;
    });
}

/// The server's process; it ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    key: String,
    pub(crate) isolation: String,
}

impl Server {
    pub(crate) fn spawn() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("the server says where it is").unwrap();
        Self { url: line(), key: line(), isolation: line(), child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(super::options(&self.url, &self.key)).unwrap()
    }

    /// The toolbox of a sandbox without anything of ours in between.
    pub(crate) fn plain(&self, sandbox: &str) -> Plain {
        // reqwest wants one even for plain HTTP
        rustls::crypto::ring::default_provider().install_default().ok();
        let base = format!("{}/toolbox/{sandbox}", self.url.trim_end_matches("/api"));
        Plain { http: reqwest::Client::builder().no_proxy().build().unwrap(), base, key: self.key.clone() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// A plain HTTP client.
pub(crate) struct Plain {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Plain {
    pub(crate) async fn upload(&self, path: &str, contents: Bytes) -> reqwest::Result<()> {
        let url = format!("{}/files/upload-v2?path={path}", self.base);
        self.http.post(url).bearer_auth(&self.key).body(contents).send().await?.error_for_status().map(drop)
    }

    pub(crate) async fn download(&self, path: &str) -> reqwest::Result<Bytes> {
        let url = format!("{}/files/download?path={path}", self.base);
        self.http.get(url).bearer_auth(&self.key).send().await?.error_for_status()?.bytes().await
    }
}
