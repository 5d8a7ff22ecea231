//! What a configuration means, for somebody who looks at it before an eval does.

use serde_json::{Value, json};

use super::settings::read_request;
use crate::config::context::BuildContext;
use crate::config::{ImageSource, Plan, RealFiles};
use crate::error::{Error, ErrorKind, Result};

/// The plan of a configuration as indented JSON; where the platform builds its image, with the files that are sent. Nothing
/// is asked of any server. Values of variables are shown. `json` is what [`super::Settings::from_json`] takes.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`], with file, line and column.
pub fn explain(json: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let (plan, sent) = read_request(json, environment, |document, context| {
        let plan = document.plan(context)?;
        let sent = match &plan {
            Plan::Single(single) => match &single.service.image {
                ImageSource::Build(build) => Some(BuildContext::read(build, &RealFiles)?),
                _ => None,
            },
            Plan::Multi(_) => None,
        };
        Ok((plan, sent))
    })?;
    let unexpected = |error: serde_json::Error| {
        Error::new(ErrorKind::Unexpected, format!("the plan cannot be shown: {error}"))
    };
    let mut shown = json!({ "plan": serde_json::to_value(plan).map_err(unexpected)? });
    if let (Value::Object(shown), Some(sent)) = (&mut shown, sent) {
        shown.insert("build".to_owned(), serde_json::to_value(sent).map_err(unexpected)?);
    }
    serde_json::to_string_pretty(&shown).map_err(unexpected)
}
