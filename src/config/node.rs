//! A configuration as a tree, with scalars as they were written and the place of each node.
//!
//! Nothing is a number or a boolean before a reader asks for one: `3.10` stays an image tag, `0755` a string and
//! `22:22` a port.

use std::str::FromStr;
use std::sync::Arc;

use super::problem::{Place, Problem, Read};

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Where.
    pub(crate) place: Place,
    /// What.
    pub(crate) value: Value,
    /// Whether it is a scalar without quotes, so that it may mean a number or a boolean.
    pub(crate) plain: bool,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A plain `null`, `~` or nothing.
    Null,
    /// Text, whether it was quoted or not.
    Scalar(String),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file.
    Mapping(Mapping),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key's text.
    pub(crate) key: String,
    /// Where the key was written.
    pub(crate) place: Place,
    /// The value.
    pub(crate) value: Node,
}

/// A mapping, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping(pub(crate) Vec<Entry>);

impl Mapping {
    /// The value of `key`. `null` means unset, so it reads as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value).filter(|node| node.value != Value::Null)
    }

    /// The entry of `key`, `null` or not.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    /// Entries in the order of the file.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}

impl Node {
    /// What the value is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar(text) if text.chars().count() <= 40 => format!("`{text}`"),
            Value::Scalar(_) => "a long text".to_owned(),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }

    /// A problem at this node.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::at(&self.place, message)
    }

    fn expected(&self, key: &str, what: &str) -> Problem {
        self.problem(format!("`{key}` must be {what}, not {}", self.describe()))
    }

    /// The mapping.
    pub(crate) fn mapping(&self, key: &str) -> Read<&Mapping> {
        match &self.value {
            Value::Mapping(mapping) => Ok(mapping),
            _ => Err(self.expected(key, "a mapping")),
        }
    }

    /// The items of a list.
    pub(crate) fn sequence(&self, key: &str) -> Read<&[Self]> {
        match &self.value {
            Value::Sequence(items) => Ok(items),
            _ => Err(self.expected(key, "a list")),
        }
    }

    /// The text as written.
    pub(crate) fn text(&self, key: &str) -> Read<&str> {
        match &self.value {
            Value::Scalar(text) => Ok(text),
            _ => Err(self.expected(key, "a single value")),
        }
    }

    /// Text that is not empty.
    pub(crate) fn name(&self, key: &str) -> Read<&str> {
        match self.text(key)? {
            "" => Err(self.problem(format!("`{key}` is empty"))),
            text => Ok(text),
        }
    }

    /// A boolean, in the spellings that Compose accepts.
    pub(crate) fn boolean(&self, key: &str) -> Read<bool> {
        match self.text(key)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "y" | "on" => Ok(true),
            "false" | "no" | "n" | "off" => Ok(false),
            _ => Err(self.expected(key, "true or false")),
        }
    }

    /// A whole number within `least..=most`.
    pub(crate) fn integer<T: FromStr + PartialOrd + Copy + std::fmt::Display>(
        &self,
        key: &str,
        least: T,
        most: T,
    ) -> Read<T> {
        let number = match self.plain_integer() {
            Some(number) => number.to_string().parse::<T>(),
            None => self.text(key)?.parse::<T>(),
        };
        match number {
            Ok(number) if number >= least && number <= most => Ok(number),
            _ => Err(self.expected(key, &format!("a whole number from {least} to {most}"))),
        }
    }

    /// The whole number of a scalar without quotes, as YAML reads it: `0755` and `0o755` are octal, `0x10` and `0b11` too
    /// are numbers, and `_` may stand between digits.
    pub(crate) fn plain_integer(&self) -> Option<i64> {
        let Value::Scalar(text) = &self.value else { return None };
        if !self.plain || !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-')) {
            return None;
        }
        let (sign, digits) = match text.as_bytes().first()? {
            b'-' => ("-", &text[1..]),
            b'+' => ("", &text[1..]),
            _ => ("", text.as_str()),
        };
        let digits = digits.replace('_', "");
        let (digits, base) = match digits.as_bytes() {
            [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
            [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
            [b'0', b'o' | b'O', ..] => (&digits[2..], 8),
            [b'0', _, ..] => (&digits[1..], 8),
            _ => (digits.as_str(), 10),
        };
        if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
            return None;
        }
        i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
    }

    /// A number that is neither negative nor infinite.
    pub(crate) fn number(&self, key: &str) -> Read<f64> {
        let number = match self.plain_integer() {
            Some(number) => number.to_string().parse::<f64>(),
            None => self.text(key)?.parse::<f64>(),
        };
        match number {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
            _ => Err(self.expected(key, "a number that is not negative")),
        }
    }

    /// A list of texts; a single value counts as a list of one.
    pub(crate) fn texts(&self, key: &str) -> Read<Vec<String>> {
        match &self.value {
            Value::Scalar(text) => Ok(vec![text.clone()]),
            Value::Sequence(items) => items.iter().map(|item| Ok(item.text(key)?.to_owned())).collect(),
            _ => Err(self.expected(key, "a list or a single value")),
        }
    }

    /// Moves every place to another file than the one that is read.
    pub(crate) fn name_file(&mut self, file: &Arc<str>) {
        self.place = self.place.of_file(file);
        match &mut self.value {
            Value::Sequence(items) => items.iter_mut().for_each(|item| item.name_file(file)),
            Value::Mapping(mapping) => {
                for entry in &mut mapping.0 {
                    entry.place = entry.place.of_file(file);
                    entry.value.name_file(file);
                }
            }
            Value::Null | Value::Scalar(_) => {}
        }
    }

    /// Whether both mean the same, wherever they were written.
    pub(crate) fn means(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Sequence(a), Value::Sequence(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.means(b))
            }
            (Value::Mapping(a), Value::Mapping(b)) => {
                let matches =
                    |entry: &Entry| b.entry(&entry.key).is_some_and(|other| entry.value.means(&other.value));
                a.0.len() == b.0.len() && a.iter().all(matches)
            }
            (a, b) => a == b,
        }
    }

    /// Whether the value says nothing: null, false, empty.
    pub(crate) fn is_void(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Scalar(text) => text.is_empty() || text.eq_ignore_ascii_case("false"),
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(mapping) => mapping.0.is_empty(),
        }
    }
}
