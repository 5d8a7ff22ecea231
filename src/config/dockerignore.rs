//! `.dockerignore`, by the rules of the Docker builder: the last pattern that matches decides, `!` takes back, and what
//! matches a directory matches everything below.

use super::pattern::{Pattern, clean};

/// The patterns of a `.dockerignore`.
#[derive(Clone, Debug, Default)]
pub struct DockerIgnore {
    patterns: Vec<(bool, Pattern)>,
}

impl DockerIgnore {
    /// Parses the file.
    ///
    /// # Errors
    /// The line number and text of a pattern that is not well-formed.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut lines = Vec::new();
        for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            let pattern = line.trim();
            if line.starts_with('#') || pattern.is_empty() {
                continue;
            }
            let (prefix, pattern) = match pattern.strip_prefix('!') {
                Some(pattern) => ("!", pattern.trim()),
                None => ("", pattern),
            };
            let cleaned = if pattern.is_empty() { String::new() } else { clean(pattern) };
            let relative = if cleaned.len() > 1 { cleaned.strip_prefix('/') } else { None };
            lines.push((index + 1, format!("{prefix}{}", relative.unwrap_or(&cleaned))));
        }
        let mut patterns = Vec::new();
        for (number, line) in &lines {
            match pattern(line) {
                Some(pattern) => patterns.push(pattern),
                None => return Err((*number, line.clone())),
            }
        }
        Ok(Self { patterns })
    }

    /// Whether the path, relative to the context and with slashes, is left out of the context.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for (takes_back, pattern) in &self.patterns {
            if *takes_back == excluded && pattern.matches_within(path) {
                excluded = !takes_back;
            }
        }
        excluded
    }

    /// Whether something below an excluded directory may still be included.
    pub fn takes_back(&self) -> bool {
        self.patterns.iter().any(|(takes_back, _)| *takes_back)
    }
}

fn pattern(line: &str) -> Option<(bool, Pattern)> {
    match clean(line.trim()).strip_prefix('!') {
        Some("") => None,
        Some(pattern) => Some((true, Pattern::parse(pattern)?)),
        None => Some((false, Pattern::parse(&clean(line.trim()))?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables in the builder's own test suite (moby/patternmatcher, `TestMatches`): pattern, path, excluded.
    const PUBLISHED: &[(&str, &str, bool)] = &[
        ("**", "file", true),
        ("**", "file/", true),
        ("**/", "file", true),
        ("**/", "file/", true),
        ("**", "/", true),
        ("**/", "/", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**", "dir/file/", true),
        ("**/", "dir/file/", true),
        ("**/**", "dir/file", true),
        ("**/**", "dir/file/", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/file/", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir/dir2/file/", true),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/file/", true),
        ("**/dir2/**", "dir/dir2/dir3/file", true),
        ("**/dir2/**", "dir/dir2/dir3/file/", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**/file", "dir/file", true),
        ("**file", "dir/dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc", false),
        ("abc/**", "abc/def", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        ("a\\*b", "a*b", true),
        ("**\n!util/docker/web", "util/docker/web/foo", false),
        ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", true),
        ("**\n!dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", false),
        ("*", "fileutils.go", true),
        ("*.go", "fileutils.go", true),
        ("!fileutils.go\n*.go", "fileutils.go", true),
        ("docs\n!docs/README.md", "docs/README.md", false),
        ("docs/\n!docs/README.md", "docs/README.md", false),
        ("docs/*\n!docs/README.md", "docs/README.md", false),
        ("*.go\n!fileutils.go", "fileutils.go", false),
    ];

    #[test]
    fn the_builders_published_cases_hold() {
        for (patterns, path, expected) in PUBLISHED {
            let ignore = DockerIgnore::parse(patterns).unwrap();
            assert_eq!(ignore.excludes(path), *expected, "{patterns:?} on {path:?}");
        }
    }

    #[test]
    fn patterns_out_of_shape_are_refused_with_their_line() {
        let malformed = ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "\\", "!"];
        for pattern in malformed {
            let error = DockerIgnore::parse(&format!("# comment\nok\n{pattern}\n")).unwrap_err();
            assert_eq!(error.0, 3, "{pattern}");
        }
    }

    #[test]
    fn classes_and_escapes_follow_go() {
        for (pattern, path, expected) in [
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("a*/b", "a/c/b", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn comments_blanks_slashes_and_spaces_are_cleaned() {
        let ignore = DockerIgnore::parse("\u{feff}# all\n\n /a/../b/ \n!  /b/keep \n").unwrap();
        assert!(ignore.excludes("b/x"));
        assert!(!ignore.excludes("b/keep/x"));
        assert!(!ignore.excludes("a"));
        assert!(ignore.takes_back());
    }
}
