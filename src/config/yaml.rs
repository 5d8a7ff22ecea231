//! YAML text to a tree. The only file that knows the YAML crate.
//!
//! The tree is built from the parser's events, since a deserializer would turn `0755` and `3.10` into numbers before
//! anybody asked. Duplicate keys, several documents, unknown tags and texts that grow without bound through aliases
//! are errors with their line and column.

use std::collections::{HashMap, HashSet};

use serde_yaml::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::node::{Entry, Mapping, Node, Value};
use super::problem::{Place, Problem, Read};

/// The most nodes of a file with its aliases written out: ten times the largest compose file seen, small enough that
/// an alias bomb ends within milliseconds.
const MOST_NODES: usize = 100_000;
/// The longest text, so that a wrong file (a disk image, a log) is refused at once.
const LONGEST_TEXT: usize = 4 << 20;

/// Parses one YAML document.
pub(crate) fn parse(text: &str) -> Read<Node> {
    let start = Place::Text { line: 1, column: 1 };
    if text.len() > LONGEST_TEXT {
        return Err(Problem::at(&start, format!("the file is longer than {} MiB", LONGEST_TEXT >> 20)));
    }
    let mut composer = Composer { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut root = None;
    loop {
        let (event, span) = composer.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            _ if root.is_some() => {
                return Err(Problem::at(&place(&span.start), "the file holds more than one YAML document"));
            }
            event => root = Some(composer.node(event, span)?),
        }
    }
    Ok(root.unwrap_or(Node { place: start, value: Value::Null, plain: true }))
}

/// Builds nodes from events.
struct Composer<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Nodes with an anchor, and how many nodes each is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Read<(Event<'a>, Span)> {
        loop {
            return match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => continue,
                Some(Ok(event)) => Ok(event),
                Some(Err(error)) => {
                    let message = format!("this is not valid YAML: {}", error.info());
                    Err(Problem::at(&place(error.marker()), message))
                }
                None => Ok((Event::StreamEnd, Span::default())),
            };
        }
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'a>, span: Span) -> Read<Node> {
        let place = place(&span.start);
        let before = self.nodes;
        self.count(1, &place)?;
        let (value, anchor, plain) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(Problem::at(&place, "an alias refers to the node that contains it"));
                };
                self.count(size, &place)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let forced = scalar_tag(tag.as_deref(), &place)?;
                let plain = style == ScalarStyle::Plain && !forced;
                let value =
                    if plain && is_null(&text) { Value::Null } else { Value::Scalar(text.into_owned()) };
                (value, anchor, plain)
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), &place)?;
                (Value::Sequence(self.sequence()?), anchor, false)
            }
            Event::MappingStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), &place)?;
                (Value::Mapping(self.mapping()?), anchor, false)
            }
            _ => return Err(Problem::at(&place, "this is not valid YAML: a value was expected")),
        };
        let node = Node { place, value, plain };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn sequence(&mut self) -> Read<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn mapping(&mut self) -> Read<Mapping> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = Keys::default();
        let mut merged = None;
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            let text = match key.value {
                Value::Scalar(text) => text,
                Value::Null => "null".to_owned(),
                _ => return Err(key.problem("a key must be a single value")),
            };
            if key.plain && text == "<<" {
                if merged.is_some() {
                    let problem = Problem::at(&key.place, "the key `<<` is written twice");
                    return Err(problem.hint("Merge several mappings with a list: `<<: [*a, *b]`"));
                }
                merge_sources(value, merged.insert(Vec::new()))?;
            } else if seen.add(&text, &entries) {
                entries.push(Entry { key: text, place: key.place, value });
            } else {
                return Err(Problem::at(&key.place, format!("the key `{text}` is written twice")));
            }
        }
        // What is written here wins over what is merged, and an earlier source over a later one.
        for entry in merged.into_iter().flatten() {
            if seen.add(&entry.key, &entries) {
                entries.push(entry);
            }
        }
        Ok(Mapping(entries))
    }

    fn count(&mut self, nodes: usize, place: &Place) -> Read<()> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES {
            return Err(Problem::at(place, format!("aliases make the file larger than {MOST_NODES} values")));
        }
        Ok(())
    }
}

/// The keys of a mapping so far. Most mappings are so short that looking through them is cheaper than hashing; a long one
/// must not take quadratic time.
#[derive(Default)]
struct Keys(HashSet<String>);

impl Keys {
    const FEW: usize = 32;

