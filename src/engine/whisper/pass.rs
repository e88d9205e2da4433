//! One pass of the model over at most thirty seconds of audio.

use friend_lite::base::error::{Context, Kind, Result};
use friend_lite::domain::conversation::SAMPLE_RATE;
use friend_lite::engine::guard::Pass;
use friend_lite::engine::words::{Piece, Token, read};
use whisper_rs::{FullParams, SamplingStrategy, WhisperState};

use super::{Whisper, seconds};

/// Seconds of audio in a full pass.
const FULL_SECONDS: f64 = 30.0;
/// Positions of the encoder for a full pass.
const FULL_CONTEXT: i32 = 1_500;
/// Fewer positions than this make stock models repeat themselves.
const LEAST_CONTEXT: i32 = 512;
/// Positions beyond the end of the audio: without a margin the last word is lost.
const CONTEXT_MARGIN: i32 = 128;
/// Shorter audio is padded to this with silence, in samples.
const LEAST_SAMPLES: usize = SAMPLE_RATE as usize;
/// Tokens that one second of speech can make, in the languages that need most.
const TOKENS_PER_SECOND: f64 = 20.0;
/// Seconds between two of the model's time tokens.
const TIME_STEP: f64 = 0.02;

/// What one pass found, and how far it read.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) pass: Pass,
    /// Seconds up to which everything was written down.
    pub(super) read_to: f64,
    /// Whether the model was done with all of the audio.
    pub(super) complete: bool,
}

/// Runs one pass over `audio`.
pub(super) fn run(
    whisper: &Whisper,
    state: &mut WhisperState,
    audio: &[f32],
    language: &'static str,
    temperature: f32,
) -> Result<Attempt> {
    let length = seconds(audio.len());
    let mut params = params(whisper, audio_context(length), language);
    params.set_temperature(temperature);
    params.set_max_tokens((length * TOKENS_PER_SECOND) as i32 + 16);
    full(state, params, audio)?;
    let reading = read(&pieces(whisper, state), length);
    let no_speech = no_speech(whisper, state)?;
    tracing::debug!(no_speech, ?reading, "pass");
    let log_probability = reading.log_probability;
    let pass = Pass { segments: reading.segments, log_probability, no_speech }.without_sounds();
    Ok(Attempt { pass, read_to: reading.read_to, complete: reading.complete })
}

/// Makes `state` ready to detect the language that `audio` begins with.
pub(super) fn prepare_detection(
    whisper: &Whisper,
    state: &mut WhisperState,
    audio: &[f32],
) -> Result<()> {
    // whisper.cpp encodes a full pass to detect a language, whatever the length
    // of the audio. A call that covers exactly a tenth of a second sets a
    // shorter context and computes the spectrum, and encodes nothing.
    let mut params = params(whisper, LEAST_CONTEXT, "en");
    params.set_duration_ms(100);
    full(state, params, audio)
}

fn full(state: &mut WhisperState, params: FullParams<'_, '_>, audio: &[f32]) -> Result<()> {
    let done = if audio.len() < LEAST_SAMPLES {
        let mut padded = audio.to_vec();
        padded.resize(LEAST_SAMPLES, 0.0);
        state.full(params, &padded)
    } else {
        state.full(params, audio)
    };
    done.context(Kind::Internal, "whisper failed")
}

fn params(whisper: &Whisper, context: i32, language: &'static str) -> FullParams<'static, 'static> {
    let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
    params.set_n_threads(whisper.threads);
    params.set_language(Some(language));
    params.set_audio_ctx(context);
    params.set_no_context(true);
    // One segment, which is taken apart at its times here: whisper.cpp itself
    // encodes whatever follows the last time once more, be it a breath long.
    params.set_single_segment(true);
    params.set_token_timestamps(true);
    params.set_suppress_blank(true);
    // Names of sounds are left to say: a model that may not write `[Music]`
    // makes up a sentence instead. The guard takes them out.
    params.set_suppress_nst(false);
    // Its own retries go by a no-speech probability that is wrong (see
    // [`no_speech`]) and turn noise into sentences.
    params.set_temperature_inc(0.0);
    params.set_print_progress(false);
    params.set_print_realtime(false);
    params.set_print_special(false);
    params.set_print_timestamps(false);
    params
}

/// What the model wrote in the last pass.
fn pieces(whisper: &Whisper, state: &WhisperState) -> Vec<Piece> {
    let (end, zero) = (whisper.context.token_eot(), whisper.context.token_beg());
    let mut pieces = Vec::new();
    for segment in state.as_iter() {
        for token in (0..segment.n_tokens()).filter_map(|index| segment.get_token(index)) {
            let data = token.token_data();
            if data.id >= zero {
                pieces.push(Piece::Time(f64::from(data.id - zero) * TIME_STEP));
            } else if data.id == end {
                pieces.push(Piece::End);
            } else if data.id < end {
                let token = Token {
                    bytes: token.to_bytes().unwrap_or_default().to_vec(),
                    // In hundredths of a second.
                    start: data.t0 as f64 / 100.0,
                    end: data.t1 as f64 / 100.0,
                    probability: data.p,
                };
                pieces.push(Piece::Text(token, data.plog));
            }
        }
    }
    pieces
}

/// The probability that nobody speaks in the last pass: that of its token right
/// after the start token, for which the model was trained. whisper.cpp has a
/// figure of the same name that reads the wrong row and is constant.
fn no_speech(whisper: &Whisper, state: &mut WhisperState) -> Result<f32> {
    let threads = usize::try_from(whisper.threads).unwrap_or(1);
    let start = [whisper.context.token_sot()];
    state.decode(&start, 0, threads).context(Kind::Internal, "whisper failed")?;
    let logits = state.get_logits().context(Kind::Internal, "whisper failed")?;
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    let token = usize::try_from(whisper.context.token_nosp()).unwrap_or(usize::MAX);
    Ok(logits.get(token).map_or(0.0, |logit| (logit - most).exp() / sum))
}

/// Positions of the encoder for so many seconds of audio. The encoder's work
/// grows with them; a full pass needs them all.
fn audio_context(seconds: f64) -> i32 {
    let positions = (seconds / FULL_SECONDS * f64::from(FULL_CONTEXT)).ceil() as i32;
    (positions + CONTEXT_MARGIN).clamp(LEAST_CONTEXT, FULL_CONTEXT)
}
