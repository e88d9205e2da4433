//! A file decoded and cut into windows piece by piece, off the async threads.

use super::decode::AudioFile;
use super::segmenter::Segmenter;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{NewWindow, SAMPLE_RATE};
use crate::supervisor::blocking;

/// Samples decoded at a time, or a little more: 10 s.
const PIECE: usize = 10 * SAMPLE_RATE as usize;

/// An audio file on its way into windows, so that hours of audio take little
/// memory.
pub struct Reading(Option<Box<State>>);

struct State {
    file: AudioFile,
    segmenter: Segmenter,
    /// Where the next piece begins, and where the segmenter does.
    position: u64,
    from: u64,
    piece: Piece,
}

/// A stretch of a file.
#[derive(Debug, Default)]
pub struct Piece {
    /// Its samples.
    pub samples: Vec<i16>,
    /// The windows that end with it.
    pub windows: Vec<NewWindow>,
}

impl Reading {
    /// Reads `file` from its start, and cuts it with `segmenter` from the sample
    /// on where that one stands.
    pub fn new(file: AudioFile, segmenter: Segmenter) -> Self {
        let from = segmenter.position();
        let piece = Piece::default();
        Self(Some(Box::new(State { file, segmenter, position: 0, from, piece })))
    }

    /// The next piece, to be taken apart; none when the file has ended.
    ///
    /// # Errors
    /// `BadInput` when there is no sound in the file; `Storage` when reading
    /// fails. There is nothing more to read then.
    pub async fn next(&mut self) -> Result<Option<&mut Piece>> {
        let ended = || Error::new(Kind::Internal, "this file has been given up");
        let mut state = self.0.take().ok_or_else(ended)?;
        let (state, more) = blocking(move || {
            let more = state.advance()?;
            Ok((state, more))
        })
        .await?;
        let state = self.0.insert(state);
        Ok(more.then_some(&mut state.piece))
    }

    /// Why the file may be less than it once was; known at its end.
    pub fn note(&self) -> Option<&str> {
        self.0.as_ref().and_then(|state| state.file.note())
    }

    /// Samples so far.
    pub fn position(&self) -> u64 {
        self.0.as_ref().map_or(0, |state| state.position)
    }
}

impl State {
    /// Fills `piece` anew; false when the file has ended.
    fn advance(&mut self) -> Result<bool> {
        let Piece { samples, windows } = &mut self.piece;
        samples.clear();
        windows.clear();
        let mut more = true;
        while more && samples.len() < PIECE {
            more = self.file.read(samples)?;
        }
        let known = self.from.saturating_sub(self.position);
        let fresh = usize::try_from(known).ok().and_then(|known| samples.get(known..));
        self.segmenter.push(fresh.unwrap_or_default(), windows);
        self.position += samples.len() as u64;
        if !more {
            windows.extend(self.segmenter.finish());
        }
        Ok(more || !samples.is_empty() || !windows.is_empty())
    }
}