    /// Adds the key of the entry that follows `entries`; false where one of them has it.
    fn add(&mut self, key: &str, entries: &[Entry]) -> bool {
        if entries.len() < Self::FEW {
            return !entries.iter().any(|entry| entry.key == key);
        }
        if self.0.is_empty() {
            self.0.extend(entries.iter().map(|entry| entry.key.clone()));
        }
        self.0.insert(key.to_owned())
    }
}

/// The entries of a merge key's value: a mapping or a list of mappings.
fn merge_sources(value: Node, merged: &mut Vec<Entry>) -> Read<()> {
    match value.value {
        Value::Mapping(mapping) => merged.extend(mapping.0),
        Value::Sequence(items) => {
            for item in items {
                let Value::Mapping(mapping) = item.value else {
                    return Err(item.problem("a merge key takes a mapping or a list of mappings"));
                };
                merged.extend(mapping.0);
            }
        }
        _ => return Err(value.problem("a merge key takes a mapping or a list of mappings")),
    }
    Ok(())
}

fn place(marker: &Marker) -> Place {
    Place::text(marker.line().max(1), marker.col() + 1)
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Whether a tag makes the scalar a string. Other core tags say what the reader checks anyway.
fn scalar_tag(tag: Option<&Tag>, place: &Place) -> Read<bool> {
    match tag {
        None => Ok(false),
        Some(tag) => match tag.core_suffix() {
            Some("str") => Ok(true),
            Some("int" | "float" | "bool" | "null") => Ok(false),
            _ if tag.original() == "!" => Ok(true),
            _ => Err(unknown_tag(tag, place)),
        },
    }
}

fn collection_tag(tag: Option<&Tag>, place: &Place) -> Read<()> {
    match tag {
        Some(tag) if !matches!(tag.core_suffix(), Some("map" | "seq")) => Err(unknown_tag(tag, place)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, place: &Place) -> Problem {
    Problem::at(place, format!("the YAML tag `{}` is not supported", tag.original()))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn value(text: &str) -> String {
        parse(text).unwrap().mapping("root").unwrap().0[0].value.describe()
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().into_error("f").to_string()
    }

    #[test]
    fn scalars_stay_as_they_were_written() {
        for scalar in ["3.10", "on", "0755", "22:22", "1_000", "1e3", "True", "2020-01-01", "0x1F", ".5"] {
            assert_eq!(value(&format!("a: {scalar}")), format!("`{scalar}`"));
        }
        assert_eq!(value("a: 'null'"), "`null`");
        assert_eq!(value("a: !!str null"), "`null`");
        for null in ["", "~", "null", "NULL"] {
            assert_eq!(value(&format!("a: {null}")), "nothing");
        }
    }

    #[test]
    fn merge_keys_lose_to_written_keys_and_later_sources_to_earlier_ones() {
        let text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2, d: 2}\nz:\n  <<: [*x, *y]\n  c: 3\n";
        let root = parse(text).unwrap();
        let z = root.mapping("").unwrap().get("z").unwrap().mapping("").unwrap();
        let read = |key| z.get(key).unwrap().text(key).unwrap();
        assert_eq!([read("a"), read("b"), read("c"), read("d")], ["1", "1", "3", "2"]);
    }

    #[test]
    fn a_duplicate_key_is_an_error_with_its_place() {
        assert_eq!(error("a: 1\nb:\n  c: 1\n  c: 2\n"), "f:4:3: the key `c` is written twice");
    }

    #[test]
    fn an_alias_bomb_ends_with_its_place() {
        let mut text = "l0: &l0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let items = [format!("*l{}", level - 1).as_str(); 9].join(",");
            writeln!(text, "l{level}: &l{level} [{items}]").unwrap();
        }
        let message = error(&text);
        assert!(message.contains("aliases make the file larger"), "{message}");
        assert!(message.starts_with("f:6:"), "{message}");
    }

    #[test]
    fn what_is_not_one_plain_document_is_an_error() {
        assert!(error("a: [").starts_with("f:"), "{}", error("a: ["));
        assert!(error("a: 1\n---\nb: 2\n").contains("more than one"));
        assert!(error("a: !reset null\n").contains("`!reset`"));
        assert!(error("a: &a [*a]\n").contains("contains it"), "{}", error("a: &a [*a]\n"));
        assert!(error("[a]: 1\n").contains("single value"));
        assert!(error("a: *b\n").contains("not valid YAML"));
    }
}
