//! Settings of `x-daytona`: one by one with any value, and any text as all of them.
#![no_main]

use inspect_daytona::config::{MemoryFiles, SETTINGS, Source};
use inspect_daytona_fuzz::{compose, plan};

libfuzzer_sys::fuzz_target!(|input: (usize, &str)| {
    let (index, text) = input;
    let name = SETTINGS[index % SETTINGS.len()].name;
    compose(
        format!("services: {{a: {{image: x}}}}\nx-daytona: {{{name}: {text}}}\n"),
        MemoryFiles::default(),
    );
    let quoted = serde_json::json!({ name: text }).to_string();
    plan(&Source::Settings(quoted), &MemoryFiles::default());
    plan(&Source::Settings(format!("{{\"{name}\": {text}}}")), &MemoryFiles::default());
    plan(&Source::Settings(text.to_owned()), &MemoryFiles::default());
});
