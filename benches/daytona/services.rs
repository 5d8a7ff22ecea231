//! Several services: what their start costs, and an exec in one beside Docker's own ways into the same container.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use inspect_daytona::api::toolbox::ExecuteRequest;
use inspect_daytona::client::{Client, Replay};
use inspect_daytona::provider::{Run, Sandbox, Settings, names};
use serde_json::json;

use super::measure::{Spread, timed};
use super::program_true;

const COMPOSE: &str = "services:\n  default: {build: ., command: sleep infinity}\n  \
                       other: {build: ., command: sleep infinity}\n";
const DOCKERFILE: &str = "FROM scratch\nCOPY busybox /bin/busybox\n\
                          RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN mkdir -m 1777 /tmp\n";
/// The image is made of it, so that no registry is in the figures.
const BUSYBOX: &str = "/bin/busybox";
const FILE: usize = 10 << 20;
const AT_ONCE: usize = 20;

pub(super) async fn measure(run: &Run, client: &Client) {
    if let Some(why) = lacking() {
        println!("several services                     skipped: {why}");
        return;
    }
    let project = tempfile::tempdir().unwrap();
    std::fs::copy(BUSYBOX, project.path().join("busybox")).unwrap();
    std::fs::write(project.path().join("Dockerfile"), DOCKERFILE).unwrap();
    let file = project.path().join("compose.yaml");
    std::fs::write(&file, COMPOSE).unwrap();
    let source = json!({"source": {"path": file}, "directory": project.path()}).to_string();

    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let service = create(run, &source).await;
        service.exec(program_true()).await.unwrap();
        times.push(began.elapsed());
        service.delete().await.unwrap();
    }
    println!("two services → first exec done       {}", Spread::of(times));
    let service = create(run, &source).await;
    exec(&service, client).await;
    files(&service).await;
    at_once(&service).await;
    service.delete().await.unwrap();
}

/// Why it cannot be measured here.
fn lacking() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("a Docker Engine in a sandbox needs root".to_owned());
    }
    let compose = |place: &&str| Path::new(place).join("docker/cli-plugins/docker-compose").exists();
    let needed = [
        ("dockerd", Path::new("/usr/sbin/dockerd").exists(), "apt-get install docker.io"),
        (
            "docker compose 2",
            ["/usr/libexec", "/usr/lib", "/usr/local/libexec", "/usr/local/lib"].iter().any(compose),
            "apt-get install docker-compose on Debian 13, .ci/docker on Debian 12",
        ),
        (BUSYBOX, Path::new(BUSYBOX).exists(), "apt-get install busybox-static"),
    ];
    let (what, _, install) = needed.into_iter().find(|(_, there, _)| !there)?;
    Some(format!("there is no {what} ({install})"))
}

async fn create(run: &Run, source: &str) -> Sandbox {
    let name = names::sandbox_name(Some("bench"), None);
    run.create(name, Settings::from_json(source).unwrap()).await.unwrap()
}

async fn exec(service: &Sandbox, client: &Client) {
    let machine = client.sandboxes().get(service.id()).await.unwrap();
    let toolbox = client.toolbox(&machine).await.unwrap();
    let id = service.container_id().unwrap();
    let compose = format!(
        "project=$(docker inspect --format '{{{{index .Config.Labels \"com.docker.compose.project.config_files\"}}}}' {id}) && \
         echo docker compose --project-name inspect --file \"$project\" exec -T default true"
    );
    let request = |command| ExecuteRequest { command, ..ExecuteRequest::default() };
    let said = toolbox.execute(&request(compose), Duration::from_secs(30), Replay::Safe).await.unwrap();
    let (compose, docker) =
        (request(said.result.trim().to_owned()), request(format!("docker exec {id} true")));
    let (mut ours, mut theirs) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..20 {
        for _ in 0..10 {
            ours.push(timed(service.exec(program_true())).await);
        }
        for (request, times) in [&compose, &docker].into_iter().zip(&mut theirs) {
            let began = Instant::now();
            let answer = toolbox.execute(request, Duration::from_secs(30), Replay::Safe).await.unwrap();
            assert_eq!(answer.exit_code, 0, "{request:?}: {}", answer.result);
            times.push(began.elapsed());
        }
    }
    let ours = Spread::of(ours);
    println!("exec of true in a service            {ours}");
    for (what, times) in ["docker compose exec -T", "docker exec"].into_iter().zip(theirs) {
        let times = Spread::of(times);
        println!("  {what:35}{times}");
        println!("  ratio of the medians               {:.1}", times.median() / ours.median());
    }
}

async fn files(service: &Sandbox) {
    let contents = Bytes::from((0..=250).cycle().take(FILE).collect::<Vec<u8>>());
    let (mut write, mut read) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        write.push(timed(service.write_file("/tmp/file", contents.clone())).await);
        let began = Instant::now();
        assert!(service.read_file("/tmp/file", 100 << 20).await.unwrap() == contents);
        read.push(began.elapsed());
    }
    println!("write_file of 10 MiB in a service    {}", Spread::of(write));
    println!("read_file of 10 MiB in a service     {}", Spread::of(read));
}

async fn at_once(service: &Sandbox) {
    let mut times = Vec::new();
    for _ in 0..10 {
        let began = Instant::now();
        let tasks: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let service = service.clone();
                tokio::spawn(async move { service.exec(program_true()).await.unwrap().returncode })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 0);
        }
        times.push(began.elapsed());
    }
    println!("20 execs in a service at once        {}", Spread::of(times));
}
