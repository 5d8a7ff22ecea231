//! Dockerfiles: what they read of their context, and the text that is sent.
#![no_main]

use std::collections::BTreeMap;

use inspect_daytona::ErrorKind;
use inspect_daytona::config::context::BuildContext;
use inspect_daytona::config::dockerfile::Dockerfile;
use inspect_daytona::config::{Build, DockerfileSource, MemoryFiles, Variables};

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str)| {
    let (text, value, ignore) = input;
    let args = BTreeMap::from([("A".to_owned(), value.to_owned())]);
    let parsed = Dockerfile::parse(text);
    let _used = parsed.context_use(&args);
    let _unused = parsed.unused(&args);
    if let Ok(special) = parsed.specialize(&args, None)
        && !text.contains(['\\', '`'])
    {
        // what was written in once is found again; escapes at odd places may join other lines then
        let again = Dockerfile::parse(special.clone()).specialize(&args, None);
        assert_eq!(again.ok().as_deref(), Some(special.as_str()));
    }
    let files =
        MemoryFiles::default().with("/c/a/b.txt", "x").with("/c/b", "y").with("/c/.dockerignore", ignore);
    let build = Build {
        context: "/c".into(),
        dockerfile: DockerfileSource::Inline(text.to_owned()),
        args: Variables(args),
        target: Some("0".to_owned()),
        no_cache: false,
        pull: false,
    };
    match BuildContext::read(&build, &files) {
        Ok(context) => {
            let again = BuildContext::read(&build, &files).expect("the same files");
            assert_eq!(format!("{context:?}"), format!("{again:?}"));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}"),
    }
});
