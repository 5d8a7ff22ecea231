//! Words of a Dockerfile: quotes, escapes and variables.

use std::collections::BTreeMap;

/// Words with their quotes and escapes removed and variables replaced. `None` where a quote or a brace stays open, or a
/// variable has a form that a builder may know and we do not.
pub(super) fn words(text: &str, escape: char, variables: &BTreeMap<String, String>) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, Some(open)) if letter == open => quote = None,
            (letter, quote) if letter == escape && quote != Some('\'') => {
                let word = word.get_or_insert_default();
                match letters.next()? {
                    // within double quotes, it escapes what means something there
                    next if quote.is_some() && !matches!(next, '"' | '$') && next != escape => {
                        word.extend([letter, next]);
                    }
                    next => word.push(next),
                }
            }
            ('$', None | Some('"')) => {
                let value = variable(&mut letters, variables)?;
                word.get_or_insert_default().push_str(&value);
            }
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// What follows a `$`.
fn variable(
    letters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    variables: &BTreeMap<String, String>,
) -> Option<String> {
    let in_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    if letters.next_if_eq(&'{').is_none() {
        let name: String = std::iter::from_fn(|| letters.next_if(in_name)).collect();
        let value = variables.get(&name).cloned().unwrap_or_default();
        return Some(if name.is_empty() { "$".to_owned() } else { value });
    }
    let name: String = std::iter::from_fn(|| letters.next_if(in_name)).collect();
    let value = variables.get(&name).filter(|value| !value.is_empty());
    let rest: String = letters.by_ref().take_while(|letter| *letter != '}').collect();
    // a value with variables of its own is a builder's
    if name.is_empty() || rest.contains(['$', '{', '\'', '"', '\\']) {
        return None;
    }
    match (rest.get(..2), rest.get(2..)) {
        _ if rest.is_empty() => Some(variables.get(&name).cloned().unwrap_or_default()),
        (Some(":-"), Some(default)) => Some(value.cloned().unwrap_or_else(|| default.to_owned())),
        (Some(":+"), Some(other)) => Some(if value.is_some() { other.to_owned() } else { String::new() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<String>> {
        words(
            text,
            '\\',
            &BTreeMap::from([("A".to_owned(), "1 2".to_owned()), ("E".to_owned(), String::new())]),
        )
    }

    #[test]
    fn words_lose_their_quotes_and_variables_keep_their_blanks() {
        for (text, expected) in [
            ("a  b", vec!["a", "b"]),
            (r#"K="a b" L='c $A' M=d\ e"#, vec!["K=a b", "L=c $A", "M=d e"]),
            ("x$A ${A}y $B", vec!["x1 2", "1 2y", ""]),
            ("${B:-d} ${E:-d} ${A:+s} ${B:+s}", vec!["d", "d", "s", ""]),
            (r#"\$A "\$A" "a\b" "" $"#, vec!["$A", "$A", "a\\b", "", "$"]),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        for text in ["'a", "\"a", "${A:?x}", "${A#x}", "${}", "${B:-$A}", "a\\"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
