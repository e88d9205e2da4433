//! Events: one small type for each kind that carries data.
//!
//! Numbers that clients leave out take the value everybody means: 16 kHz, two
//! bytes a sample, one channel.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::transcript::Segment;

/// One message: what it is, its data, and bytes that belong to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The kind: `audio-chunk`.
    pub kind: String,
    /// Data by name.
    pub data: Map<String, Value>,
    /// Bytes: samples of an `audio-chunk`, vectors of an `embedded`.
    pub payload: Bytes,
}

/// The data of one kind of event.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind it goes by.
    const KIND: &'static str;
}

impl Event {
    /// An event of `kind` with no data.
    pub fn bare(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }

    /// The event that carries `body`.
    pub fn of<B: Body>(body: &B) -> Self {
        let data = match serde_json::to_value(body) {
            Ok(Value::Object(data)) => data,
            // Bodies are structs of plain fields, which always make an object.
            _ => Map::new(),
        };
        Self { kind: B::KIND.to_owned(), data, payload: Bytes::new() }
    }

    /// The same event with a payload.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Whether this is an event of that kind.
    pub fn is<B: Body>(&self) -> bool {
        self.kind == B::KIND
    }

    /// The data as its type.
    ///
    /// # Errors
    /// `BadInput` when it is an event of another kind or a field has the wrong type.
    pub fn body<B: Body>(&self) -> Result<B> {
        if !self.is::<B>() {
            let message = format!("expected `{}`, got `{}`", B::KIND, self.kind);
            return Err(Error::new(Kind::BadInput, message));
        }
        B::deserialize(&self.data)
            .with_context(Kind::BadInput, || format!("the data of `{}` is not valid", self.kind))
    }
}

macro_rules! body {
    ($kind:literal, $(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $ty,)*
        }

        impl Body for $name {
            const KIND: &'static str = $kind;
        }
    };
}

/// How samples are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Format {
    /// Samples a second and channel.
    pub rate: u32,
    /// Bytes a sample.
    pub width: u32,
    /// Channels, interleaved.
    pub channels: u32,
}

impl Default for Format {
    fn default() -> Self {
        Self { rate: crate::domain::conversation::SAMPLE_RATE, width: 2, channels: 1 }
    }
}

body!("audio-start",
    /// Audio begins.
    AudioStart {
        /// How the samples of the chunks are laid out.
        #[serde(flatten)]
        format: Format,
        /// The sender's clock; clients disagree on the unit.
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<f64>,
    }
);
body!("audio-chunk",
    /// A piece of audio; the samples are the payload.
    AudioChunk {
        /// How the samples are laid out.
        #[serde(flatten)]
        format: Format,
        /// The sender's clock; clients disagree on the unit.
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<f64>,
    }
);
body!("audio-stop",
    /// Audio ends.
    AudioStop {
        /// The sender's clock; clients disagree on the unit.
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<f64>,
    }
);
body!("transcribe",
    /// Asks for a transcript of the audio that follows.
    ///
    /// Wyoming 1.10 has names and terms in it too (`transcript_names`,
    /// `transcript_terms`), which the text is to lean towards. They are not read:
    /// Whisper takes such words as text that went before, and says them again
    /// over silence and noise, so that a name that nobody spoke would be written
    /// down as spoken.
    Transcribe {
        /// A model of the service.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// ISO 639-1 code of the language spoken; detected without one.
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<String>,
    }
);
body!("transcript",
    /// The text of the audio. Other services send `text` alone.
    Transcript {
        /// All of it on one line.
        text: String,
        /// ISO 639-1 code of the language used or found.
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        /// Phrases and words with times; our engine only.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        segments: Vec<Segment>,
        /// False on a text that will still change, which streaming services send.
        #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
        is_final: Option<bool>,
    }
);
body!("voice-started",
    /// Somebody began to speak.
    VoiceStarted {
        /// Where in the audio, in milliseconds of its chunks' timestamps.
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<f64>,
    }
);
body!("voice-stopped",
    /// Nobody speaks any more.
    VoiceStopped {
        /// Where in the audio, in milliseconds of its chunks' timestamps.
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<f64>,
    }
);
body!("transcript-start",
    /// A transcript begins to come in pieces.
    TranscriptStart {
        /// ISO 639-1 code of the language used or found.
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<String>,
    }
);
body!("transcript-chunk",
    /// A piece of it: all pieces joined are the text.
    TranscriptChunk {
        /// What this piece adds.
        text: String,
    }
);
body!("transcript-stop",
    /// That was the last piece. The whole `transcript` is sent before it.
    TranscriptStop {}
);
body!("describe",
    /// Asks what the service can do.
    Describe {}
);
body!("info",
    /// What a service can do.
    Info {
        /// Speech-to-text programs.
        asr: Vec<Program>,
    }
);
body!("ping",
    /// Asks for a `pong`.
    Ping {
        /// Comes back as it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    }
);
body!("pong",
    /// Answers a `ping`.
    Pong {
        /// The text of the `ping`.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    }
);
body!("error",
    /// What was asked for could not be done.
    Failure {
        /// What went wrong.
        text: String,
        /// A word for programs: [`Failure::BAD_INPUT`], or the service's own.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    }
);

/// Who made a program or a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attribution {
    /// A name.
    pub name: String,
    /// A page about it.
    pub url: String,
}

/// A program that a service runs. Home Assistant reads the first one only, and
/// only when it is `installed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// A short name.
    pub name: String,
    /// One line about it.
    pub description: String,
    /// Who made it.
    pub attribution: Attribution,
    /// Whether it can be used now.
    pub installed: bool,
    /// Its version.
    pub version: Option<String>,
    /// What it can run.
    pub models: Vec<Model>,
    /// Whether it sends [`TranscriptStart`], [`TranscriptChunk`] and
    /// [`TranscriptStop`] around a transcript.
    pub supports_transcript_streaming: bool,
}

/// A model of a [`Program`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {
    /// A short name.
    pub name: String,
    /// One line about it.
    pub description: String,
    /// Who made it.
    pub attribution: Attribution,
    /// Whether it can be used now.
    pub installed: bool,
    /// Its version.
    pub version: Option<String>,
    /// ISO 639-1 codes of what it understands.
    pub languages: Vec<String>,
}

