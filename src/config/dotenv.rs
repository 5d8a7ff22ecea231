//! `.env` files and `env_file`, as Compose reads them.

use std::collections::BTreeMap;

use super::interpolate::{Lookup, Template};
use super::problem::{Place, Problem, Read};

/// Parses `NAME=value` lines. `lookup` gives the values of variables that are used in values or named without a value;
/// it wins over names that the file itself defined before.
pub(crate) fn parse(text: &str, lookup: &Lookup<'_>) -> Read<BTreeMap<String, String>> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut values = BTreeMap::new();
    while reader.skip_to_statement() {
        let place = Place::text(reader.line, 1);
        let (name, has_value) = reader.name(&place)?;
        if !has_value {
            if let Some(value) = lookup(&name) {
                values.insert(name, value);
            }
            continue;
        }
        let value = reader.value(&place)?;
        let value = match value {
            Text::Literal(value) => value,
            Text::Template(value) => {
                let known = |name: &str| lookup(name).or_else(|| values.get(name).cloned());
                Template::parse(&value, &place)?.render(&known, &mut |_| {}, &place)?
            }
        };
        values.insert(name, value);
    }
    Ok(values)
}

/// Parses lines of `NAME=value` without quotes, escapes or variables (`format: raw`, as `docker run --env-file`).
pub(crate) fn parse_raw(text: &str, lookup: &Lookup<'_>) -> Read<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), lookup(line.trim_end())),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            let place = Place::text(index + 1, 1);
            return Err(Problem::at(&place, format!("`{name}` is not the name of a variable")));
        }
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    }
    Ok(values)
}

enum Text {
    Literal(String),
    Template(String),
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn advance(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }

    /// Skips blanks and comments; false at the end of the file.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            self.advance(self.rest.len() - self.rest.trim_start().len());
            if !self.rest.starts_with('#') {
                return !self.rest.is_empty();
            }
            self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    /// The name, and whether a value follows.
    fn name(&mut self, place: &Place) -> Read<(String, bool)> {
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with(char::is_whitespace)
        {
            self.advance(self.rest.len() - after.trim_start().len());
        }
        let end = self.rest.find(['=', ':', '\n']).unwrap_or(self.rest.len());
        let name = self.rest[..end].trim().to_owned();
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() || !name.chars().all(fits) {
            return Err(Problem::at(place, format!("`{name}` is not the name of a variable")));
        }
        let has_value = self.rest[end..].starts_with(['=', ':']);
        self.advance((end + 1).min(self.rest.len()));
        Ok((name, has_value))
    }

    fn value(&mut self, place: &Place) -> Read<Text> {
        let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r', '\u{b}', '\u{c}']).len();
        self.advance(blank);
        if let Some(quote @ ('"' | '\'')) = self.rest.chars().next() {
            return self.quoted(quote, place);
        }
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        let value = line.find(" #").map_or(line, |comment| &line[..comment]).trim_end().to_owned();
        self.advance(end);
        Ok(Text::Template(value))
    }

    /// A quoted value, which may span lines. A backslash keeps the quote; other escapes mean something in double
    /// quotes only.
    fn quoted(&mut self, quote: char, place: &Place) -> Read<Text> {
        let mut value = String::new();
        let mut characters = self.rest[1..].char_indices();
        while let Some((index, character)) = characters.next() {
            if character == quote {
                self.advance(1 + index + character.len_utf8());
                return Ok(match quote {
                    '"' => Text::Template(unescape(&value)),
                    _ => Text::Literal(value),
                });
            }
            if character != '\\' {
                value.push(character);
                continue;
            }
            match characters.next() {
                Some((_, next)) if next == quote => value.push(quote),
                Some((_, next)) => value.extend(['\\', next]),
                None => break,
            }
        }
        Err(Problem::at(place, format!("a value that begins with {quote} has no closing quote")))
    }
}

/// Escapes within double quotes. `\$` becomes `$$`, since variables are put in afterwards.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('$') => out.push_str("$$"),
            Some(quoted @ ('"' | '\\')) => out.push(quoted),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> BTreeMap<String, String> {
        parse(text, &|name| (name == "HOST").then(|| "h".to_owned())).unwrap()
    }

    fn pairs(items: &[(&str, &str)]) -> BTreeMap<String, String> {
        items.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn quotes_comments_exports_and_blanks_read_as_in_compose() {
        let text =
            "# c\nA=1\nexport B = two words # c\nC='$A # x'\nD=\"a\\n$HOST\\$x\"\n\nE=\nF=a#b\nG: yaml\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$A # x"),
            ("D", "a\nh$x"),
            ("E", ""),
            ("F", "a#b"),
            ("G", "yaml"),
        ];
        assert_eq!(read(text), pairs(&expected));
    }

    #[test]
    fn a_value_may_use_earlier_names_and_span_lines_in_quotes() {
        assert_eq!(read("A=1\nB=${A}2\nC=\"x\ny\"\nD=e"), {
            pairs(&[("A", "1"), ("B", "12"), ("C", "x\ny"), ("D", "e")])
        });
    }

    #[test]
    fn a_name_alone_is_inherited() {
        assert_eq!(read("HOST\nOTHER\nA=1"), pairs(&[("HOST", "h"), ("A", "1")]));
    }

    #[test]
    fn errors_name_the_line() {
        let error = parse("A=1\n\nB='x", &|_| None).unwrap_err().into_error(".env").to_string();
        assert!(error.starts_with(".env:3:1"), "{error}");
        assert!(parse("a b=1", &|_| None).is_err());
        assert!(parse("=1", &|_| None).is_err());
    }

    #[test]
    fn raw_lines_keep_quotes_and_dollars() {
        assert_eq!(parse_raw("A='$x' # y\n#c\n", &|_| None).unwrap(), pairs(&[("A", "'$x' # y")]));
    }
}
