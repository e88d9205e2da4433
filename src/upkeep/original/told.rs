//! Conversations as the original tells of them, in both of its shapes: one
//! document of `audio_chunks` with the transcript in it, and one of
//! `conversations` with versions, beside one of `audio_chunks` for its audio.

use mongodb::bson::{Bson, Document};

use super::fields::{self, Fields, Read};
use crate::base::clock::Timestamp;
use crate::domain::conversation::Progress;
use crate::domain::transcript::Segment;

/// A transcript.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) active: bool,
    pub(super) segments: Vec<Segment>,
    pub(super) engine: Option<String>,
    pub(super) created_at: Option<Timestamp>,
}

/// What became of its memories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) status: Option<Progress>,
    /// Whether some are named.
    pub(super) any: bool,
    pub(super) model: Option<String>,
    pub(super) created_at: Option<Timestamp>,
}

/// A conversation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) id: String,
    /// What its audio is known by.
    pub(super) audio_uuid: Option<String>,
    /// Of a document about audio alone: the conversation that it belongs to.
    pub(super) belongs_to: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) user: Option<String>,
    pub(super) started_at: Option<Timestamp>,
    /// Paths, as the original has them.
    pub(super) audio: Option<String>,
    pub(super) cropped: Option<String>,
    pub(super) cropped_at: Option<Timestamp>,
    /// Where somebody speaks, in seconds.
    pub(super) speech: Vec<(f64, f64)>,
    pub(super) title: Option<String>,
    pub(super) summary: Option<String>,
    pub(super) speakers: Vec<String>,
    /// Oldest first; one of them is active if there are any.
    pub(super) transcripts: Vec<Said>,
    pub(super) transcription: Option<Progress>,
    pub(super) error: Option<String>,
    pub(super) memories: Remembered,
    /// It was deleted there, and is kept all the same.
    pub(super) deleted: bool,
}

impl Told {
    /// A document of `audio_chunks`.
    pub(super) fn of_chunk(document: &Document) -> Read<Self> {
        let fields = Fields(document);
        let id = fields.needed("audio_uuid")?;
        let mut told = Self::common(fields, id.clone())?;
        told.audio_uuid = Some(id);
        told.belongs_to = fields.text("conversation_id")?;
        told.started_at = fields.time("timestamp")?;
        if told.user.is_none() {
            told.user = fields.text("user_email")?;
        }
        if !fields.flag("has_speech", true)? {
            told.transcription = Some(Progress::Empty);
        }
        let segments = text_or_segments(fields, "transcript")?;
        if !segments.is_empty() {
            told.transcripts.push(Said {
                active: true,
                segments,
                engine: fields.text("transcription_provider")?,
                created_at: fields.time("transcription_completed_at")?,
            });
        }
        Ok(told)
    }

    /// A document of `conversations`.
    pub(super) fn of_conversation(document: &Document) -> Read<Self> {
        let fields = Fields(document);
        let id = fields.needed("conversation_id")?;
        let mut told = Self::common(fields, id)?;
        told.audio_uuid = fields.text("audio_uuid")?;
        told.started_at = match fields.time("created_at")? {
            // Its documents have a `timestamp` of 0 beside it.
            None => fields.time("timestamp")?.filter(|time| time.millis() > 0),
            known => known,
        };
        told.transcripts = versions(fields)?;
        if told.transcripts.is_empty() {
            let mut segments = segments(fields.list("segments")?)?;
            if segments.is_empty() {
                segments = text_or_segments(fields, "transcript")?;
            }
            if !segments.is_empty() {
                told.transcripts.push(Said { active: true, segments, ..Said::default() });
            }
        }
        told.deleted = fields.flag("deleted", false)?;
        Ok(told)
    }

