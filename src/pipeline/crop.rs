//! The speech of a recording in a file of its own.

use std::sync::Arc;

use async_trait::async_trait;

use crate::audio::vad::{FRAME, Vad};
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::config;
use crate::domain::conversation::{SAMPLE_RATE, Span};
use crate::domain::job::{Job, JobKind, Payload};
use crate::domain::version;
use crate::jobs::worker::Handler;
use crate::recording::Recordings;
use crate::store::Store;
use crate::supervisor::blocking;

/// Samples read at a time, in whole frames: a minute.
const PIECE: u64 = 2_000 * FRAME as u64;

/// Does [`JobKind::Crop`].
pub struct Crop {
    store: Arc<dyn Store>,
    recordings: Recordings,
    vad_mode: u8,
    rules: Rules,
    clock: Clock,
}

/// What of the detector's speech is kept, in samples.
#[derive(Clone, Copy, Debug)]
struct Rules {
    min_speech: u64,
    padding: u64,
}

impl Crop {
    /// With the recordings to read, and how speech is found in them.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        vad_mode: u8,
        cropping: &config::Cropping,
        clock: Clock,
    ) -> Self {
        let samples =
            |time: config::Interval| (time.get().as_secs_f64() * f64::from(SAMPLE_RATE)) as u64;
        let rules =
            Rules { min_speech: samples(cropping.min_speech), padding: samples(cropping.padding) };
        Self { store, recordings, vad_mode, rules, clock }
    }

    /// Where in the recording `name` somebody speaks.
    async fn speech(&self, name: &str) -> Result<Vec<Span>> {
        let samples = self.recordings.samples(name).await?;
        let mut heard = Heard::new(self.vad_mode);
        let mut at = 0;
        while at < samples {
            let end = samples.min(at + PIECE);
            let audio = self.recordings.read(name, &[Span { start: at, end }]).await?;
            heard = blocking(move || {
                heard.push(&audio);
                Ok(heard)
            })
            .await?;
            at = end;
        }
        Ok(self.rules.keep(&heard.spans, samples))
    }
}

#[async_trait]
impl Handler for Crop {
    fn kinds(&self) -> &'static [JobKind] {
        &[JobKind::Crop]
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let gone = || Error::new(Kind::NotFound, "the conversation to crop is gone");
        let Payload::Conversation(id) = &job.payload else { return Err(gone()) };
        let conversation = self.store.conversation(id).await?.ok_or_else(gone)?;
        let source = &conversation.audio_path;
        let spans = match self.speech(source).await {
            // Not a sample arrived before its source was gone.
            Err(error) if error.kind() == Kind::NotFound && conversation.samples == 0 => Vec::new(),
            spans => spans?,
        };
        let audio_path = if spans.is_empty() {
            None
        } else {
            let name = Recordings::cropped_name(id);
            self.recordings.write_cropped(source, &name, &spans).await?;
            Some(name)
        };
        let crop = version::Crop { audio_path, spans, at: self.clock.now() };
        planned::before("keeping a crop")?;
        self.store.complete_crop(job.lease(), id, &crop).await?;
        planned::after("keeping a crop")?;
        tracing::debug!(conversation = %id, seconds = crop.duration_seconds(), "cropped");
        Ok(())
    }
}

/// Gathers the stretches that the detector takes for speech.
struct Heard {
    vad: Vad,
    position: u64,
    spans: Vec<Span>,
}

impl Heard {
    fn new(mode: u8) -> Self {
        Self { vad: Vad::new(mode), position: 0, spans: Vec::new() }
    }

    /// Takes whole frames; a part of one is left out, as at the very end.
    fn push(&mut self, audio: &[i16]) {
        for frame in audio.as_chunks::<FRAME>().0 {
            let start = self.position;
            self.position += FRAME as u64;
            if !self.vad.judge(frame).speech {
                continue;
            }
            match self.spans.last_mut() {
                Some(last) if last.end == start => last.end = self.position,
                _ => self.spans.push(Span { start, end: self.position }),
            }
        }
    }
}

impl Rules {
    /// The speech that is long enough, padded, in a recording of `samples`; what
    /// overlaps then is one.
    fn keep(self, heard: &[Span], samples: u64) -> Vec<Span> {
        let mut kept: Vec<Span> = Vec::new();
        for span in heard.iter().filter(|span| span.len() >= self.min_speech) {
            let start = span.start.saturating_sub(self.padding);
            let end = span.end.saturating_add(self.padding).min(samples);
            match kept.last_mut() {
                Some(last) if start <= last.end => last.end = end,
                _ => kept.push(Span { start, end }),
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::synthetic::{Noise, speech};

    const RULES: Rules = Rules { min_speech: 16_000, padding: 1_600 };

    #[test]
    fn short_speech_is_left_out_and_the_rest_padded_and_joined() {
        let span = |start, end| Span { start, end };
        let heard = [
            span(0, 20_000),
            span(22_000, 60_000),
            span(70_000, 80_000),
            span(100_000, 120_000),
            span(123_201, 150_000),
        ];
        assert_eq!(
            RULES.keep(&heard, 151_000),
            [span(0, 61_600), span(98_400, 121_600), span(121_601, 151_000)]
        );
        assert_eq!(RULES.keep(&[span(0, 15_999)], 16_000), []);
    }

    #[test]
    fn talk_is_found_and_silence_is_not() {
        let mut sound = vec![0; 48_000];
        sound.extend(speech(4.0));
        sound.resize(sound.len() + 48_000, 0);
        let total = sound.len() as u64;
        let noisy: Vec<i16> =
            sound.iter().zip(Noise::new(1).white(25.0)).map(|(a, b)| a.saturating_add(b)).collect();
        let mut heard = Heard::new(1);
        noisy.chunks(FRAME * 10).for_each(|piece| heard.push(piece));
        let kept = RULES.keep(&heard.spans, total);
        let length: u64 = kept.iter().map(|span| span.len()).sum();
        assert!(kept.first().is_some_and(|span| span.start > 40_000), "{kept:?}");
        assert!((3 * 16_000..5 * 16_000).contains(&length), "{kept:?}");

        let mut silent = Heard::new(1);
        silent.push(&vec![0; 160_000]);
        assert_eq!(RULES.keep(&silent.spans, 160_000), []);
    }
}
