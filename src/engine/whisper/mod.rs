//! whisper.cpp as a [`Recognizer`]. Compiled into `friend-lite-whisper` only.

mod pass;

use std::path::Path;

use friend_lite::base::error::{Context, Error, Kind, Result};
use friend_lite::domain::conversation::SAMPLE_RATE;
use friend_lite::domain::transcript::{Segment, Transcript};
use friend_lite::engine::asr::Recognizer;
use friend_lite::engine::guard::Verdict;
use friend_lite::wyoming::event::{Attribution, Info, Model, Program};
use whisper_rs::{
    WhisperContext, WhisperContextParameters, WhisperState, get_lang_id, get_lang_max_id,
    get_lang_str,
};

/// Less audio than this holds no word: one tenth of a second.
const NOTHING: usize = SAMPLE_RATE as usize / 10;
/// A rest shorter than this is left unread, a second: on so little a model makes
/// things up.
const REST: usize = SAMPLE_RATE as usize;
/// The longest audio of one pass: thirty seconds.
const PASS: usize = SAMPLE_RATE as usize * 30;
/// A pass reads at least this much, in seconds, or it counts as having read all.
const PROGRESS: f64 = 1.0;
/// Temperature of the second try.
const WARM: f32 = 0.4;

/// A loaded model.
#[derive(Debug)]
pub(crate) struct Whisper {
    context: WhisperContext,
    name: String,
    threads: i32,
    /// For requests that name none; none: detect it.
    language: Option<&'static str>,
}

impl Whisper {
    /// Loads the model at `path`. `language` is an ISO 639-1 code or `auto`.
    ///
    /// # Errors
    /// `Config` when the file is not a model or the language is unknown.
    pub(crate) fn load(path: &Path, threads: u16, language: &str) -> Result<Self> {
        whisper_rs::install_logging_hooks();
        let language = known_language(language)?;
        let mut params = WhisperContextParameters::default();
        params.use_gpu(false).flash_attn(true);
        let context = WhisperContext::new_with_params(path, params)
            .with_context(Kind::Config, || format!("cannot load the model {}", path.display()))?;
        let name = friend_lite::engine::model_name(path);
        Ok(Self { context, name, threads: i32::from(threads.max(1)), language })
    }

    /// The language to use: what is asked for, the default, or none to detect it.
    fn language(&self, asked: Option<&str>) -> Result<Option<&'static str>> {
        let asked = asked.map_or(Ok(self.language), known_language)?;
        Ok(if self.context.is_multilingual() { asked } else { Some("en") })
    }

    /// What is said in `audio`, and how many samples of it were read. With
    /// `more` to come, what the end cuts in two is left to the next pass.
    fn listen(
        &self,
        state: &mut WhisperState,
        audio: &[f32],
        more: bool,
        language: &'static str,
    ) -> Result<(Vec<Segment>, usize)> {
        let mut attempt = pass::run(self, state, audio, language, 0.0)?;
        if attempt.pass.verdict() == Verdict::Failed {
            // Warmer sampling gets out of loops and wrong turns.
            let warm = pass::run(self, state, audio, language, WARM)?;
            let better = warm.pass.log_probability > attempt.pass.log_probability;
            if better || warm.pass.verdict() == Verdict::Speech {
                attempt = warm;
            }
        }
        let segments = match attempt.pass.verdict() {
            Verdict::Speech => attempt.pass.segments,
            Verdict::Failed => attempt.pass.without_loops().segments,
            Verdict::Noise => return Ok((Vec::new(), audio.len())),
        };
        let all = (attempt.complete && !more) || attempt.read_to < PROGRESS;
        let read = if all { audio.len() } else { samples(attempt.read_to) };
        Ok((segments, read.min(audio.len())))
    }

    /// The language spoken at the beginning of `audio`.
    fn detect(&self, state: &mut WhisperState, audio: &[f32]) -> Result<&'static str> {
        pass::prepare_detection(self, state, audio)?;
        let threads = usize::try_from(self.threads).unwrap_or(1);
        let found = state.lang_detect(0, threads).context(Kind::Internal, "whisper failed")?;
        get_lang_str(found.0).ok_or_else(|| Error::new(Kind::Internal, "no language found"))
    }
}

impl Recognizer for Whisper {
    fn info(&self) -> Info {
        let languages: Vec<_> = if self.context.is_multilingual() {
            (0..=get_lang_max_id()).filter_map(get_lang_str).map(str::to_owned).collect()
        } else {
            vec!["en".to_owned()]
        };
        let version = Some(env!("CARGO_PKG_VERSION").to_owned());
        let by = |name: &str, url: &str| Attribution { name: name.to_owned(), url: url.to_owned() };
        let model = Model {
            name: self.name.clone(),
            description: format!("Whisper model {}", self.name),
            attribution: by("OpenAI", "https://github.com/openai/whisper"),
            installed: true,
            version: None,
            languages,
        };
        let program = Program {
            name: "friend-lite".to_owned(),
            description: "Speech to text on this machine".to_owned(),
            attribution: by("whisper.cpp", "https://github.com/ggml-org/whisper.cpp"),
            installed: true,
            version,
            models: vec![model],
            supports_transcript_streaming: false,
        };
        Info { asr: vec![program] }
    }

    fn recognize(&mut self, samples: &[f32], language: Option<&str>) -> Result<Transcript> {
        let language = self.language(language)?;
        if samples.len() < NOTHING {
            return Ok(Transcript::default());
        }
        // A state of its own for each request: in one that was used before,
        // whisper.cpp can find the text of the last request.
        let state = self.context.create_state();
        let mut state = state.context(Kind::Internal, "no memory for whisper")?;
        let language = match language {
            Some(language) => language,
            None => self.detect(&mut state, samples)?,
        };
        let (mut segments, mut rest) = (Vec::new(), samples);
        loop {
            let (audio, later) = rest.split_at(rest.len().min(PASS));
            let (found, read) = self.listen(&mut state, audio, !later.is_empty(), language)?;
            let offset = seconds(samples.len() - rest.len());
            segments.extend(found.into_iter().map(|segment| moved(segment, offset)));
            rest = rest.get(read..).unwrap_or_default();
            if rest.len() < REST {
                break;
            }
        }
        let language = Some(language.to_owned());
        Ok(Transcript { segments, language, ..Transcript::default() })
    }
}

/// So many samples in seconds.
fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

/// So many seconds in samples.
fn samples(seconds: f64) -> usize {
    (seconds * f64::from(SAMPLE_RATE)) as usize
}

/// `segment` so many seconds later.
fn moved(mut segment: Segment, offset: f64) -> Segment {
    segment.start += offset;
    segment.end += offset;
    for word in &mut segment.words {
        word.start += offset;
        word.end += offset;
    }
    segment
}

/// The language that `code` means (`en`, `en-GB`); none for `auto`.
fn known_language(code: &str) -> Result<Option<&'static str>> {
    let short = code.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    if short.is_empty() || short == "auto" {
        return Ok(None);
    }
    let plain = short.bytes().all(|byte| byte.is_ascii_alphabetic());
    let known = if plain { get_lang_id(&short).and_then(get_lang_str) } else { None };
    match known {
        Some(language) => Ok(Some(language)),
        None => Err(Error::new(Kind::BadInput, format!("unknown language `{code}`"))),
    }
}