    fn common(fields: Fields<'_>, id: String) -> Read<Self> {
        if !is_plain(&id) {
            return Err("its id cannot be the name of a file".to_owned());
        }
        let client_id = fields.text("client_id")?;
        if client_id.as_ref().is_some_and(|client| !is_plain(client)) {
            return Err("its client_id cannot be part of the name of a file".to_owned());
        }
        Ok(Self {
            id,
            audio_uuid: None,
            belongs_to: None,
            client_id,
            user: fields.text("user_id")?,
            started_at: None,
            audio: fields.text("audio_path")?,
            cropped: fields.text("cropped_audio_path")?,
            cropped_at: fields.time("cropped_at")?,
            speech: speech(fields)?,
            title: fields.text("title")?,
            summary: fields.text("summary")?,
            speakers: speakers(fields)?,
            transcripts: Vec::new(),
            transcription: progress(fields, "transcription_status")?,
            error: fields.text("transcription_error")?,
            memories: remembered(fields)?,
            deleted: false,
        })
    }

    /// Takes what this does not tell from the document about its audio.
    pub(super) fn complete(&mut self, chunk: &Self) {
        fn fill<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
            if own.is_none() {
                own.clone_from(other);
            }
        }
        fill(&mut self.client_id, &chunk.client_id);
        fill(&mut self.user, &chunk.user);
        fill(&mut self.started_at, &chunk.started_at);
        fill(&mut self.audio, &chunk.audio);
        fill(&mut self.cropped, &chunk.cropped);
        fill(&mut self.cropped_at, &chunk.cropped_at);
        fill(&mut self.transcription, &chunk.transcription);
        fill(&mut self.memories.status, &chunk.memories.status);
        self.memories.any |= chunk.memories.any;
        if self.speech.is_empty() {
            self.speech.clone_from(&chunk.speech);
        }
        if self.speakers.is_empty() {
            self.speakers.clone_from(&chunk.speakers);
        }
        if self.transcripts.is_empty() {
            self.transcripts.clone_from(&chunk.transcripts);
        }
    }

    /// The segments that are shown.
    pub(super) fn segments(&self) -> &[Segment] {
        let active = self.transcripts.iter().find(|said| said.active);
        active.map_or(&[], |said| &said.segments)
    }
}

/// Whether a text can be part of a file name.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 64 && text.chars().all(plain) && !text.starts_with('.')
}

fn progress(fields: Fields<'_>, key: &str) -> Read<Option<Progress>> {
    let Some(name) = fields.text(key)? else { return Ok(None) };
    let known = Progress::from_name(&name.to_uppercase());
    known.map(Some).ok_or_else(|| format!("its {key} is {name}, which nobody knows"))
}

fn versions(fields: Fields<'_>) -> Read<Vec<Said>> {
    let active = fields.text("active_transcript_version")?;
    let mut said = Vec::new();
    for version in fields.list("transcript_versions")? {
        let version = object(version, "a transcript version")?;
        let mut spoken = segments(version.list("segments")?)?;
        if spoken.is_empty() {
            spoken = text_or_segments(version, "transcript")?;
        }
        said.push(Said {
            active: active.is_some() && version.text("version_id")? == active,
            segments: spoken,
            engine: engine(version)?,
            created_at: version.time("created_at")?,
        });
    }
    // One is shown, whatever is named.
    if !said.iter().any(|version| version.active)
        && let Some(last) = said.last_mut()
    {
        last.active = true;
    }
    Ok(said)
}

/// `deepgram/nova-3`, or what there is of it.
fn engine(fields: Fields<'_>) -> Read<Option<String>> {
    Ok(match (fields.text("provider")?, fields.text("model")?) {
        (Some(provider), Some(model)) => Some(format!("{provider}/{model}")),
        (one, other) => one.or(other),
    })
}

/// A transcript that is a list of segments, or one text.
fn text_or_segments(fields: Fields<'_>, key: &str) -> Read<Vec<Segment>> {
    match fields.0.get(key) {
        Some(Bson::Array(list)) => segments(list),
        _ => Ok(fields.text(key)?.map(whole).into_iter().collect()),
    }
}

fn segments(list: &[Bson]) -> Read<Vec<Segment>> {
    list.iter().map(segment).collect()
}

