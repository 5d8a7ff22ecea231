//! Dockerfiles that the local Daytona carries out without a builder. The modules are private to it, so they are compiled
//! here once more.
#![no_main]
#![allow(dead_code, unused_imports, reason = "a part of the module")]

use std::collections::BTreeMap;
use std::path::PathBuf;

#[path = "../../src/local/control/images/dockerfile.rs"]
mod dockerfile;
#[path = "../../src/local/control/images/expand.rs"]
mod expand;
#[path = "../../src/local/control/images/interpret.rs"]
mod interpret;

/// What the modules need of their parent's type.
#[derive(Debug, Default)]
struct Image {
    user: String,
    env: BTreeMap<String, String>,
    work_dir: Option<PathBuf>,
    entrypoint: Vec<String>,
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(settings) = interpret::read(text)
        && let Ok(image) = settings.apply(Image::default())
    {
        assert!(image.work_dir.is_none_or(|directory| directory.is_absolute()));
    }
});
