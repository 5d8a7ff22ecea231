//! What reading a configuration costs: a compose file of a hundred services, from its text to its plan.
//!
//! Two such files are measured, since the number of services says little: one whose services have the keys that are most
//! common in public evals, and one whose services use most of what Compose has. The first line of each is the YAML parser
//! alone, which no reader above it can go below. Then the part of 10,000 samples in what comes before the first.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal that ends at the first surprise"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use inspect_daytona::config::{Context, Document, MemoryFiles, Plan, Source, load};
use serde_yaml::granit_parser::Parser;

const SERVICES: usize = 100;
const REPETITIONS: usize = 2000;
const SAMPLES: usize = 10_000;

fn main() {
    // `cargo test` starts benches too, to see that they compile
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    measure("common keys", &common());
    measure("most keys", &most());
    measure_samples();
}

fn measure(what: &str, text: &str) {
    let files = MemoryFiles::default().with("/task/compose.yaml", text);
    let metadata = BTreeMap::new();
    let context = context(&files, &metadata);
    let source = Source::Compose("compose.yaml".into());
    let document = Document::read(&source, &context).unwrap();
    let Plan::Multi(plan) = document.plan(&context).unwrap() else { unreachable!("a hundred services") };
    assert_eq!(plan.services.len(), SERVICES);

    println!("{SERVICES} services, {what}: {} lines, {} KiB", text.lines().count(), text.len() / 1024);
    print("  YAML parser alone", || Parser::new_from_str(text).flatten().count());
    print("  read (parser and tree)", || Document::read(&source, &context).unwrap());
    print("  plan of what was read", || document.plan(&context).unwrap());
    print("  text to plan", || load(&source, &context).unwrap());
}

/// Inspect asks once per sample which of its metadata needs a preparation of its own, before the first one starts.
fn measure_samples() {
    let text = "services:\n  default:\n    image: ghcr.io/example/${SAMPLE_METADATA_IMAGE-tool}\n    mem_limit: 1g\n";
    let files = MemoryFiles::default().with("/task/compose.yaml", text);
    let metadata = BTreeMap::new();
    let context = context(&files, &metadata);
    let document = Document::read(&Source::Compose("compose.yaml".into()), &context).unwrap();
    let samples: Vec<BTreeMap<String, String>> = (0..SAMPLES)
        .map(|index| {
            ["image", "difficulty", "source"].map(|key| (key.to_owned(), format!("{key} {index}"))).into()
        })
        .collect();
    println!("{SAMPLES} samples, each with an image of its own");
    print("  task_init_environment of all", || {
        let variables = samples.iter().map(|metadata| document.task_environment(metadata));
        assert_eq!(variables.map(|variables| variables.len()).sum::<usize>(), SAMPLES);
    });
}

fn context<'a>(files: &'a MemoryFiles, metadata: &'a BTreeMap<String, String>) -> Context<'a> {
    Context { directory: Path::new("/task"), environment: &environment, metadata, files }
}

fn environment(name: &str) -> Option<String> {
    (name == "LEVEL").then(|| "debug".to_owned())
}

fn print<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..REPETITIONS)
        .map(|_| {
            let began = Instant::now();
            black_box(work());
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e3;
    println!("{what:<36} p50 {:>6.3} ms   p99 {:>6.3} ms   (n = {REPETITIONS})", at(50), at(99));
}

/// Keys as often as a survey of the compose files of public evals has them: image, init and networks in most services,
/// others in every third.
fn common() -> String {
    let mut text = "services:\n".to_owned();
    for index in 0..SERVICES {
        write!(
            text,
            "  service{index}:\n    image: ghcr.io/example/tool-{index}:1.2.3\n    init: true\n    networks: [inner]\n"
        )
        .unwrap();
        text += match index % 3 {
            0 => {
                "    command: tail -f /dev/null\n    environment:\n      - LEVEL=${LEVEL:-info}\n      - TZ=UTC\n"
            }
            1 => "    mem_limit: 512m\n    ports:\n      - \"8080:80\"\n    restart: always\n",
            _ => "    depends_on: [service0]\n    expose:\n      - 1337\n    shm_size: 64m\n",
        };
    }
    text + "networks:\n  inner:\n    internal: true\n"
}

fn most() -> String {
    let mut text = "services:\n".to_owned();
    for index in 0..SERVICES {
        write!(
            text,
            "  service{index}:
    image: \"ghcr.io/example/tool-{index}:${{TAG:-1.2.3}}\"
    command: [\"sh\", \"-c\", \"sleep infinity\"]
    environment:
      LEVEL: ${{LEVEL:-info}}
      ADDRESS: http://service0:8080
      COUNT: 3
    depends_on:
      service0:
        condition: service_started
        required: false
    deploy:
      resources:
        limits:
          cpus: \"0.5\"
          memory: 256m
    healthcheck:
      test: [\"CMD\", \"curl\", \"-f\", \"http://localhost:8080\"]
      interval: 10s
      timeout: 5s
      retries: 5
    networks:
      - inner
    ports:
      - \"80{index:02}:80\"
    extra_hosts:
      - \"example.org:10.0.0.1\"
    tmpfs: /run
    ulimits:
      nofile: 1024
    working_dir: /srv
    user: \"1000:1000\"
    hostname: service{index}
    restart: unless-stopped
    volumes:
      - data:/data
"
        )
        .unwrap();
    }
    text + "networks:\n  inner:\n    internal: true\nvolumes:\n  data:\n"
}
