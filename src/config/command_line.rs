//! Command lines, split into words as Compose splits them.

use super::node::{Node, Value};
use super::problem::Read;
use super::reading::Reading;

/// An argv: a list, or a line that is split into words. A word at which Compose stops reading is named in a warning.
pub(crate) fn argv(reading: &mut Reading<'_>, node: &Node, key: &str) -> Read<Vec<String>> {
    let Value::Scalar(line) = &node.value else { return node.texts(key) };
    let Some((words, end)) = split(line) else {
        return Err(node.problem(format!(
            "`{key}` has a quote, a parenthesis or a backslash that does not end: `{line}`"
        )));
    };
    if let Some(end) = end {
        reading.warn(
            &node.place,
            format!(
                "Compose drops what follows an unquoted `{end}` in `{key}`: for a shell write [\"sh\", \"-c\", \"…\"]"
            ),
        );
    }
    Ok(words)
}

/// What holds blanks and operators together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    Single,
    Double,
    /// Kept with what is in them, and quotes within still count.
    Backtick,
    /// `$(…)`, kept with what is in it.
    Substitution,
}

/// The words of a line, and the operator of a shell at which reading stops. Quotes group, and a backslash keeps the next
/// character, whatever it is, but in single quotes. Nothing is expanded. Nothing comes back where something does not end.
fn split(line: &str) -> Option<(Vec<String>, Option<char>)> {
    use Quote::{Backtick, Double, Single, Substitution};
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut open: Vec<Quote> = Vec::new();
    let mut end = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let is_open = |quote| open.contains(&quote);
        match character {
            '\\' if !is_open(Single) => word.get_or_insert_default().push(characters.next()?),
            ' ' | '\t' | '\n' | '\r' if open.is_empty() => words.extend(word.take()),
            '"' if !is_open(Single) && !is_open(Substitution) => {
                word.get_or_insert_default();
                toggle(&mut open, Double);
            }
            '\'' if !is_open(Double) && !is_open(Substitution) => {
                word.get_or_insert_default();
                toggle(&mut open, Single);
            }
            ';' | '&' | '|' | '<' | '>' if open.is_empty() => {
                // `2>` redirects a stream, whose number is no word
                let is_stream = |word: &String| word.starts_with(|first: char| first.is_ascii_digit());
                word = word.filter(|word| character != '>' || !is_stream(word));
                end = Some(character);
                break;
            }
            _ => {
                let is_quoted = is_open(Single) || is_open(Double);
                match character {
                    '`' if !is_quoted && !is_open(Substitution) => toggle(&mut open, Backtick),
                    ')' if !is_quoted && !is_open(Backtick) => toggle(&mut open, Substitution),
                    '(' if !is_quoted && !is_open(Backtick) => {
                        if is_open(Substitution) || !word.as_ref().is_some_and(|word| word.ends_with('$')) {
                            return None;
                        }
                        open.push(Substitution);
                    }
                    _ => {}
                }
                word.get_or_insert_default().push(character);
            }
        }
    }
    words.extend(word);
    open.is_empty().then_some((words, end))
}

fn toggle(open: &mut Vec<Quote>, quote: Quote) {
    match open.iter().position(|other| *other == quote) {
        Some(index) => drop(open.remove(index)),
        None => open.push(quote),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap().0
    }

    #[test]
    fn a_command_line_splits_as_in_a_shell() {
        assert_eq!(words("bash -c \"echo 'a' \\\"b\\\" && c\""), ["bash", "-c", "echo 'a' \"b\" && c"]);
        assert_eq!(words("a'b c'd \"\" e\\ f 'g\\h'"), ["ab cd", "", "e f", "g\\h"]);
        assert_eq!(words("a \"b\\\nc\\d\""), ["a", "b\ncd"]);
        assert_eq!(words("  "), Vec::<String>::new());
        for line in ["a 'b", "a\\", "a (b)", "a )", "a `b", "a $(b"] {
            assert_eq!(split(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_ends_at_an_operator_of_a_shell() {
        assert_eq!(split("python a.py > log 2>&1"), Some((words("python a.py"), Some('>'))));
        assert_eq!(split("python a.py 2>&1"), Some((words("python a.py"), Some('>'))));
        assert_eq!(split("a; b"), Some((words("a"), Some(';'))));
        assert_eq!(
            split("a \"b;c\" 'd|e' f\\&g `h;i` $(j | k)"),
            Some((["a", "b;c", "d|e", "f&g", "`h;i`", "$(j | k)"].map(str::to_owned).to_vec(), None,))
        );
    }
}
