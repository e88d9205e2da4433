//! What the services that write text have in common.

use serde_json::Value;

use super::schema::{conforms, unfenced};
use super::{Generate, Message, Role};
use crate::base::error::{Error, Kind};
use crate::remote::Fault;

/// What a service wrote.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) text: String,
    /// It ended for want of tokens.
    pub(super) cut: bool,
}

impl Written {
    /// The text, where it is what `request` asks for.
    pub(super) fn check(self, service: &str, request: &Generate) -> Result<String, Fault> {
        let Some(schema) = &request.schema else { return Ok(self.text) };
        if self.cut {
            // The same request would end at the same place.
            let message = format!("{service} ran out of tokens after {}", request.max_tokens);
            return Err(Fault::Refused(Error::new(Kind::BadInput, message)));
        }
        let json = unfenced(&self.text);
        match serde_json::from_str::<Value>(json) {
            Ok(value) if conforms(&value, schema) => Ok(json.to_owned()),
            _ => Err(Fault::passing(format!("{service} wrote something else than was asked for"))),
        }
    }
}

/// The chat with the schema in words, for a model that is given it in no other way.
pub(super) fn with_schema_in_words(messages: &[Message], schema: &Value) -> Vec<Message> {
    let words = format!("Answer with JSON of this schema and with nothing else:\n{schema}");
    let mut messages = messages.to_vec();
    match messages.first_mut().filter(|first| first.role == Role::System) {
        Some(first) => first.content = format!("{}\n\n{words}", first.content),
        None => messages.insert(0, Message { role: Role::System, content: words }),
    }
    messages
}
