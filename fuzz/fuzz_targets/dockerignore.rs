//! `.dockerignore`: what lies in an excluded directory is excluded, unless something is taken back.
#![no_main]

use inspect_daytona::config::dockerignore::DockerIgnore;

libfuzzer_sys::fuzz_target!(|input: (&str, &str)| {
    let (text, path) = input;
    let Ok(ignore) = DockerIgnore::parse(text) else { return };
    for path in [path, "a", "a/b", "a/b/c", ".a", "a b"] {
        let inside = ignore.excludes(&format!("{path}/x"));
        if ignore.excludes(path) && !ignore.takes_back() {
            assert!(inside, "{path}");
        }
    }
});
