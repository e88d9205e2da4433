//! Query parameters, checked the way FastAPI checks them.

use std::convert::Infallible;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::{ApiError, Problem};

/// The query of a request; of a parameter given twice, the last one counts.
#[derive(Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        Ok(Self(query.map(|Query(pairs)| pairs).unwrap_or_default()))
    }
}

impl Params {
    /// The text of a parameter, if it was given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of a parameter that must be there; it may be empty.
    ///
    /// # Errors
    /// 422 without it.
    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::validation(vec![Problem::missing("query", name)]))
    }

    /// A whole number within `range`, or `default` when it was not given.
    ///
    /// # Errors
    /// 422 when it is not one.
    pub fn integer(
        &self,
        name: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ApiError> {
        // Read as i64, so that a negative number is called too small.
        let bounds = to_i64(*range.start())..=to_i64(*range.end());
        let value = self.number(name, to_i64(default), bounds, "int_parsing", "integer")?;
        Ok(usize::try_from(value).unwrap_or(default))
    }

    /// A time in seconds, if it was given.
    ///
    /// # Errors
    /// 422 when it is not one, or negative.
    pub fn seconds(&self, name: &str) -> Result<Option<f64>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(_) => self.number(name, 0.0, 0.0..=1e9, "float_parsing", "number").map(Some),
        }
    }

    /// A number within `range`, or `default` when it was not given.
    ///
    /// # Errors
    /// 422 when it is not one.
    pub fn float(
        &self,
        name: &str,
        default: f32,
        range: RangeInclusive<f32>,
    ) -> Result<f32, ApiError> {
        self.number(name, default, range, "float_parsing", "number")
    }

    /// Yes or no, and no when it was not given.
    ///
    /// # Errors
    /// 422 when it is neither.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        let Some(text) = self.get(name) else { return Ok(false) };
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
            "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
            _ => {
                let msg = "Input should be a valid boolean, unable to interpret input";
                let problem = Problem::new("bool_parsing", "query", name, msg, Some(text));
                Err(ApiError::validation(vec![problem]))
            }
        }
    }

    fn number<T: FromStr + PartialOrd + Display + Copy>(
        &self,
        name: &str,
        default: T,
        range: RangeInclusive<T>,
        kind: &str,
        noun: &str,
    ) -> Result<T, ApiError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let problem = |kind: &str, msg: String| {
            Err(ApiError::validation(vec![Problem::new(kind, "query", name, &msg, Some(text))]))
        };
        let (least, most) = (*range.start(), *range.end());
        match text.trim().parse::<T>() {
            Ok(value) if range.contains(&value) => Ok(value),
            Ok(value) if value < least => problem(
                "greater_than_equal",
                format!("Input should be greater than or equal to {least}"),
            ),
            Ok(value) if value > most => {
                problem("less_than_equal", format!("Input should be less than or equal to {most}"))
            }
            // Not a number at all, or NaN, which compares with nothing.
            _ => problem(
                kind,
                format!(
                    "Input should be a valid {noun}, unable to parse string as {} {noun}",
                    if noun == "integer" { "an" } else { "a" },
                ),
            ),
        }
    }
}

fn to_i64(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn numbers_keep_to_their_range() {
        let limit = |text| params(&[("limit", text)]).integer("limit", 20, 1..=100);
        assert_eq!(limit("7").ok(), Some(7));
        assert_eq!(limit("100").ok(), Some(100));
        assert_eq!(params(&[]).integer("limit", 20, 1..=100).ok(), Some(20));
        for bad in ["0", "101", "-1", "x", "", "1.5", "99999999999999999999"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
        let score = |text| params(&[("s", text)]).float("s", 0.0, 0.0..=1.0);
        assert_eq!(score("0.5").ok(), Some(0.5));
        for bad in ["-0.1", "1.1", "NaN", "inf", "high"] {
            assert!(score(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_are_yes_or_no() {
        let flag = |text| params(&[("f", text)]).flag("f").ok();
        assert_eq!((flag("true"), flag("ON"), flag("0")), (Some(true), Some(true), Some(false)));
        assert_eq!((flag(""), flag("2")), (None, None));
        assert_eq!(params(&[]).flag("f").ok(), Some(false));
    }

    #[test]
    fn the_last_of_two_counts_and_empty_is_there() {
        let params = params(&[("q", "a"), ("q", "")]);
        assert_eq!(params.required("q").ok(), Some(""));
        assert!(params.required("r").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_number_in_range_or_refused(text in ".*") {
            let value = params(&[("n", &text)]).integer("n", 5, 1..=9);
            prop_assert!(value.is_err() || value.is_ok_and(|n| (1..=9).contains(&n)));
        }
    }
}