fn segment(value: &Bson) -> Read<Segment> {
    if let Bson::String(text) = value {
        return Ok(whole(text.clone()));
    }
    let fields = object(value, "a segment of its transcript")?;
    let start = fields.number("start")?.unwrap_or(0.0).max(0.0);
    Ok(Segment {
        start,
        end: fields.number("end")?.unwrap_or(start).max(start),
        text: fields.text("text")?.unwrap_or_default().trim().to_owned(),
        speaker: fields.text("speaker")?,
        confidence: fields.number("confidence")?.map_or(1.0, |value| value.clamp(0.0, 1.0) as f32),
        words: Vec::new(),
    })
}

/// All that was said, without times.
fn whole(text: String) -> Segment {
    let text = text.trim().to_owned();
    Segment { start: 0.0, end: 0.0, text, speaker: None, confidence: 1.0, words: Vec::new() }
}

fn object<'a>(value: &'a Bson, what: &str) -> Read<Fields<'a>> {
    value.as_document().map(Fields).ok_or_else(|| format!("{what} is not an object"))
}

fn speech(fields: Fields<'_>) -> Read<Vec<(f64, f64)>> {
    let mut speech = Vec::new();
    for one in fields.list("speech_segments")? {
        let (start, end) = match one {
            Bson::Array(pair) => {
                let number = |at| {
                    let pair: &Vec<Bson> = pair;
                    let value: Option<&Bson> = pair.get(at);
                    value.and_then(fields::text).and_then(|text| text.parse::<f64>().ok())
                };
                (number(0), number(1))
            }
            other => {
                let one = object(other, "a stretch of its speech")?;
                (one.number("start")?, one.number("end")?)
            }
        };
        let (Some(start), Some(end)) = (start, end) else {
            return Err("a stretch of its speech has no start or no end".to_owned());
        };
        speech.push((start, end));
    }
    Ok(speech)
}

fn speakers(fields: Fields<'_>) -> Read<Vec<String>> {
    let mut speakers: Vec<String> = Vec::new();
    for speaker in fields.list("speakers_identified")? {
        let name = match speaker {
            Bson::Document(speaker) => {
                let speaker = Fields(speaker);
                match speaker.text("name")? {
                    None => speaker.text("speaker_id")?,
                    name => name,
                }
            }
            other => fields::text(other),
        };
        let name = name.ok_or("somebody who speaks in it has no name")?;
        if !speakers.contains(&name) {
            speakers.push(name);
        }
    }
    Ok(speakers)
}

