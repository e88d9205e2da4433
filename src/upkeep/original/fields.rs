//! Fields of documents that several versions of another program have written: a
//! text may be a number, a time a date or a text, and anything may be missing.

use mongodb::bson::{Bson, Document, spec::BinarySubtype};

use crate::base::clock::Timestamp;
use crate::domain::past::{time_of_number, time_of_text};

/// What a field says; an error names the field.
pub(super) type Read<T> = Result<T, String>;

/// The fields of a document.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Document);

impl<'a> Fields<'a> {
    fn get(self, key: &str) -> Option<&'a Bson> {
        self.0.get(key).filter(|value| !matches!(value, Bson::Null | Bson::Undefined))
    }

    fn read<T>(
        self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Bson) -> Option<T>,
    ) -> Read<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| format!("its {key} is not {what}"))
    }

    /// A text that says something.
    pub(super) fn text(self, key: &str) -> Read<Option<String>> {
        let text = self.read(key, "a text", text)?;
        Ok(text.filter(|text| !text.trim().is_empty()))
    }

    /// The same, where there has to be one.
    pub(super) fn needed(self, key: &str) -> Read<String> {
        self.text(key)?.ok_or_else(|| format!("it has no {key}"))
    }

    pub(super) fn flag(self, key: &str, default: bool) -> Read<bool> {
        let flag = self.read(key, "yes or no", |value| match value {
            Bson::Boolean(flag) => Some(*flag),
            Bson::Int32(number) => Some(*number != 0),
            Bson::Int64(number) => Some(*number != 0),
            _ => None,
        });
        Ok(flag?.unwrap_or(default))
    }

    pub(super) fn number(self, key: &str) -> Read<Option<f64>> {
        self.read(key, "a number", number)
    }

    pub(super) fn time(self, key: &str) -> Read<Option<Timestamp>> {
        self.read(key, "a time", |value| match value {
            Bson::DateTime(time) => Some(Timestamp::from_millis(time.timestamp_millis())),
            Bson::Timestamp(time) => Some(time_of_number(f64::from(time.time))),
            Bson::String(text) => time_of_text(text),
            other => number(other).map(time_of_number),
        })
    }

    pub(super) fn list(self, key: &str) -> Read<&'a [Bson]> {
        let list = self.read(key, "a list", |value| value.as_array());
        Ok(list?.map_or(&[], Vec::as_slice))
    }

    pub(super) fn document(self, key: &str) -> Read<Option<&'a Document>> {
        self.read(key, "an object", Bson::as_document)
    }

    /// What it is called in a report: the first of those fields that says
    /// something, or its number in the database.
    pub(super) fn name(self, keys: &[&str]) -> String {
        let named = keys.iter().chain(&["_id"]).find_map(|key| text(self.0.get(key)?));
        named.unwrap_or_else(|| "without an id".to_owned())
    }
}

/// A value as a text.
pub(super) fn text(value: &Bson) -> Option<String> {
    match value {
        Bson::String(text) => Some(text.clone()),
        Bson::ObjectId(id) => Some(id.to_hex()),
        Bson::Int32(number) => Some(number.to_string()),
        Bson::Int64(number) => Some(number.to_string()),
        Bson::Double(number) => Some(number.to_string()),
        Bson::Binary(binary) if binary.subtype == BinarySubtype::Uuid => {
            let id = uuid::Uuid::from_slice(&binary.bytes).ok()?;
            Some(id.hyphenated().to_string())
        }
        _ => None,
    }
}

fn number(value: &Bson) -> Option<f64> {
    let number = match value {
        Bson::Int32(number) => f64::from(*number),
        Bson::Int64(number) => *number as f64,
        Bson::Double(number) => *number,
        Bson::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, doc, oid::ObjectId};

    use super::*;

    #[test]
    fn fields_are_read_however_they_were_written() {
        let id = ObjectId::parse_str("687f8e700123456789abcdef").unwrap();
        let document = doc! {
            "_id": id, "n": 5, "s": "1.5", "none": null, "blank": " ", "yes": 1_i64,
            "at": DateTime::from_millis(250), "seconds": 1_753_190_000, "ms": 1_753_190_000_000_i64,
            "iso": "2025-07-22T13:13:20", "list": ["a"], "bad": { "a": 1 },
        };
        let fields = Fields(&document);
        assert_eq!(fields.text("_id").unwrap().unwrap(), "687f8e700123456789abcdef");
        assert_eq!(fields.text("n").unwrap().as_deref(), Some("5"));
        for none in ["none", "blank", "missing"] {
            assert_eq!(fields.text(none), Ok(None));
        }
        assert_eq!(fields.needed("none"), Err("it has no none".to_owned()));
        assert_eq!(fields.number("s"), Ok(Some(1.5)));
        assert_eq!((fields.flag("yes", false), fields.flag("none", true)), (Ok(true), Ok(true)));
        assert_eq!(fields.time("at"), Ok(Some(Timestamp::from_millis(250))));
        let at = Ok(Some(Timestamp::from_millis(1_753_190_000_000)));
        assert_eq!(fields.time("seconds"), at);
        assert_eq!((fields.time("ms"), fields.time("iso")), (at.clone(), at));
        assert_eq!(fields.list("list").unwrap().len(), 1);
        assert_eq!(fields.text("bad"), Err("its bad is not a text".to_owned()));
        assert_eq!(fields.time("list"), Err("its list is not a time".to_owned()));
        assert_eq!(fields.name(&["missing", "n"]), "5");
    }
}
