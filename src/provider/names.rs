//! What a sandbox is called: `inspect-<task>-<sample>-<hex8>`, and how it is labelled.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Label that marks every sandbox of an Inspect eval; its value is [`CREATED_BY_INSPECT`].
pub const CREATED_BY: &str = "created_by";
/// Value of [`CREATED_BY`].
pub const CREATED_BY_INSPECT: &str = "inspect-ai";
/// Label whose value all sandboxes of one eval run share.
pub use crate::client::RUN_ID;

/// The longest name. It fits a DNS label (RFC 1035), since linked sandboxes are reached by name.
const LONGEST: usize = 63;
/// What the sample keeps of its segment however long the task is.
const SAMPLE_AT_LEAST: usize = 20;

/// A name for the sandbox of `sample` in `task`, unique by its suffix: in this process for certain, elsewhere by chance.
///
/// Of each segment, ASCII letters, digits, `_` and `.` are kept, every run of other characters becomes one `-`, and
/// none stands at an end. A segment of which nothing is left is dropped with its dash. A name has at most 63
/// characters: a long task gives way first, but a sample id longer than 20 is cut before the task disappears.
pub fn sandbox_name(task: Option<&str>, sample: Option<&str>) -> String {
    name_with_suffix(task, sample, &format!("{:08x}", unique_suffix()))
}

/// A number that no other call of this process gets, and that looks random. Of random ones, two of a hundred thousand
/// are likely the same; a name drawn twice in one run would make two samples share a sandbox.
fn unique_suffix() -> u32 {
    static START: OnceLock<u32> = OnceLock::new();
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    /// Odd, so that all numbers come before one comes again; the golden ratio spreads them.
    const STEP: u32 = 0x9E37_79B9;
    let start = START.get_or_init(|| uuid::Uuid::new_v4().as_fields().0);
    start.wrapping_add(DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_mul(STEP))
}

fn name_with_suffix(task: Option<&str>, sample: Option<&str>, suffix: &str) -> String {
    let task = task.map(slug).unwrap_or_default();
    let sample = sample.map(slug).unwrap_or_default();
    let room = LONGEST - "inspect---".len() - suffix.len();
    let sample = cut(&sample, SAMPLE_AT_LEAST.max(room.saturating_sub(task.len())));
    let task = cut(&task, room - sample.len());
    let mut name = "inspect".to_owned();
    for segment in [task, sample, suffix].into_iter().filter(|segment| !segment.is_empty()) {
        name.push('-');
        name.push_str(segment);
    }
    name
}

/// The characters of `text` that are safe in names, URLs and host names.
fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_alphanumeric() || matches!(character, '_' | '.') {
            slug.push(character);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_matches(['-', '.']).to_owned()
}

/// The first `length` characters of an ASCII slug, without a separator at the cut.
fn cut(slug: &str, length: usize) -> &str {
    slug[..slug.len().min(length)].trim_end_matches(['-', '.'])
}

/// The labels of a sandbox: the user's, under ours.
pub fn labels(run_id: &str, user: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = user.clone();
    labels.insert(CREATED_BY.to_owned(), CREATED_BY_INSPECT.to_owned());
    labels.insert(RUN_ID.to_owned(), run_id.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(task: &str, sample: &str) -> String {
        name_with_suffix(Some(task), Some(sample), "a1b2c3d4")
    }

    #[test]
    fn no_name_is_drawn_twice() {
        let drawn: std::collections::BTreeSet<_> = (0..300_000).map(|_| sandbox_name(None, None)).collect();
        assert_eq!(drawn.len(), 300_000);
    }

    #[test]
    fn the_documented_example_comes_out() {
        assert_eq!(name("my_eval", "42"), "inspect-my_eval-42-a1b2c3d4");
    }

    #[test]
    fn a_missing_segment_is_dropped_with_its_dash() {
        assert_eq!(name_with_suffix(None, Some("42"), "a1b2c3d4"), "inspect-42-a1b2c3d4");
        assert_eq!(name_with_suffix(Some("t"), None, "a1b2c3d4"), "inspect-t-a1b2c3d4");
        assert_eq!(name_with_suffix(None, None, "a1b2c3d4"), "inspect-a1b2c3d4");
        assert_eq!(name("", "日本"), "inspect-a1b2c3d4");
    }

    #[test]
    fn other_characters_become_one_dash_and_none_at_the_ends() {
        assert_eq!(name("pkg/my eval!", "--a  b/ü/c--"), "inspect-pkg-my-eval-a-b-c-a1b2c3d4");
    }

    #[test]
    fn a_long_task_gives_way_to_a_short_sample_id() {
        let long = "t".repeat(100);
        assert_eq!(name(&long, "42"), format!("inspect-{}-42-a1b2c3d4", "t".repeat(43)));
    }

    #[test]
    fn two_long_segments_share_the_room() {
        let name = name(&"t".repeat(100), &"s".repeat(100));
        assert_eq!(name, format!("inspect-{}-{}-a1b2c3d4", "t".repeat(25), "s".repeat(20)));
        assert_eq!(name.len(), LONGEST);
    }

    #[test]
    fn equal_segments_still_give_different_names() {
        assert_ne!(sandbox_name(Some("t"), Some("1")), sandbox_name(Some("t"), Some("1")));
    }

    #[test]
    fn our_labels_win_over_the_users() {
        let user =
            BTreeMap::from([("team".to_owned(), "x".to_owned()), (CREATED_BY.to_owned(), "me".to_owned())]);
        let labels = labels("0a1b", &user);
        assert_eq!(labels[CREATED_BY], "inspect-ai");
        assert_eq!(labels[RUN_ID], "0a1b");
        assert_eq!(labels["team"], "x");
    }

    proptest! {
        #[test]
        fn every_name_is_short_and_made_of_safe_characters(task in ".*", sample in ".*") {
            let name = name(&task, &sample);
            prop_assert!(name.len() <= LONGEST);
            prop_assert!(name.starts_with("inspect-") && name.ends_with("a1b2c3d4"));
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)));
            prop_assert!(!name.contains("--"));
        }
    }
}
