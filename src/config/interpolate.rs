//! Compose interpolation: `$VAR`, `${VAR}`, the six operators, nested words and `$$`.

use std::collections::BTreeMap;

use super::node::{Node, Value};
use super::problem::{Place, Problem, Read};

/// How deep `${A:-${B:-…}}` may nest; nobody writes more, and an unbounded depth would overflow the stack.
const DEEPEST: usize = 32;

/// Finds the value of a variable.
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A text with variables in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable { name: String, operation: Option<(Operator, Template)> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operator {
    kind: Kind,
    /// Whether an empty value counts as unset (the colon).
    empty_is_unset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Default,
    Required,
    Alternative,
}

impl Template {
    /// Parses a text.
    pub(crate) fn parse(text: &str, place: &Place) -> Read<Self> {
        parse(text, 0).map_err(|message| {
            let shown: String = text.chars().take(60).collect();
            Problem::at(place, format!("`{shown}` cannot be interpolated: {message}"))
                .hint("Write $$ for a dollar sign that is not a variable")
        })
    }

    /// Calls `found` with the name of every variable, those of words included.
    pub(crate) fn variables<'a>(&'a self, found: &mut dyn FnMut(&'a str)) {
        for part in &self.0 {
            if let Part::Variable { name, operation } = part {
                found(name);
                if let Some((_, word)) = operation {
                    word.variables(found);
                }
            }
        }
    }

    /// The text with values put in. `unset` hears of each variable that has neither a value nor an operator.
    pub(crate) fn render(
        &self,
        lookup: &Lookup<'_>,
        unset: &mut dyn FnMut(&str),
        place: &Place,
    ) -> Read<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable { name, operation: None } => match lookup(name) {
                    Some(value) => out.push_str(&value),
                    None => unset(name),
                },
                Part::Variable { name, operation: Some((operator, word)) } => {
                    let value = lookup(name);
                    let set =
                        value.as_ref().is_some_and(|value| !(operator.empty_is_unset && value.is_empty()));
                    match (operator.kind, set) {
                        (Kind::Default, false) | (Kind::Alternative, true) => {
                            out.push_str(&word.render(lookup, unset, place)?);
                        }
                        (Kind::Default | Kind::Required, true) => out.push_str(&value.unwrap_or_default()),
                        (Kind::Alternative, false) => {}
                        (Kind::Required, false) => {
                            let word = word.render(lookup, unset, place)?;
                            let reason = if word.is_empty() { "it has no value" } else { &word };
                            let message = format!("the variable `{name}` is required: {reason}");
                            return Err(Problem::at(place, message));
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

fn parse(text: &str, depth: usize) -> Result<Template, String> {
    if depth > DEEPEST {
        return Err(format!("variables nest deeper than {DEEPEST}"));
    }
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        literal.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(left) = after.strip_prefix('$') {
            literal.push('$');
            rest = left;
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = closing_brace(inside).ok_or("a `${` has no `}`")?;
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(braced(&inside[..end], depth)?);
            rest = &inside[end + 1..];
        } else {
            let length = name_length(after);
            if length == 0 {
                // As Compose has it, a dollar sign before anything else is a dollar sign.
                literal.push('$');
            } else {
                parts.push(Part::Text(std::mem::take(&mut literal)));
                parts.push(Part::Variable { name: after[..length].to_owned(), operation: None });
            }
            rest = &after[length..];
        }
    }
    literal.push_str(rest);
    parts.push(Part::Text(literal));
    parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
    Ok(Template(parts))
}

/// The inside of `${…}`.
fn braced(inside: &str, depth: usize) -> Result<Part, String> {
    let (name, rest) = inside.split_at(name_length(inside));
    if name.is_empty() {
        return Err(format!("`${{{inside}}}` does not begin with the name of a variable"));
    }
    if rest.is_empty() {
        return Ok(Part::Variable { name: name.to_owned(), operation: None });
    }
    let (empty_is_unset, rest) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let mut characters = rest.chars();
    let kind = match characters.next() {
        Some('-') => Kind::Default,
        Some('?') => Kind::Required,
        Some('+') => Kind::Alternative,
        _ => return Err(format!("`${{{inside}}}` has none of the operators :- - :? ? :+ +")),
    };
    let word = parse(characters.as_str(), depth + 1)?;
    let operation = Some((Operator { kind, empty_is_unset }, word));
    Ok(Part::Variable { name: name.to_owned(), operation })
}

/// Where the brace closes that was open before `text`. Braces within nest.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(index);
        }
    }
    None
}

fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

/// Interpolates every value below `node`; keys stay as they are. Returns the variables that had no value, with the
/// place of their first use.
pub(crate) fn interpolate(node: &mut Node, lookup: &Lookup<'_>) -> Read<BTreeMap<String, Place>> {
    let mut unset = BTreeMap::new();
    walk(node, lookup, &mut unset)?;
    Ok(unset)
}

fn walk(node: &mut Node, lookup: &Lookup<'_>, unset: &mut BTreeMap<String, Place>) -> Read<()> {
    match &mut node.value {
        Value::Scalar(text) if text.contains('$') => {
            let place = &node.place;
            let mut remember = |name: &str| {
                unset.entry(name.to_owned()).or_insert_with(|| place.clone());
            };
            *text = Template::parse(text, place)?.render(lookup, &mut remember, place)?;
            // As in Compose, what comes from a variable is text until a reader wants a number.
            node.plain = false;
        }
        Value::Sequence(items) => items.iter_mut().try_for_each(|item| walk(item, lookup, unset))?,
        Value::Mapping(mapping) => {
            mapping.0.iter_mut().try_for_each(|entry| walk(&mut entry.value, lookup, unset))?;
        }
        Value::Null | Value::Scalar(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn render(text: &str) -> Result<String, String> {
        let place = Place::Text { line: 1, column: 1 };
        Template::parse(text, &place)
            .and_then(|template| template.render(&lookup, &mut |_| {}, &place))
            .map_err(|problem| problem.into_error("f").message().to_owned())
    }

    #[test]
    fn every_form_gives_what_compose_gives() {
        for (text, expected) in [
            ("$SET", "value"),
            ("${SET}", "value"),
            ("a$SET.b", "avalue.b"),
            ("$UNSET", ""),
            ("${SET:-d}", "value"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${UNSET-d}", "d"),
            ("${UNSET:-}", ""),
            ("${SET:+alt}", "alt"),
            ("${EMPTY:+alt}", ""),
            ("${EMPTY+alt}", "alt"),
            ("${UNSET+alt}", ""),
            ("${SET:?no}", "value"),
            ("${EMPTY?no}", ""),
            ("$$SET", "$SET"),
            ("$$$SET", "$value"),
            ("${UNSET:-${EMPTY:-$SET}}", "value"),
            ("${UNSET:-a-b:-c}", "a-b:-c"),
            ("${UNSET:-{\"a\": {}}}!", "{\"a\": {}}!"),
            ("${UNSET:-$$x}", "$x"),
            ("cost: $5 or $", "cost: $5 or $"),
            ("$(date) $'a'", "$(date) $'a'"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_required_variable_without_a_value_says_the_users_reason() {
        assert_eq!(
            render("${EMPTY:?set it}").unwrap_err(),
            "f:1:1: the variable `EMPTY` is required: set it"
        );
        assert_eq!(render("${U?$SET!}").unwrap_err(), "f:1:1: the variable `U` is required: value!");
    }

    #[test]
    fn a_broken_form_is_an_error() {
        for text in ["${", "${}", "${SET", "${1}", "${SET!}", "${SET:}", "${ SET}", "${UNSET:-${}"] {
            assert!(render(text).is_err(), "{text}");
        }
        let deep = format!("{}x{}", "${A:-".repeat(1000), "}".repeat(1000));
        assert!(render(&deep).unwrap_err().contains("nest deeper"));
    }
}
