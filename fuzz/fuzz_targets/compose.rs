//! Compose files, from their bytes to their plan; the same bytes as a model.
#![no_main]

use inspect_daytona::config::{MemoryFiles, Source};
use inspect_daytona_fuzz::{compose, plan};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    compose(bytes, MemoryFiles::default());
    if let Ok(text) = std::str::from_utf8(bytes) {
        plan(&Source::Model(text.to_owned()), &MemoryFiles::default());
    }
});
