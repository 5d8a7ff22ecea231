//! `.env` and `env_file`, in both formats.
#![no_main]

use inspect_daytona::config::MemoryFiles;
use inspect_daytona_fuzz::service;
use serde_json::json;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let files = || MemoryFiles::default().with("/task/e", text);
    let read = service(&json!({ "image": "x", "env_file": "e" }), files());
    let as_defaults = service(&json!({ "image": "x" }), MemoryFiles::default().with("/task/.env", text));
    assert_eq!(read.is_some(), as_defaults.is_some(), "`.env` and `env_file` differ");
    if let Some(service) = read {
        assert!(service.environment.iter().all(|(name, _)| !name.is_empty() && !name.contains('=')));
    }
    service(&json!({ "image": "x", "env_file": [{ "path": "e", "format": "raw" }] }), files());
});
