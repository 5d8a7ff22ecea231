//! What an eval pays for, measured in one run on a local Daytona in a process of its own: `make bench`.
//!
//! Figures of one run belong together: the machine's mood is in all of them, so compare the ratios.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a program for the terminal that ends at the first surprise"
)]

mod measure;
mod server;
mod services;

use std::time::{Duration, Instant};

use bytes::Bytes;
use inspect_daytona::api::toolbox::ExecuteRequest;
use inspect_daytona::client::{Client, ClientOptions, Credentials, Replay};
use inspect_daytona::provider::{Command, Run, Sandbox, Settings, names, sandbox};

use measure::{Spread, cpu_seconds, pss_of_tree, timed};
use server::Server;

const FILE: usize = 50 << 20;

fn main() {
    if std::env::args().any(|argument| argument == server::ARGUMENT) {
        return server::serve();
    }
    // `cargo test` starts benches too, to see that they compile
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let server = Server::spawn();
    let client = server.client();
    println!("isolation {}, {} cores\n", server.isolation, std::thread::available_parallelism().unwrap());

    let run = Run::new(client.clone());
    let sandbox = create(&run).await;
    first_exec(&run).await;
    exec(&sandbox, &client).await;
    files(&sandbox, &server).await;
    throughput(&sandbox).await;
    program();
    import();
    creation(&client, server.pid()).await;
    services::measure(&run, &client).await;
    let left = run.finish(true).await;
    assert!(left.is_empty(), "sandboxes are left: {left:?}");
}

async fn create(run: &Run) -> Sandbox {
    let settings = Settings::from_json(r#"{"source": "none", "directory": "/"}"#).unwrap();
    run.create(names::sandbox_name(Some("bench"), None), settings).await.unwrap()
}

fn shell(script: &str) -> Command {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Command { argv, output_limit: 10 << 20, ..Command::default() }
}

fn program_true() -> Command {
    Command { argv: vec!["true".to_owned()], output_limit: 10 << 20, ..Command::default() }
}

async fn first_exec(run: &Run) {
    let mut times = Vec::new();
    for _ in 0..30 {
        let began = Instant::now();
        let sandbox = create(run).await;
        sandbox.exec(program_true()).await.unwrap();
        times.push(began.elapsed());
        sandbox.delete().await.unwrap();
    }
    println!("create → first exec done             {}", Spread::of(times));
}

async fn exec(sandbox: &Sandbox, client: &Client) {
    let record = client.sandboxes().get(sandbox.id()).await.unwrap();
    let toolbox = client.toolbox(&record).await.unwrap();
    let request = ExecuteRequest { command: "true".to_owned(), ..ExecuteRequest::default() };
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        ours.push(timed(sandbox.exec(program_true())).await);
        raw.push(timed(toolbox.execute(&request, Duration::from_secs(30), Replay::Safe)).await);
    }
    let (ours, raw) = (Spread::of(ours), Spread::of(raw));
    println!("exec of true                         {ours}");
    println!("  raw execute call, same server      {raw}");
    println!("  ratio of the medians               {:.2}", ours.median() / raw.median());
    let large = sandbox.exec(shell("head -c 8388608 /dev/zero | tr '\\0' a"));
    println!("exec with 8 MiB of output            {:.1?}", timed(large).await);
}

async fn files(sandbox: &Sandbox, server: &Server) {
    let contents = Bytes::from((0..=250).cycle().take(FILE).collect::<Vec<u8>>());
    let plain = server.plain(sandbox.id());
    let (mut write, mut read, mut plain_write, mut plain_read) = (vec![], vec![], vec![], vec![]);
    for _ in 0..7 {
        write.push(timed(sandbox.write_file("/tmp/ours", contents.clone())).await);
        plain_write.push(timed(plain.upload("/tmp/plain", contents.clone())).await);
        read.push(timed(sandbox.read_file("/tmp/ours", 100 << 20)).await);
        plain_read.push(timed(plain.download("/tmp/plain")).await);
    }
    for (what, ours, plain) in [("write_file", write, plain_write), ("read_file ", read, plain_read)] {
        let (ours, plain) = (Spread::of(ours), Spread::of(plain));
        println!("{what} of 50 MiB                 {ours}");
        println!("  plain HTTP, same bytes             {plain}");
        println!("  ratio of the medians               {:.2}", ours.median() / plain.median());
    }
}

async fn throughput(sandbox: &Sandbox) {
    const AT_ONCE: usize = 64;
    const EACH: usize = 25;
    let (began, cpu) = (Instant::now(), cpu_seconds(std::process::id()));
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    assert_eq!(sandbox.exec(program_true()).await.unwrap().returncode, 0);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let count = (AT_ONCE * EACH) as f64;
    let cpu = cpu_seconds(std::process::id()) - cpu;
    println!("execs per second, 64 at once         {:.0}", count / began.elapsed().as_secs_f64());
    println!("client CPU per exec                  {:.0} µs", cpu / count * 1e6);
}

fn program() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shim");
    std::fs::write(&path, sandbox::shim()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let start = || {
        let began = Instant::now();
        std::process::Command::new(&path).arg("version").output().unwrap();
        began.elapsed()
    };
    let times = (0..200).map(|_| start()).collect();
    println!("shim                                 {} KiB", sandbox::shim().len() / 1024);
    println!("shim start to end                    {}", Spread::of(times));
}

/// The import that every eval pays for, whatever sandbox it uses; on top of Inspect's own.
fn import() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = "import time, inspect_ai.util\nt = time.perf_counter()\nimport inspect_daytona._registry\n\
                  print(time.perf_counter() - t)";
    let seconds = || -> Option<f64> {
        let output = std::process::Command::new(&python).args(["-c", script]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let times: Vec<_> = (0..5).filter_map(|_| seconds()).map(Duration::from_secs_f64).collect();
    if times.is_empty() {
        println!("import of the registry module        not measured: {python} has no inspect_daytona");
    } else {
        println!("import of the registry module        {}", Spread::of(times));
    }
}

async fn creation(client: &Client, server: u32) {
    let mut times = Vec::new();
    let mut ids = Vec::new();
    let before = pss_of_tree(server);
    for index in 0..100 {
        let request = inspect_daytona::api::sandbox::CreateSandbox {
            name: Some(format!("creation-{index}")),
            ..Default::default()
        };
        let began = Instant::now();
        let sandbox = client.sandboxes().create(&request).await.unwrap();
        client.sandboxes().wait_started(&sandbox.id, Duration::from_secs(30)).await.unwrap();
        times.push(began.elapsed());
        ids.push(sandbox.id);
    }
    let memory = pss_of_tree(server).saturating_sub(before) / ids.len() as u64;
    println!("create → started, over the API       {}", Spread::of(times));
    println!("memory per idle sandbox (PSS)        {memory} KiB");
    for id in ids {
        client.sandboxes().delete(&id, Duration::from_secs(30)).await.unwrap();
    }
}

/// Options for a server that is already known.
fn options(url: &str, key: &str) -> ClientOptions {
    ClientOptions::new(url, Credentials::ApiKey(key.to_owned().into())).unwrap()
}