impl Failure {
    /// The [`code`](Failure::code) of a request that can never succeed.
    pub const BAD_INPUT: &str = "bad-input";

    /// Says `error` over the wire.
    pub fn from_error(error: &Error) -> Self {
        let hopeless = matches!(error.kind(), Kind::BadInput | Kind::TooLarge);
        Self { text: error.report(), code: hopeless.then(|| Self::BAD_INPUT.to_owned()) }
    }

    /// The error that `who` told us of.
    pub fn into_error(self, who: &str) -> Error {
        let hopeless = self.code.as_deref() == Some(Self::BAD_INPUT);
        let kind = if hopeless { Kind::BadInput } else { Kind::Unavailable };
        Error::new(kind, format!("{who}: {}", self.text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, data: Value) -> Event {
        let Value::Object(data) = data else { panic!("an object") };
        Event { kind: kind.into(), data, payload: Bytes::new() }
    }

    #[test]
    fn what_clients_leave_out_has_a_default() {
        let start: AudioStart = event("audio-start", json!({"timestamp": null})).body().unwrap();
        assert_eq!(start.format, Format { rate: 16_000, width: 2, channels: 1 });
        let data = json!({"rate": 44100, "mode": "batch", "timestamp": 1753190000000_i64});
        let chunk: AudioChunk = event("audio-chunk", data).body().unwrap();
        assert_eq!(chunk.format.rate, 44_100);
        assert_eq!(chunk.timestamp, Some(1_753_190_000_000.0));
    }

    #[test]
    fn a_body_survives_the_wire() {
        let sent = Transcribe { name: None, language: Some("de".into()) };
        let event = Event::of(&sent);
        assert_eq!(event.data, json!({"language": "de"}).as_object().cloned().unwrap());
        assert_eq!(event.body::<Transcribe>().unwrap(), sent);
        assert_eq!(event.body::<AudioStop>().unwrap_err().kind(), Kind::BadInput);
    }

    #[test]
    fn a_wrong_type_is_bad_input() {
        let error = event("audio-start", json!({"rate": "fast"})).body::<AudioStart>().unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
    }

    #[test]
    fn failures_keep_whether_a_retry_can_help() {
        for (kind, back) in [
            (Kind::BadInput, Kind::BadInput),
            (Kind::TooLarge, Kind::BadInput),
            (Kind::Internal, Kind::Unavailable),
        ] {
            let failure = Failure::from_error(&Error::new(kind, "no"));
            assert_eq!(failure.into_error("whisper").kind(), back);
        }
    }
}
