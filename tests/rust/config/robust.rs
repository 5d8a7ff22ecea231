//! Whatever is written, the answer is a plan or an error: no input panics, overflows or hangs.

use std::collections::BTreeMap;
use std::path::Path;

use inspect_daytona::ErrorKind;
use inspect_daytona::config::context::BuildContext;
use inspect_daytona::config::dockerfile::Dockerfile;
use inspect_daytona::config::dockerignore::DockerIgnore;
use inspect_daytona::config::{Build, Context, DockerfileSource, MemoryFiles, Source, Variables, load};
use proptest::prelude::*;

fn check(source: &Source, files: &MemoryFiles) -> Result<(), TestCaseError> {
    let nothing = BTreeMap::new();
    let environment = |name: &str| name.len().is_multiple_of(2).then(|| name.to_lowercase());
    let context =
        Context { directory: Path::new("/task"), environment: &environment, metadata: &nothing, files };
    if let Err(error) = load(source, &context) {
        prop_assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        prop_assert!(!error.to_string().is_empty());
    }
    Ok(())
}

/// Pieces that parsers care about, so that random texts reach deeper than the first character.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![8 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => ".{0,4}"];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

const YAML: &[&str] = &[
    "services:",
    "\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "&a ",
    "*a",
    "<<: ",
    "'",
    "\"",
    "|",
    ">",
    "~",
    "#",
    "image: x",
    "build:",
    "x-daytona:",
    "environment:",
    "${A:-",
    "$$",
    "$A",
    "0",
    "-1",
    "1e999",
    "9999999999999999999",
    "!!str ",
    "? ",
    "---\n",
    "%YAML",
    "\t",
    "\u{0}",
    "é",
];
const DOCKERFILE: &[&str] = &[
    "FROM a",
    "COPY ",
    "ADD ",
    "RUN ",
    "ARG A=",
    "ENV A ",
    "ONBUILD ",
    "--from=x ",
    "--mount=type=bind,source=",
    "<<EOF",
    "EOF",
    "\n",
    "\\",
    "\\\n",
    "`",
    "# escape=`\n",
    "[\"a\", \"b\"]",
    "\"",
    "'",
    "$A",
    "${A",
    "}",
    " ",
    "..",
    "/",
    "*",
    "é",
];
const PATTERN: &[&str] =
    &["*", "**", "/", "?", "[", "]", "^", "-", "\\", "!", "#", "\n", " ", "a", "b", ".", "..", "é"];
const KEYS: &[&str] = &[
    "image",
    "build",
    "command",
    "environment",
    "env_file",
    "ports",
    "expose",
    "volumes",
    "networks",
    "network_mode",
    "deploy",
    "gpus",
    "cpus",
    "mem_limit",
    "healthcheck",
    "ulimits",
    "tmpfs",
    "shm_size",
    "extra_hosts",
    "depends_on",
    "security_opt",
    "platform",
    "profiles",
    "x-default",
    "user",
    "working_dir",
    "scale",
    "ipc",
];
const SCALARS: &[&str] = &[
    "null",
    "\"\"",
    "a",
    "a:1",
    "\"8080:80\"",
    "\"1-65535\"",
    "-1",
    "0",
    "1.5",
    "99999999999999999999",
    "1g",
    "1m30s",
    "none",
    "all",
    "\"a=b\"",
    "\"a:b:c\"",
    "\"/x:/y\"",
    "[a, b]",
    "[]",
    "{a: b}",
    "{}",
    "[{}]",
    "[[a]]",
    "[null]",
    "{target: 80}",
    "{resources: {limits: {cpus: \"0.1\", memory: 1}}}",
    "{test: [CMD, x]}",
    "{soft: 1, hard: 2}",
    "${A}",
    "${AB:-1}",
    "é",
];

/// A service with known keys and any values.
fn service() -> impl Strategy<Value = String> {
    let field = (prop::sample::select(KEYS), prop::sample::select(SCALARS));
    prop::collection::vec(field, 0..8).prop_map(|fields| {
        let fields: BTreeMap<_, _> = fields.into_iter().collect();
        let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        format!("{{{}}}", fields.join(", "))
    })
}

fn setting() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> =
        inspect_daytona::config::SETTINGS.iter().map(|setting| setting.name).collect();
    let field = (prop::sample::select(names), prop::sample::select(SCALARS));
    field.prop_map(|(name, value)| format!("{{{name}: {value}}}"))
}

proptest! {
    #[test]
    fn any_text_as_compose_file(text in pieces(YAML)) {
        let files = MemoryFiles::default().with("/task/compose.yaml", text.clone());
        check(&Source::Compose("compose.yaml".into()), &files)?;
        check(&Source::Model(text), &files)?;
    }

    #[test]
    fn any_bytes_as_compose_file(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&Source::Compose("compose.yaml".into()), &MemoryFiles::default().with("/task/compose.yaml", bytes))?;
    }

    #[test]
    fn any_values_of_known_keys(services in prop::collection::vec(service(), 1..3), setting in setting()) {
        let services: Vec<String> =
            services.iter().enumerate().map(|(index, service)| format!("  s{index}: {service}\n")).collect();
        let text = format!("services:\n{}x-daytona: {setting}\nvolumes: {{a: }}\n", services.concat());
        let files = MemoryFiles::default().with("/task/compose.yaml", text).with("/task/Dockerfile", "FROM a");
        check(&Source::Compose("compose.yaml".into()), &files)?;
    }

    #[test]
    fn any_environment_file(text in pieces(&["A", "=", ":", "'", "\"", "\\", "$", "${A}", "#", " ", "\n", "export ", "\\n"])) {
        let compose = "services: {a: {image: 'a:1', env_file: [e, {path: e, format: raw}]}}";
        let files = MemoryFiles::default()
            .with("/task/compose.yaml", compose)
            .with("/task/.env", text.clone())
            .with("/task/e", text);
        check(&Source::Compose("compose.yaml".into()), &files)?;
    }

    #[test]
    fn any_dockerfile_and_ignore_file(text in pieces(DOCKERFILE), ignore in pieces(PATTERN), value in ".{0,8}") {
        let args = BTreeMap::from([("A".to_owned(), value)]);
        let parsed = Dockerfile::parse(text.clone());
        let special = parsed.specialize(&args, None);
        if let Ok(special) = special
            && !text.contains(['\\', '`'])
        {
            // What was written in once is found again; escapes at odd places may join other lines then.
            let again = Dockerfile::parse(special.clone()).specialize(&args, None).unwrap();
            prop_assert_eq!(again, special);
        }
        let files = MemoryFiles::default().with("/c/a/b.txt", "x").with("/c/.dockerignore", ignore);
        let build = Build {
            context: "/c".into(),
            dockerfile: DockerfileSource::Inline(text),
            args: Variables(args),
            target: Some("0".to_owned()),
            no_cache: false,
            pull: false,
        };
        if let Err(error) = BuildContext::read(&build, &files) {
            prop_assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        }
    }

    #[test]
    fn a_file_is_ignored_with_the_directory_that_is(ignored in pieces(&["a", "b", "*", "/", "?"])) {
        if let Ok(ignore) = DockerIgnore::parse(&ignored)
            && ignore.excludes("a/b")
        {
            prop_assert!(ignore.excludes("a/b/c"), "{ignored:?}");
        }
    }
}

#[test]
fn a_long_pattern_takes_no_exponential_time() {
    let ignore = DockerIgnore::parse(&("*a**/".repeat(200) + "c")).unwrap();
    assert!(!ignore.excludes(&"a".repeat(2000)));
}