fn remembered(fields: Fields<'_>) -> Read<Remembered> {
    let active = fields.text("active_memory_version")?;
    let mut set = None;
    for version in fields.list("memory_versions")? {
        let version = object(version, "a set of its memories")?;
        if set.is_none() || active.is_none() || version.text("version_id")? == active {
            set = Some(version);
        }
    }
    let count = match set {
        Some(set) => set.number("memory_count")?,
        None => fields.number("memory_count")?,
    };
    let named = match fields.0.get("memories") {
        Some(Bson::Array(named)) => !named.is_empty(),
        _ => false,
    };
    let status = match (progress(fields, "memory_processing_status")?, set) {
        (None, Some(_)) => Some(Progress::Completed),
        (status, _) => status,
    };
    let done = match set {
        Some(set) => set.time("created_at")?,
        None => fields.time("memory_processing_completed_at")?,
    };
    Ok(Remembered {
        status,
        any: named || count.is_some_and(|count| count > 0.0),
        model: set.map(engine).transpose()?.flatten(),
        created_at: done,
    })
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, doc};

    use super::*;

    #[test]
    fn a_conversation_of_the_first_shape_is_one_document() {
        let told = Told::of_chunk(&doc! {
            "audio_uuid": "00112233445566778899aabbccddeeff",
            "audio_path": "1753190000_abcdef-phone_00112233445566778899aabbccddeeff.wav",
            "client_id": "abcdef-phone", "timestamp": 1_753_190_000,
            "transcript": [
                { "speaker": "Speaker 0", "text": " Hello. ", "start": 0.0, "end": 0.0 },
                { "speaker": "Speaker 1", "text": "Hi.", "start": 2, "end": "1.5" },
            ],
            "speakers_identified": ["anna", { "name": "Ben" }, "anna"],
            "memories": [{ "memory_id": "m", "status": "created" }],
            "transcription_status": "COMPLETED", "memory_processing_status": "COMPLETED",
            "transcription_provider": "deepgram", "cropped_audio_path": null,
            "speech_segments": [{ "start": 0.5, "end": 2.5 }, [3, 4.5]],
        })
        .unwrap();
        assert_eq!(told.started_at.unwrap().seconds(), 1_753_190_000);
        let segments = told.segments();
        assert_eq!(segments.len(), 2);
        assert_eq!((segments[0].text.as_str(), segments[1].end), ("Hello.", 2.0));
        assert_eq!(told.speakers, ["anna", "Ben"]);
        assert_eq!(told.speech, [(0.5, 2.5), (3.0, 4.5)]);
        assert_eq!(told.transcripts[0].engine.as_deref(), Some("deepgram"));
        assert_eq!(told.memories.status, Some(Progress::Completed));
        assert!(told.memories.any && told.user.is_none() && told.belongs_to.is_none());
    }

    #[test]
    fn a_conversation_of_the_later_shape_has_versions() {
        let chunk = Told::of_chunk(&doc! {
            "audio_uuid": "a1", "audio_path": "/app/chunks/a1.wav", "client_id": "abcdef-phone",
            "timestamp": 1_753_190_000_500_i64, "user_id": "u", "user_email": "anna@example.com",
            "conversation_id": "c-1", "has_speech": true, "speech_analysis": {},
        })
        .unwrap();
        assert_eq!(chunk.belongs_to.as_deref(), Some("c-1"));
        let version = |id: &str, text: &str| {
            doc! { "version_id": id, "transcript": text, "provider": "deepgram", "model": "nova-3",
            "created_at": DateTime::from_millis(7_000), "segments": [] }
        };
        let mut document = doc! {
            "conversation_id": "c-1", "audio_uuid": "a1", "timestamp": 0,
            "created_at": "2025-07-22T13:13:20.250000", "title": "Lunch", "summary": "Tea.",
            "transcript_versions": [version("v1", "old"), version("v2", "new")],
            "active_transcript_version": "v1",
            "memory_versions": [{ "version_id": "m1", "memory_count": 2, "model": "gpt-4o" }],
            "active_memory_version": "m1",
        };
        let mut told = Told::of_conversation(&document).unwrap();
        assert_eq!(told.segments()[0].text, "old");
        assert_eq!(told.transcripts[1].engine.as_deref(), Some("deepgram/nova-3"));
        assert_eq!(told.started_at.unwrap().millis(), 1_753_190_000_250);
        assert!(told.memories.any);
        assert_eq!(told.memories.model.as_deref(), Some("gpt-4o"));
        told.complete(&chunk);
        assert_eq!(told.audio.as_deref(), Some("/app/chunks/a1.wav"));
        assert_eq!(
            (told.user.as_deref(), told.client_id.as_deref()),
            (Some("u"), Some("abcdef-phone"))
        );

        // Flat fields of a time between.
        document.remove("transcript_versions");
        document.remove("created_at");
        document.insert("transcript", "All of it.");
        let mut flat = Told::of_conversation(&document).unwrap();
        assert_eq!(flat.segments()[0].text, "All of it.");
        assert_eq!(flat.started_at, None);
        flat.complete(&chunk);
        assert_eq!(flat.started_at.unwrap().millis(), 1_753_190_000_500);
        document.insert("segments", vec![doc! { "text": "Part.", "start": 1.0, "end": 2.0 }]);
        assert_eq!(Told::of_conversation(&document).unwrap().segments()[0].text, "Part.");
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let why = |document: Document| Told::of_chunk(&document).unwrap_err();
        assert_eq!(why(doc! { "audio_uuid": null }), "it has no audio_uuid");
        assert!(why(doc! { "audio_uuid": "../x" }).contains("name of a file"));
        let odd = doc! { "audio_uuid": "a", "transcription_status": "LOST" };
        assert!(why(odd).contains("LOST"));
        let odd = doc! { "audio_uuid": "a", "transcript": [5] };
        assert!(why(odd).contains("segment"));
        let silent = Told::of_chunk(&doc! { "audio_uuid": "a", "has_speech": false }).unwrap();
        assert_eq!(silent.transcription, Some(Progress::Empty));
    }
}
