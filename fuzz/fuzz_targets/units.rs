//! Sizes, cores, durations, ports, commands and what else has a notation of its own.
#![no_main]

use std::time::Duration;

use inspect_daytona::config::MemoryFiles;
use inspect_daytona_fuzz::service;
use serde_json::{Value, json};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let read = |fields: Value| service(&fields, MemoryFiles::default());
    for key in ["mem_limit", "cpus", "shm_size", "command", "entrypoint", "tmpfs", "gpus", "user", "hostname"]
    {
        read(json!({ "image": "x", key: text }));
    }
    for key in ["ports", "expose", "extra_hosts", "volumes", "environment", "security_opt"] {
        read(json!({ "image": "x", key: [text] }));
    }
    read(json!({ "image": "x", "ulimits": { "nofile": text, "core": { "soft": 0, "hard": text } } }));
    let check = json!({ "test": "true", "interval": text, "start_period": text });
    if let Some(check) =
        read(json!({ "image": "x", "healthcheck": check })).and_then(|service| service.healthcheck)
    {
        assert!(check.interval > Duration::ZERO);
        assert!(check.interval.as_secs() < 3_200_000_000);
    }
});
