//! Shell patterns for base names, with the rules of Go's `filepath.Match`.

/// Whether `name` matches `pattern` (`*`, `?`, `[a-z]`, `[^a]`, `\`). A malformed pattern matches nothing.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // the last `*`, and how much of the name it has taken, to come back to
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let rest = pattern.get(at..).unwrap_or_default();
        match rest {
            [] if position == name.len() => return true,
            ['*', ..] => {
                at += 1;
                star = Some((at, position));
                continue;
            }
            _ => {}
        }
        if let Some(used) = name.get(position).and_then(|character| single(rest, *character)) {
            at += used;
            position += 1;
            continue;
        }
        match &mut star {
            Some((after, taken)) if *taken < name.len() => {
                *taken += 1;
                (at, position) = (*after, *taken);
            }
            _ => return false,
        }
    }
}

/// Matches one character against the head of a pattern; how much of the pattern it used.
fn single(pattern: &[char], character: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', literal, ..] => (*literal == character).then_some(2),
        ['[', class @ ..] => {
            let (negated, mut at) = if class.first() == Some(&'^') { (true, 1) } else { (false, 0) };
            let first = at;
            let mut found = false;
            while at == first || class.get(at) != Some(&']') {
                let low = literal(class, &mut at)?;
                let high = if class.get(at) == Some(&'-') {
                    at += 1;
                    literal(class, &mut at)?
                } else {
                    low
                };
                found |= (low..=high).contains(&character);
            }
            (found != negated).then_some(at + 2)
        }
        [literal, ..] => (*literal == character).then_some(1),
        [] => None,
    }
}

/// A character of a class, perhaps escaped.
fn literal(class: &[char], at: &mut usize) -> Option<char> {
    let mut character = *class.get(*at)?;
    if character == '\\' {
        *at += 1;
        character = *class.get(*at)?;
    }
    *at += 1;
    Some(character)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name) in [
            ("*.txt", "a.txt"),
            ("a*b*c", "aXbYbc"),
            ("?[a-c]", "zb"),
            ("[^a]x", "bx"),
            (r"\*", "*"),
            ("*", ""),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.txt", "a.txt2"), ("[a", "a"), ("?", ""), ("[^a]x", "ax"), ("a", "b")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
