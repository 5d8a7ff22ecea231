use super::*;

fn uses(text: &str) -> ContextUse {
    Dockerfile::parse(text).context_use(&BTreeMap::new())
}

fn some(paths: &[&str]) -> ContextUse {
    ContextUse::Some(paths.iter().map(|path| (*path).to_owned()).collect())
}

fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn sources_are_found_in_every_form() {
    for (line, paths) in [
        ("COPY a.txt b/ /dst/", vec!["a.txt", "b"]),
        ("copy --chown=1:1 --link  a /dst", vec!["a"]),
        ("ADD [\"with space\", \"b\", \"/dst\"]", vec!["b", "with space"]),
        ("COPY [\"it's.txt\", \"<<a\", \"/q\"]", vec!["<<a", "it's.txt"]),
        ("ONBUILD RUN <<EOF\nCOPY not_this /x\nEOF\nCOPY b /x", vec!["b"]),
        ("onbuild copy --chmod=1 <<A <<-B /x/\nCOPY c /x\nA\n\tB\nCOPY b /x", vec!["b"]),
        ("COPY \\\n  # a comment\n\n  a \\  \n  b /dst", vec!["a", "b"]),
        ("COPY ./a/../b /x", vec!["b"]),
        ("COPY /abs/p ../up.txt /x", vec!["abs/p", "up.txt"]),
        ("COPY *.t?t [a-c]* /x/", vec!["*.t?t", "[a-c]*"]),
        ("ADD https://example.org/x git@github.com:a/b a /x", vec!["a"]),
        ("RUN --mount=type=bind,source=pkg,target=/pkg --mount=type=cache,target=/c make", vec!["pkg"]),
        ("COPY <<EOF a /dst/\nCOPY not_this /x\nEOF\nCOPY b /x", vec!["a", "b"]),
        ("RUN <<-'ONE' cat <<TWO\nCOPY x /\n\tONE\nCOPY y /\nTWO\nCOPY b /x", vec!["b"]),
    ] {
        assert_eq!(uses(&format!("FROM a\n{line}\n")), some(&paths), "{line}");
    }
}

#[test]
fn what_reads_nothing_of_this_context_needs_none() {
    for line in [
        "COPY --from=base /a /b",
        "ONBUILD COPY a /b",
        "# COPY a /b",
        "RUN echo COPY a /b",
        "RUN --mount=type=bind,from=base,target=/x ls",
        "RUN --mount=type=secret,id=x ls",
        "COPY <<EOF /etc/x\nCOPY a /b\nEOF",
        "RUN echo \\\nCOPY a /b",
    ] {
        assert_eq!(uses(&format!("FROM a AS base\n{line}\n")), ContextUse::Nothing, "{line}");
    }
}

#[test]
fn what_a_stage_has_others_copy_is_read_by_the_stage_that_is_built_from_it() {
    let onbuild = "FROM a AS base\nONBUILD COPY --chown=1 src /src\nONBUILD ENV D=dir\nONBUILD ADD $D /d\n";
    assert_eq!(uses(onbuild), ContextUse::Nothing);
    assert_eq!(uses(&format!("{onbuild}FROM b\n")), ContextUse::Nothing);
    assert_eq!(uses(&format!("{onbuild}FROM Base\nCOPY own /x\n")), some(&["dir", "own", "src"]));
    assert_eq!(uses(&format!("ARG B=base\n{onbuild}FROM ${{B}} AS next\n")), some(&["dir", "src"]));
    assert_eq!(uses(&format!("ARG B\n{onbuild}FROM $B\n")), some(&["dir", "src"]), "it may be the base");
    // triggers run once, not in what is built from the stage that ran them
    let twice = "FROM a AS one\nONBUILD COPY . /x\nFROM b AS two\nFROM two\n";
    assert_eq!(uses(twice), ContextUse::Nothing);
    assert_eq!(uses("FROM a AS one\nONBUILD RUN --mount=target=/x ls\nFROM one\n"), ContextUse::All);
}

#[test]
fn everything_is_read_where_it_cannot_be_told() {
    for line in
        ["COPY . /app", "COPY ./ /app", "COPY $UNKNOWN /app", "ADD \"\" /x", "RUN --mount=target=/x ls"]
    {
        assert_eq!(uses(&format!("FROM a\n{line}\n")), ContextUse::All, "{line}");
    }
}

