//! JSON schemas for models that are only asked to keep to them, rather than
//! made to: the part of the language that our own schemas use.

use serde_json::{Map, Value};

/// Whether `value` is of the form of `schema`. Lengths are not looked at: they
/// keep a small model from rambling, and mean nothing else.
pub(super) fn conforms(value: &Value, schema: &Value) -> bool {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        return allowed.contains(value);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.as_object().is_some_and(|object| is_object(object, schema)),
        Some("array") => value.as_array().is_some_and(|items| {
            schema.get("items").is_none_or(|each| items.iter().all(|item| conforms(item, each)))
        }),
        Some("string") => value.is_string(),
        Some("integer") => value.as_i64().is_some_and(|number| {
            let limit = |name| schema.get(name).and_then(Value::as_i64);
            limit("minimum").is_none_or(|least| number >= least)
                && limit("maximum").is_none_or(|most| number <= most)
        }),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    }
}

fn is_object(object: &Map<String, Value>, schema: &Value) -> bool {
    let known = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    required
        .into_iter()
        .flatten()
        .all(|name| name.as_str().is_some_and(|name| object.contains_key(name)))
        && object.iter().all(|(name, value)| match known.and_then(|known| known.get(name)) {
            Some(schema) => conforms(value, schema),
            None => schema.get("additionalProperties") != Some(&Value::Bool(false)),
        })
}

/// `schema` without what OpenAI's strict mode does not know.
pub(super) fn without_lengths(schema: &Value) -> Value {
    match schema {
        Value::Object(object) => {
            let kept = object.iter().filter(|(name, value)| {
                // A property may be called so; its value is a schema then.
                !(matches!(name.as_str(), "minLength" | "maxLength") && value.is_number())
            });
            kept.map(|(name, value)| (name.clone(), without_lengths(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_lengths).collect(),
        other => other.clone(),
    }
}

/// The JSON in what a model wrote, which may be fenced as in Markdown.
pub(super) fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else {
        return text;
    };
    inner.strip_prefix("json").unwrap_or(inner).trim()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_of_another_form_is_told() {
        let schema = json!({
            "type": "object",
            "properties": {
                "points": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"kind": {"enum": ["a", "b"]}, "n": {"type": "integer", "minimum": 0, "maximum": 3}},
                    "required": ["kind"], "additionalProperties": false,
                }},
                "title": {"type": "string", "minLength": 2},
            },
            "required": ["points"],
        });
        for (value, good) in [
            (json!({"points": []}), true),
            (json!({"points": [{"kind": "a", "n": 3}], "title": "x", "more": 1}), true),
            (json!({"points": [{"kind": "c"}]}), false),
            (json!({"points": [{"kind": "a", "n": 4}]}), false),
            (json!({"points": [{"kind": "a", "m": 1}]}), false),
            (json!({"points": {}}), false),
            (json!({"title": "x"}), false),
            (json!([]), false),
        ] {
            assert_eq!(conforms(&value, &schema), good, "{value}");
        }
        let bare = without_lengths(&schema);
        assert_eq!(bare.pointer("/properties/title"), Some(&json!({"type": "string"})));
        assert_eq!(bare.pointer("/properties/points"), schema.pointer("/properties/points"));
    }

    #[test]
    fn a_fence_is_taken_off() {
        assert_eq!(unfenced("```json\n{\"a\": 1}\n```\n"), "{\"a\": 1}");
        assert_eq!(unfenced(" {} "), "{}");
    }
}
