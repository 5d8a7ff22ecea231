//! Reads bodies and queries as Daytona's server does: a missing body is an empty object, unknown fields are dropped,
//! and every refusal says which field is wrong.

use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::{ApiError, ApiResult};

/// The JSON body limit of the framework that Daytona's server uses.
const MAX_BODY: usize = 100 * 1024;

/// A JSON body. SDKs send `Content-Type: application/json` without a body, which reads as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY).await;
        let body =
            body.map_err(|_| ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request entity too large"))?;
        parse(&body).map(Self)
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> ApiResult<T> {
    let body: &[u8] = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::bad_request(error.to_string()),
        _ => ApiError::bad_request("Invalid JSON in request body"),
    })
}

/// The query string; keys may repeat.
#[derive(Debug, Default)]
pub(super) struct Pairs(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        Ok(Self(query.map_err(|error| ApiError::bad_request(error.body_text()))?.0))
    }
}

impl Pairs {
    /// The last value of `key`; an empty one counts as absent.
    pub(super) fn one(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// All values of `key`.
    pub(super) fn many<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A whole number between `least` and `most`.
    pub(super) fn number<T>(&self, key: &str, least: T, most: T) -> ApiResult<Option<T>>
    where
        T: Copy + FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.one(key) else { return Ok(None) };
        let number = text
            .parse::<T>()
            .map_err(|_| ApiError::bad_request(format!("{key} must be an integer number")))?;
        if number < least {
            return Err(ApiError::bad_request(format!("{key} must not be less than {least}")));
        }
        if number > most {
            return Err(ApiError::bad_request(format!("{key} must not be greater than {most}")));
        }
        Ok(Some(number))
    }

    /// `true` or `false`, as the server's strict reader wants it.
    pub(super) fn boolean(&self, key: &str) -> ApiResult<Option<bool>> {
        match self.one(key) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(ApiError::bad_request("Validation failed (boolean string is expected)")),
        }
    }

    /// An ISO 8601 time.
    pub(super) fn time(&self, key: &str) -> ApiResult<Option<std::time::SystemTime>> {
        let Some(text) = self.one(key) else { return Ok(None) };
        let time = super::timestamp::parse(text);
        time.map(Some)
            .ok_or_else(|| ApiError::bad_request(format!("{key} must be a valid ISO 8601 date string")))
    }
}

/// A whole number of minutes in a path.
pub(super) fn minutes(text: &str, least: i64, what: &str) -> ApiResult<i64> {
    let minutes = text.parse::<i64>().ok().filter(|minutes| minutes.abs() <= i64::from(u32::MAX));
    let minutes =
        minutes.ok_or_else(|| ApiError::bad_request(format!("{what} must be an integer number")))?;
    if minutes < least {
        Err(ApiError::bad_request(format!("{what} must be non-negative")))
    } else {
        Ok(minutes)
    }
}

/// A port from 1 to 65535 in a path.
pub(super) fn port(text: &str) -> ApiResult<u16> {
    text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| ApiError::bad_request("Invalid port"))
}
