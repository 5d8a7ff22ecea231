//! Texts with variables. A text whose dollar signs are doubled is itself.
#![no_main]

use inspect_daytona::config::MemoryFiles;
use inspect_daytona_fuzz::service;
use serde_json::json;

fn render(text: &str) -> Option<String> {
    let service = service(&json!({ "image": "x", "environment": { "V": text } }), MemoryFiles::default())?;
    service.environment.get("V").cloned()
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _any = render(text);
    if let Some(same) = render(&text.replace('$', "$$")) {
        assert_eq!(same, text);
    }
});
