//! Speech to text: the port, with its adapters beside it.

use async_trait::async_trait;

use crate::base::error::Result;
use crate::domain::job::Lane;
use crate::domain::transcript::Transcript;
use crate::recording::Recordings;
use live::Place;

pub mod deepgram;
pub mod failover;
pub mod live;
pub mod openai;
pub mod whisper;
pub mod wyoming;

/// What whisper's multilingual models understand, and what services outside are
/// asked for: one that knows less says so itself.
const LANGUAGES: [&str; 100] = [
    "af", "am", "ar", "as", "az", "ba", "be", "bg", "bn", "bo", "br", "bs", "ca", "cs", "cy", "da",
    "de", "el", "en", "es", "et", "eu", "fa", "fi", "fo", "fr", "gl", "gu", "ha", "haw", "he",
    "hi", "hr", "ht", "hu", "hy", "id", "is", "it", "ja", "jw", "ka", "kk", "km", "kn", "ko", "la",
    "lb", "ln", "lo", "lt", "lv", "mg", "mi", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "nl",
    "nn", "no", "oc", "pa", "pl", "ps", "pt", "ro", "ru", "sa", "sd", "si", "sk", "sl", "sn", "so",
    "sq", "sr", "su", "sv", "sw", "ta", "te", "tg", "th", "tk", "tl", "tr", "tt", "uk", "ur", "uz",
    "vi", "yi", "yo", "yue", "zh",
];

/// A piece of speech to transcribe.
#[derive(Clone, Debug)]
pub struct Speech {
    /// 16 kHz mono samples, at most 30 s for one pass of the model.
    pub samples: Vec<i16>,
    /// Who waits for it.
    pub lane: Lane,
    /// The language spoken, as an ISO 639-1 code; none: the one the engine is
    /// configured for.
    pub language: Option<String>,
    /// Where it was recorded, for an engine that may have listened.
    pub place: Option<Place>,
}

/// Windows of one recording to transcribe at once.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Where the recording is.
    pub recordings: Recordings,
    /// Its file name.
    pub file: String,
    /// The windows, in order.
    pub windows: Vec<Place>,
}

/// An engine that tells speakers apart through all that it is given at once, but
/// numbers them anew the next time.
#[async_trait]
pub trait HearsWhole: Send + Sync {
    /// The transcript of each of the windows, with times in seconds from its first
    /// sample, and the same speakers in all.
    ///
    /// # Errors
    /// As [`SpeechToText::transcribe`], and as [`Recordings::read`].
    async fn transcribe_whole(&self, whole: &Whole) -> Result<Vec<Transcript>>;
}

/// An engine that turns speech into text.
#[async_trait]
pub trait SpeechToText: Send + Sync {
    /// Engine and model, as recorded with each transcript: `whisper/ggml-base.bin`.
    fn name(&self) -> String;

    /// ISO 639-1 codes of the languages it understands.
    fn languages(&self) -> &[&str];

    /// Whether it can be asked: false while its model is not on this machine, or
    /// its service is known to be away.
    fn is_ready(&self) -> bool;

    /// Who had better be given a conversation at once, when it is closed, than its
    /// windows as they come; none where that makes no difference.
    fn whole(&self) -> Option<&dyn HearsWhole> {
        None
    }

    /// The transcript of `speech`, with times in seconds from its first sample.
    /// Silence and noise give an empty one.
    ///
    /// # Errors
    /// `Unavailable` and `Timeout` when the engine died or took too long: the
    /// same audio may be tried again; `Away` when it was known to. `BadInput` when it never can be, or for a
    /// language that it does not know.
    async fn transcribe(&self, speech: Speech) -> Result<Transcript>;
}
