//! What a session needs once audio comes: where conversations begin and end in
//! the stream, by the audio's own clock.

use std::sync::Arc;
use std::time::Duration;

use super::Ingest;
use super::clients::Client;
use super::open::Open;
use super::pre_roll::PreRoll;
use crate::audio::convert::Converter;
use crate::audio::opus::OpusDecoder;
use crate::audio::pcm::PcmFormat;
use crate::audio::segmenter::Segmenter;
use crate::audio::vad::FRAME;
use crate::base::error::Result;
use crate::config::Interval;
use crate::domain::conversation::{CloseReason, NewWindow, SAMPLE_RATE};
use crate::recording::Format;

/// Samples looked at together, 0.3 s: no window can begin and end within them.
const PIECE: usize = 10 * FRAME;

/// A stream of audio on its way into conversations.
pub(super) struct Stream {
    ingest: Arc<Ingest>,
    client: Arc<Client>,
    source: Source,
    segmenter: Segmenter,
    pre_roll: PreRoll,
    open: Option<Open>,
    samples: Vec<i16>,
    windows: Vec<NewWindow>,
}

/// What makes samples of what a device sends; it keeps state between messages.
enum Source {
    /// Nothing has come yet.
    None,
    Pcm(Converter),
    Opus(OpusDecoder),
}

impl Stream {
    pub(super) fn new(ingest: &Arc<Ingest>, client: &Arc<Client>) -> Self {
        Self {
            ingest: ingest.clone(),
            client: client.clone(),
            source: Source::None,
            segmenter: Segmenter::new(&ingest.config.transcribe),
            pre_roll: PreRoll::default(),
            open: None,
            samples: Vec::new(),
            windows: Vec::new(),
        }
    }

    /// Takes PCM of `format`. `bounded`: between audio-start and audio-stop.
    pub(super) async fn pcm(
        &mut self,
        bytes: &[u8],
        format: PcmFormat,
        bounded: bool,
    ) -> Result<()> {
        let converter = match &mut self.source {
            Source::Pcm(converter) if converter.format() == format => converter,
            _ => {
                let next = Converter::new(format)?;
                self.flush(bounded).await?;
                self.source = Source::Pcm(next);
                let Source::Pcm(converter) = &mut self.source else { return Ok(()) };
                converter
            }
        };
        converter.push(bytes, &mut self.samples)?;
        self.accept_all(None, bounded).await
    }

    /// Takes one Opus packet. It is recorded as it came.
    pub(super) async fn opus(&mut self, packet: &[u8], bounded: bool) -> Result<()> {
        let decoder = match &mut self.source {
            Source::Opus(decoder) => decoder,
            _ => {
                let next = OpusDecoder::new()?;
                self.flush(bounded).await?;
                self.source = Source::Opus(next);
                let Source::Opus(decoder) = &mut self.source else { return Ok(()) };
                decoder
            }
        };
        decoder.decode(packet, &mut self.samples)?;
        self.accept_all(Some(packet), bounded).await
    }

    /// Takes what a filter still holds; what comes next begins anew.
    pub(super) async fn flush(&mut self, bounded: bool) -> Result<()> {
        if let Source::Pcm(converter) = &mut self.source {
            converter.finish(&mut self.samples)?;
        }
        self.accept_all(None, bounded).await
    }