#[test]
fn a_file_may_be_read_by_its_name_a_pattern_a_directory_or_what_cannot_be_told() {
    let reads = |line: &str| Dockerfile::parse(format!("FROM a AS b\n{line}\nFROM b\n")).may_read("d/file-1");
    for line in [
        "COPY . /x",
        "COPY * /x/",
        "COPY d /x",
        "COPY d/f* /x",
        "ADD [\"d/file-1\", \"/x\"]",
        "COPY $UNKNOWN /x",
        "COPY [a /x",
        "RUN --mount=target=/x ls",
        "RUN --mount=type=bind,source=d,target=/x ls",
        "ONBUILD COPY . /x",
    ] {
        assert!(reads(line), "{line}");
    }
    for line in
        ["RUN ls", "COPY e d/file-2 e/* /x/", "COPY --from=c . /x", "RUN --mount=type=cache,target=/c ls"]
    {
        assert!(!reads(line), "{line}");
    }
}

#[test]
fn variables_follow_arg_env_and_scope() {
    let text =
        "ARG G=g\nARG H=h\nFROM a\nARG G\nENV E=$G/e O old\nCOPY ${G} $E ${X:-x} /d/\nFROM b\nCOPY $G /d\n";
    assert_eq!(uses(text), ContextUse::All, "G is out of scope in the second stage");
    let first = &text[..text.find("FROM b").unwrap()];
    assert_eq!(uses(first), some(&["g", "g/e", "x"]));
    let given = Dockerfile::parse(first).context_use(&args(&[("G", "given")]));
    assert_eq!(given, some(&["given", "given/e", "x"]));
}

#[test]
fn the_escape_directive_is_followed() {
    assert_eq!(uses("# syntax=x\n# escape=`\nFROM a\nCOPY `\n a\\b /x\n"), some(&["a\\b"]));
    assert_eq!(
        uses("# a comment ends directives\n# escape=`\nFROM a\nCOPY a \\\n b /x\n"),
        some(&["a", "b"])
    );
}

#[test]
fn lines_may_end_as_on_windows() {
    let text = "FROM a\r\nCOPY a \\\r\n b /x\r\nCOPY <<EOF /y\r\nCOPY c /x\r\nEOF\r\nARG A\r\n";
    assert_eq!(uses(text), some(&["a", "b"]));
    let special = Dockerfile::parse(text).specialize(&args(&[("A", "1")]), None).unwrap();
    assert_eq!(special, text.replace("ARG A", "ARG A=\"1\""));
}

#[test]
fn arguments_are_written_into_the_text() {
    let text = "ARG TAG=1\nFROM a:$TAG\nARG A B=\"b c\" \\\n  C\nRUN echo ARG A\n";
    let given = args(&[("A", "x $y \"z\""), ("TAG", "2"), ("C", ""), ("UNUSED", "1")]);
    let dockerfile = Dockerfile::parse(text);
    assert_eq!(
        dockerfile.specialize(&given, None).unwrap(),
        "ARG TAG=\"2\"\nFROM a:$TAG\nARG A=\"x \\$y \\\"z\\\"\" B=\"b c\" C=\"\"\nRUN echo ARG A\n"
    );
    assert_eq!(dockerfile.unused(&given), ["UNUSED"]);
    assert!(dockerfile.specialize(&args(&[("A", "1\n2")]), None).is_err());
    assert_eq!(dockerfile.specialize(&BTreeMap::new(), None).unwrap(), text);
}

#[test]
fn a_target_drops_the_stages_after_it() {
    let text = "FROM a AS One\nRUN 1\nFROM b as two\nRUN 2\nFROM c\n";
    let dockerfile = Dockerfile::parse(text);
    let target = |target| dockerfile.specialize(&BTreeMap::new(), Some(target));
    assert_eq!(target("one").unwrap(), "FROM a AS One\nRUN 1\n");
    assert_eq!(target("1").unwrap(), "FROM a AS One\nRUN 1\nFROM b as two\nRUN 2\n");
    assert_eq!(target("2").unwrap(), text);
    assert!(target("three").unwrap_err().to_string().contains("no stage `three`"));
}
