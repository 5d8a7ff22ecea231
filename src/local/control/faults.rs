//! Faults on demand: what networks, proxies and overloaded servers do to a client, at the moment a test wants it.
//!
//! A rule names requests (a path pattern, optionally a method), a fault, and how often it strikes. Rules are asked in
//! the order in which they were added; the first that matches and is not used up strikes.
//!
//! ```json
//! {"method": "POST", "path": "/toolbox/*/process/execute", "times": 1, "delayMilliseconds": 50,
//!  "fault": {"kind": "replay", "overlap": true}}
//! ```
//!
//! In a path `*` (or a `{name}`) stands for one segment and a final `**` for all that follow. `times` absent means
//! every time. Requests below `/api/admin/` meet no faults.
//!
//! | method | path | body | answer |
//! |---|---|---|---|
//! | POST | `/api/admin/faults` | a rule | 201, the rule with its `id` |
//! | GET | `/api/admin/faults` | | 200, all rules with `id` and `struck` |
//! | DELETE | `/api/admin/faults` | | 204, removes all |
//! | DELETE | `/api/admin/faults/{id}` | | 204 |
//! | GET | `/api/admin/requests` | | 200, `{"POST /api/sandbox": 2, …}`: counts since the last reset |
//! | DELETE | `/api/admin/requests` | | 204, resets them |
//! | POST | `/api/admin/sandboxes/{sandbox}/kill` | | 204, kills the sandbox's first process |
//!
//! All of them need the API key.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use serde::{Deserialize, Serialize};

/// Which requests meet which fault, and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// Method; any where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path pattern, for example `/api/sandbox/*/start` or `/toolbox/**`.
    pub path: String,
    /// How many requests it strikes; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Waits this long before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_milliseconds: Option<u64>,
    /// What happens.
    #[serde(default)]
    pub fault: Fault,
}

impl FaultRule {
    /// Refuses a rule that could never strike, or not as it says.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.path.starts_with('/') {
            return Err(format!("path must begin with a slash, got {:?}", self.path));
        }
        match &self.fault {
            Fault::Status { status, .. } if !(200..=599).contains(status) => {
                Err(format!("status must be from 200 to 599, got {status}"))
            }
            Fault::None if self.delay_milliseconds.is_none() => {
                Err("a rule needs a fault or delayMilliseconds".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// Nothing beside the delay.
    #[default]
    None,
    /// The request is answered without being carried out.
    Status {
        /// HTTP status.
        status: u16,
        /// The body, sent as it is; where absent, the server's usual error body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// Its type; `text/html` for a front's error page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
    },
    /// 429 with `Retry-After-<throttler>`.
    Throttle {
        /// Name of the throttler.
        throttler: String,
        /// Seconds to wait.
        seconds: u64,
    },
    /// 400 that says a total quota is used up.
    Quota {
        /// Of what.
        resource: QuotaResource,
    },
    /// The connection is reset; the request is not carried out.
    ResetBefore,
    /// The request is carried out, then the connection is reset without an answer.
    ResetAfter,
    /// The answer ends after so many bytes of its body, and the connection with it.
    CutBody {
        /// Bytes that still arrive.
        bytes: u64,
    },
    /// The request is carried out twice and answered once, as Daytona's proxies do when a connection breaks. Bodies of
    /// unknown length or more than 256 KiB are never replayed.
    Replay {
        /// Whether the second delivery begins while the first is still being carried out.
        #[serde(default)]
        overlap: bool,
    },
    /// Fields of a JSON body are dropped before the request is carried out, as servers do with those that they do not know.
    Forget {
        /// Names of fields at the body's top.
        fields: Vec<String>,
    },
}

/// What a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the platform's own words")]
pub enum QuotaResource {
    Cpu,
    Memory,
    Disk,
}

/// A rule in force.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Installed {
    pub(super) id: u64,
    /// How many requests it has struck.
    pub(super) struck: u64,
    #[serde(flatten)]
    pub(super) rule: FaultRule,
}

/// All rules in force.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<(u64, Vec<Installed>)>);

impl Faults {
    pub(super) fn new(rules: Vec<FaultRule>) -> Self {
        let faults = Self::default();
        for rule in rules {
            faults.add(rule);
        }
        faults
    }

    pub(super) fn add(&self, rule: FaultRule) -> Installed {
        let mut locked = self.lock();
        locked.0 += 1;
        let installed = Installed { id: locked.0, struck: 0, rule };
        locked.1.push(installed.clone());
        installed
    }

    pub(super) fn all(&self) -> Vec<Installed> {
        self.lock().1.clone()
    }

    /// Removes one rule, or all; tells whether there was one.
    pub(super) fn remove(&self, id: Option<u64>) -> bool {
        let mut locked = self.lock();
        let before = locked.1.len();
        locked.1.retain(|installed| id.is_some_and(|id| installed.id != id));
        locked.1.len() < before
    }

    /// The rule that strikes this request, which is thereby used once.
    pub(super) fn strike(&self, method: &Method, path: &str) -> Option<FaultRule> {
        let mut locked = self.lock();
        let installed = locked.1.iter_mut().find(|installed| {
            let FaultRule { method: wanted, path: pattern, times, .. } = &installed.rule;
            times.is_none_or(|times| installed.struck < times)
                && wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method.as_str()))
                && matches(pattern, path)
        })?;
        installed.struck += 1;
        Some(installed.rule.clone())
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<Installed>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) | (Some("**"), _) => return true,
            (Some(expected), Some(segment)) => {
                let any = expected == "*" || (expected.starts_with('{') && expected.ends_with('}'));
                if !any && expected != segment {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_segments_and_tails() {
        for (pattern, path, expected) in [
            ("/api/sandbox", "/api/sandbox", true),
            ("/api/sandbox", "/api/sandbox/1", false),
            ("/api/sandbox/*", "/api/sandbox/1", true),
            ("/api/sandbox/{sandbox}/start", "/api/sandbox/1/start", true),
            ("/api/sandbox/*", "/api/sandbox/1/start", false),
            ("/toolbox/**", "/toolbox/1/process/execute", true),
            ("/toolbox/*/process/execute", "/toolbox/1/process/execute", true),
            ("/toolbox/*/files/**", "/toolbox/1/process/execute", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_rule_strikes_as_often_as_it_says_and_the_first_one_wins() {
        let rule = |times, fault| FaultRule {
            method: Some("post".to_owned()),
            path: "/api/sandbox".to_owned(),
            times,
            delay_milliseconds: None,
            fault,
        };
        let faults = Faults::new(vec![rule(Some(1), Fault::ResetBefore), rule(None, Fault::ResetAfter)]);
        let strike = |method| faults.strike(&method, "/api/sandbox").map(|rule| rule.fault);
        assert_eq!(strike(Method::GET), None);
        assert_eq!(strike(Method::POST), Some(Fault::ResetBefore));
        assert_eq!(strike(Method::POST), Some(Fault::ResetAfter));
        assert!(faults.remove(Some(2)));
        assert_eq!(strike(Method::POST), None);
    }

    #[test]
    fn a_misspelt_fault_is_refused() {
        for text in [
            r#"{"path":"/a","fault":{"kind":"explode"}}"#,
            r#"{"path":"/a","tims":1}"#,
            r#"{"path":"/a","fault":{"kind":"cut_body"}}"#,
        ] {
            assert!(serde_json::from_str::<FaultRule>(text).is_err(), "{text}");
        }
    }
}
