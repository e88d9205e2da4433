//! whisper.cpp as a [`Recognizer`]. Compiled into `friend-lite-whisper` only.

use std::path::Path;

use friend_lite::base::error::{Context, Error, Kind, Result};
use friend_lite::domain::conversation::SAMPLE_RATE;
use friend_lite::domain::transcript::{Segment, Transcript};
use friend_lite::engine::asr::Recognizer;
use friend_lite::engine::guard::{Pass, Verdict};
use friend_lite::engine::words::{Token, words};
use friend_lite::wyoming::event::{Attribution, Info, Model, Program};
use whisper_rs::{
    FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperState,
    get_lang_id, get_lang_max_id, get_lang_str,
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

    /// The probability that nobody speaks in the last pass: that of its token
    /// right after the start token, for which the model was trained. whisper.cpp
    /// has a figure of the same name that reads the wrong row and is constant.
    fn no_speech(&self, state: &mut WhisperState) -> Result<f32> {
        let threads = usize::try_from(self.threads).unwrap_or(1);
        let start = [self.context.token_sot()];
        state.decode(&start, 0, threads).context(Kind::Internal, "whisper failed")?;
        let logits = state.get_logits().context(Kind::Internal, "whisper failed")?;
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
        let token = usize::try_from(self.context.token_nosp()).unwrap_or(usize::MAX);
        Ok(logits.get(token).map_or(0.0, |logit| (logit - most).exp() / sum))
    }

    fn params(&self, context: i32, language: Option<&'static str>) -> FullParams<'static, 'static> {
        let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
        params.set_n_threads(self.threads);
        params.set_language(language);
        params.set_audio_ctx(context);
        params.set_no_context(true);
        params.set_token_timestamps(true);
        params.set_suppress_blank(true);
        // Names of sounds are left to say: a model that may not write `[Music]`
        // makes up a sentence instead. The guard takes them out.
        params.set_suppress_nst(false);
        // Its own retries go by a no-speech probability that is wrong (see
        // [`Whisper::no_speech`]) and turn noise into sentences.
        params.set_temperature_inc(0.0);
        params.set_print_progress(false);
        params.set_print_realtime(false);
        params.set_print_special(false);
        params.set_print_timestamps(false);
        params
    }

    /// One pass over `audio`, of which `length` seconds are real.
    fn pass(
        &self,
        state: &mut WhisperState,
        audio: &[f32],
        length: f64,
        params: FullParams<'_, '_>,
    ) -> Result<Pass> {
        state.full(params, audio).context(Kind::Internal, "whisper failed")?;
        let no_speech = self.no_speech(state)?;
        let (mut segments, mut log_sum, mut count) = (Vec::new(), 0.0, 0_u16);
        for segment in state.as_iter() {
            let start = seconds(segment.start_timestamp()).clamp(0.0, length);
            let end = seconds(segment.end_timestamp()).clamp(start, length);
            let mut tokens = Vec::new();
            for token in (0..segment.n_tokens()).filter_map(|index| segment.get_token(index)) {
                let data = token.token_data();
                if data.id >= self.context.token_eot() {
                    continue;
                }
                log_sum += data.plog;
                count += 1;
                tokens.push(Token {
                    bytes: token.to_bytes().unwrap_or_default().to_vec(),
                    start: seconds(data.t0),
                    end: seconds(data.t1),
                    probability: data.p,
                });
            }
            let sure: f32 = tokens.iter().map(|token| token.probability).sum();
            segments.push(Segment {
                start,
                end,
                text: segment.to_str_lossy().unwrap_or_default().trim().to_owned(),
                speaker: None,
                confidence: sure / tokens.len().max(1) as f32,
                words: words(&tokens, start, end),
            });
        }
        let log_probability = log_sum / f32::from(count.max(1));
        tracing::debug!(log_probability, no_speech, ?segments, "pass");
        Ok(Pass { segments, log_probability, no_speech }.without_sounds())
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
        if samples.len() < NOTHING {
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
        let context = audio_context(length as f32);
        let mut params = self.params(context, Some(language));
        params.set_max_tokens((length as f32 * TOKENS_PER_SECOND) as i32 + 16);
        let mut pass = self.pass(&mut state, &audio, length, params.clone())?;
        if pass.verdict() == Verdict::Failed {
            // Warmer sampling gets out of loops and wrong turns.
            params.set_temperature(WARM);
            let warm = self.pass(&mut state, &audio, length, params)?;
            if warm.verdict() == Verdict::Speech || warm.log_probability > pass.log_probability {
                pass = warm;
            }
        }
        let segments = match pass.verdict() {
            Verdict::Speech => pass.segments,
            Verdict::Noise => Vec::new(),
            Verdict::Failed => pass.without_loops().segments,
        };
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
