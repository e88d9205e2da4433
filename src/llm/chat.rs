//! What the services that write text have in common.

use reqwest::RequestBuilder;
use serde_json::Value;

use super::schema::{conforms, unfenced};
use super::{Generate, Message, Role, Told};
use crate::base::error::{Error, Kind, Result};
use crate::remote::http::Http;
use crate::remote::{Fault, Service};

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

/// What a line of a streamed answer brings.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) text: String,
    /// The text is whole with it.
    pub(super) ended: bool,
    /// Nothing that matters follows.
    pub(super) last: bool,
}

/// The text that `service` writes in answer to `request`, whose lines `read`
/// understands; `told` hears it piece by piece.
///
/// # Errors
/// As [`crate::remote::Asking::weigh`]; what broke off is not tried again.
pub(super) async fn streamed(
    service: &Service,
    http: &Http,
    request: impl Fn() -> RequestBuilder,
    told: &mut Told<'_>,
    read: impl Fn(&str) -> Result<Line, Fault>,
) -> Result<String> {
    let mut text = String::new();
    let mut asking = service.ask()?;
    loop {
        let mut ended = false;
        let lines = http.lines(request(), |line| {
            let line = read(line)?;
            text.push_str(&line.text);
            if !line.text.is_empty() {
                told(&line.text);
            }
            ended |= line.ended;
            Ok(!line.last)
        });
        let outcome = match lines.await {
            Ok(()) if ended => Ok(()),
            Ok(()) => Err(cut_off(service.name(), &text)),
            // Nobody is told the same twice: what broke off is not tried again.
            Err(Fault::Passing(error, _)) if !text.is_empty() => Err(Fault::Lasting(error)),
            Err(fault) => Err(fault),
        };
        if let Some(end) = asking.weigh(outcome).await {
            return end.map(|()| text);
        }
    }
}

/// The stream ended before the text did.
pub(super) fn cut_off(service: &str, written: &str) -> Fault {
    let error = Error::new(Kind::Unavailable, format!("{service} broke off its answer"));
    if written.is_empty() { Fault::Passing(error, None) } else { Fault::Lasting(error) }
}
