//! whisper.cpp as a [`Recognizer`]. Compiled into `friend-lite-whisper` only.

use std::path::Path;

use friend_lite::base::error::{Context, Error, Kind, Result};
use friend_lite::domain::conversation::SAMPLE_RATE;
use friend_lite::domain::transcript::{Segment, Transcript};
use friend_lite::engine::asr::Recognizer;
use friend_lite::engine::guard::{self, Measures};
use friend_lite::engine::words::{Token, words};
use friend_lite::wyoming::event::{Attribution, Info, Model, Program};
use whisper_rs::{
    FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperSegment,
    WhisperState, get_lang_id, get_lang_max_id, get_lang_str,
};

/// Seconds of audio in one pass of the model.
const PASS_SECONDS: f32 = 30.0;
/// Positions of the encoder for a full pass.
const FULL_CONTEXT: i32 = 1_500;
/// Fewer positions than this make stock models repeat themselves.
const LEAST_CONTEXT: i32 = 512;
/// Positions beyond the end of the audio: without a margin the last word is lost.
const CONTEXT_MARGIN: i32 = 128;
/// Shorter audio is padded to this with silence, in samples.
const LEAST_SAMPLES: usize = SAMPLE_RATE as usize;
/// Less audio than this holds no word: one tenth of a second.
const NOTHING: usize = SAMPLE_RATE as usize / 10;
/// Tokens that one second of speech can make, in the languages that need most.
const TOKENS_PER_SECOND: f32 = 20.0;

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

    /// The language spoken at the beginning of `audio`.
    fn detect(&self, state: &mut WhisperState, audio: &[f32]) -> Result<&'static str> {
        // whisper.cpp encodes a full pass to detect a language, whatever the
        // length of the audio. A call that covers exactly a tenth of a second
        // sets the shorter context and computes the spectrum, and encodes nothing.
        let mut params = self.params(LEAST_CONTEXT, Some("en"));
        params.set_duration_ms(100);
        state.full(params, audio).context(Kind::Internal, "whisper failed")?;
        let threads = usize::try_from(self.threads).unwrap_or(1);
        let found = state.lang_detect(0, threads).context(Kind::Internal, "whisper failed")?;
        get_lang_str(found.0).ok_or_else(|| Error::new(Kind::Internal, "no language found"))
    }

    fn params(&self, context: i32, language: Option<&'static str>) -> FullParams<'static, 'static> {
        let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
        params.set_n_threads(self.threads);
        params.set_language(language);
        params.set_audio_ctx(context);
        params.set_no_context(true);
        params.set_token_timestamps(true);
        params.set_suppress_blank(true);
        params.set_suppress_nst(true);
        params.set_print_progress(false);
        params.set_print_realtime(false);
        params.set_print_special(false);
        params.set_print_timestamps(false);
        params
    }

    fn segment(&self, segment: &WhisperSegment<'_>, length: f64) -> (Segment, Measures) {
        let start = seconds(segment.start_timestamp()).clamp(0.0, length);
        let end = seconds(segment.end_timestamp()).clamp(start, length);
        let special = self.context.token_eot();
        let (mut tokens, mut log_sum) = (Vec::new(), 0.0);
        for token in (0..segment.n_tokens()).filter_map(|index| segment.get_token(index)) {
            let data = token.token_data();
            if data.id >= special {
                continue;
            }
            log_sum += data.plog;
            tokens.push(Token {
                bytes: token.to_bytes().unwrap_or_default().to_vec(),
                start: seconds(data.t0),
                end: seconds(data.t1),
                probability: data.p,
            });
        }
        let count = tokens.len().max(1) as f32;
        let confidence = tokens.iter().map(|token| token.probability).sum::<f32>() / count;
        let text = segment.to_str_lossy().unwrap_or_default().trim().to_owned();
        let measures = Measures {
            seconds: end - start,
            tokens: tokens.len(),
            log_probability: log_sum / count,
            no_speech: segment.no_speech_probability(),
        };
        let words = words(&tokens, start, end);
        (Segment { start, end, text, speaker: None, confidence, words }, measures)
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
        };
        Info { asr: vec![program] }
    }

    fn recognize(&mut self, samples: &[f32], language: Option<&str>) -> Result<Transcript> {
        let language = self.language(language)?;
        if samples.len() < NOTHING || guard::is_silent(samples) {
            return Ok(Transcript::default());
        }
        let length = samples.len() as f64 / f64::from(SAMPLE_RATE);
        let mut audio = samples.to_vec();
        audio.resize(audio.len().max(LEAST_SAMPLES), 0.0);
        // A state of its own for each request: in one that was used before,
        // whisper.cpp can find the text of the last request.
        let state = self.context.create_state();
        let mut state = state.context(Kind::Internal, "no memory for whisper")?;
        let language = match language {
            Some(language) => language,
            None => self.detect(&mut state, &audio)?,
        };
        let mut params = self.params(audio_context(length as f32), Some(language));
        params.set_max_tokens((length as f32 * TOKENS_PER_SECOND) as i32 + 16);
        state.full(params, &audio).context(Kind::Internal, "whisper failed")?;
        let found = state.as_iter().map(|segment| self.segment(&segment, length));
        let segments = guard::keep_speech(found.collect());
        Ok(Transcript { segments, language: Some(language.to_owned()) })
    }
}

/// Positions of the encoder for so many seconds of audio. The encoder's work
/// grows with them; a full pass needs them all.
fn audio_context(seconds: f32) -> i32 {
    let positions = (seconds / PASS_SECONDS * FULL_CONTEXT as f32).ceil() as i32;
    (positions + CONTEXT_MARGIN).clamp(LEAST_CONTEXT, FULL_CONTEXT)
}

/// whisper.cpp counts time in hundredths of a second.
fn seconds(centiseconds: i64) -> f64 {
    centiseconds as f64 / 100.0
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
