//! Readers for values that servers of different ages write differently.

use serde::{Deserialize, Deserializer};

/// Reads an integer that some servers write as `1.0`, and `null` as 0.
pub(super) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(optional_integer(deserializer)?.unwrap_or_default())
}

/// Like [`integer`], but keeps `null`.
pub(super) fn optional_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    if let Some(integer) = number.as_i64() {
        return Ok(Some(integer));
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and far inside the range of i64"
    )]
    if float.fract() == 0.0 && float.abs() < 9e15 {
        return Ok(Some(float as i64));
    }
    Err(serde::de::Error::custom(format!("expected a whole number, got {number}")))
}

/// Reads `null` as the type's default.
pub(super) fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