    /// Whether a conversation is being recorded.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Time left until audio must go to disk.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.open.as_ref().and_then(Open::due_in)
    }

    /// Sends audio to disk that is due.
    pub(super) fn poll(&mut self) -> Result<()> {
        self.open.as_mut().map_or(Ok(()), Open::poll)
    }

    /// Closes the conversation, if there is one.
    pub(super) async fn close(&mut self, reason: CloseReason) {
        let mut windows = std::mem::take(&mut self.windows);
        windows.extend(self.segmenter.finish());
        self.segmenter.restart();
        self.pre_roll.clear();
        if let Some(open) = self.open.take() {
            open.close(windows, reason).await;
        }
    }

    /// Ends the stream: nothing it holds is lost.
    pub(super) async fn end(mut self: Box<Self>, bounded: bool, reason: CloseReason) {
        // What fails here was tried just before; the close tries once more and reports.
        let _ = self.flush(bounded).await;
        self.close(reason).await;
    }

    /// Takes the samples that have been made: of `packet`, or of PCM.
    async fn accept_all(&mut self, packet: Option<&[u8]>, bounded: bool) -> Result<()> {
        self.client.heard(self.ingest.clock.now());
        let mut samples = std::mem::take(&mut self.samples);
        let mut result = Ok(());
        // The samples of a packet are one piece, whatever its length.
        for piece in samples.chunks(PIECE) {
            result = self.accept(piece, packet, bounded).await;
            if result.is_err() {
                break;
            }
        }
        samples.clear();
        samples.shrink_to(PIECE);
        self.samples = samples;
        result
    }

    async fn accept(&mut self, piece: &[i16], packet: Option<&[u8]>, bounded: bool) -> Result<()> {
        let format = if packet.is_some() { Format::Opus } else { Format::Wav };
        // A recording has one format. What comes in another begins a new one:
        // nothing is encoded twice, and nothing is left out.
        if self.open.as_ref().is_some_and(|open| open.format() != format) {
            Box::pin(self.close(CloseReason::FormatChange)).await;
        }
        if self.open.is_none() && bounded {
            self.segmenter.restart();
            self.pre_roll.clear();
            self.open = Some(self.begin(format, piece.len()).await?);
        }
        let Some(open) = &mut self.open else { return self.await_speech(piece, packet).await };
        // Both before anything that can fail: samples and windows count alike.
        let recorded = open.append(piece, packet).await;
        self.segmenter.pack(self.ingest.load.is_high());
        self.segmenter.push(piece, &mut self.windows);
        recorded?;
        if open.has_windows(&self.windows) {
            Box::pin(open.add_windows(&mut self.windows)).await?;
        }
        if let Some(reason) = self.due_to_close() {
            Box::pin(self.close(reason)).await;
        }
        Ok(())
    }

    /// Opens a conversation. Boxed, as all rare steps are: every connection
    /// carries the space of its longest step for as long as it lasts.
    async fn begin(&mut self, format: Format, age: usize) -> Result<Open> {
        Box::pin(Open::begin(&self.ingest, &self.client, format, age)).await
    }

    /// On a stream without boundaries: a conversation begins a little before the
    /// first speech.
    async fn await_speech(&mut self, piece: &[i16], packet: Option<&[u8]>) -> Result<()> {
        if !self.pre_roll.takes(packet) {
            self.pre_roll.clear();
            self.segmenter.restart();
        }
        self.segmenter.push(piece, &mut self.windows);
        self.pre_roll.push(piece, packet);
        // Whole frames, so that a recording keeps the detector's grid.
        let lead = samples(self.ingest.config.conversation.pre_roll).next_multiple_of(FRAME as u64);
        let held_from = self.segmenter.position() - self.pre_roll.len() as u64;
        let Some(first) = self.segmenter.first_speech() else {
            let keep = usize::try_from(lead).unwrap_or(0) + FRAME;
            if self.pre_roll.len() > keep + PIECE {
                self.pre_roll.skip(self.pre_roll.len() - keep);
            }
            return Ok(());
        };
        let wanted = first.saturating_sub(lead).max(held_from);
        let before = self.pre_roll.skip(usize::try_from(wanted - held_from).unwrap_or(0));
        let held = std::mem::take(&mut self.pre_roll);
        self.segmenter.rebase(held_from + before as u64);
        let open = self.begin(held.format(), held.len()).await?;
        self.open.insert(open).append_held(held).await
    }

    /// Why the conversation has to end now, if it has to.
    fn due_to_close(&self) -> Option<CloseReason> {
        let limits = &self.ingest.config.conversation;
        let position = self.segmenter.position();
        let quiet = self.segmenter.last_speech().map_or(0, |last| position.saturating_sub(last));
        if position >= samples(limits.max_length) {
            Some(CloseReason::MaxLength)
        } else if quiet >= samples(limits.silence_timeout) {
            Some(CloseReason::Silence)
        } else {
            None
        }
    }
}

/// A length of time in samples.
fn samples(interval: Interval) -> u64 {
    (interval.get().as_secs_f64() * f64::from(SAMPLE_RATE)) as u64
}
