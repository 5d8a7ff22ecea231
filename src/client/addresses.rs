//! Keeps infrastructure out of what a model may see: errors of a sandbox's commands and files reach it in places, and
//! hosts, ports and URLs are of use to the user alone. The user finds them in an error's source and in the debug log.

use std::net::IpAddr;

use reqwest::Url;

use super::retry::Failure;
use super::transport::authority;

/// What stands for an address.
const HIDDEN: &str = "[address]";

/// `text` without URLs, IP addresses, and host names with a port.
pub(super) fn without_addresses(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    for piece in text.split_inclusive(ends_a_word) {
        let word = piece.trim_end_matches(ends_a_word);
        if word.contains("://") {
            hidden.push_str(HIDDEN);
        } else {
            let parts: Vec<_> = word.split('=').map(hide).collect();
            hidden.push_str(&parts.join("="));
        }
        hidden.push_str(&piece[word.len()..]);
    }
    hidden
}

fn ends_a_word(character: char) -> bool {
    character.is_whitespace() || "\"'`(){}<>,".contains(character)
}

fn hide(word: &str) -> String {
    let core = word.trim_end_matches([':', '.', ';', '-']);
    let place = core.split('/').next().unwrap_or_default();
    let host_of = |text: &str| text.trim_matches(['[', ']']).to_owned();
    let is_address = |text: &str| host_of(text).parse::<IpAddr>().is_ok();
    let with_port = place.rsplit_once(':').is_some_and(|(host, port)| {
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        is_port && (is_address(host) || host.contains('.') || host == "localhost")
    });
    if with_port || is_address(place) { format!("{HIDDEN}{}", &word[core.len()..]) } else { word.to_owned() }
}

/// A failure of the connection to a toolbox below `base`, in words without its address.
pub(super) fn of_the_toolbox(failure: Failure, base: &str) -> Failure {
    let message = failure.error.message();
    let named = match Url::parse(base) {
        Ok(url) => message.replace(&authority(&url), "the sandbox's toolbox"),
        Err(_) => message.to_owned(),
    };
    let hidden = without_addresses(&named);
    if hidden == message {
        return failure;
    }
    tracing::debug!("{message}");
    Failure { error: failure.error.reworded(hidden), effect: failure.effect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hidden_and_nothing_else() {
        for (text, expected) in [
            (
                "Post \"http://10.0.0.1:2280/x?sig=a=b\": dial tcp 10.0.0.1:2280: connect: connection refused",
                "Post \"[address]\": dial tcp [address]: connect: connection refused",
            ),
            ("read tcp 10.1.2.3:4->[fd00::1]:443: reset", "read tcp [address]->[address]: reset"),
            ("lookup runner-7.internal.example.com:3003 failed", "lookup [address] failed"),
            ("host=172.20.0.3 port=5", "host=[address] port=5"),
            ("via https://proxy.example.com/toolbox.", "via [address]"),
            ("no IP address found. Is the Sandbox started?", "no IP address found. Is the Sandbox started?"),
            ("it took 00:12:30, see a/b.txt: no such file", "it took 00:12:30, see a/b.txt: no such file"),
        ] {
            assert_eq!(without_addresses(text), expected);
        }
    }
}
