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
    /// Samples that may still come, and whether more than those did.
    left: u64,
    cut: bool,
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
    /// Reads `file`, at most `limit` samples of it, and cuts it with `segmenter`.
    pub fn new(file: AudioFile, segmenter: Segmenter, limit: u64) -> Self {
        let piece = Piece::default();
        Self(Some(Box::new(State { file, segmenter, left: limit, cut: false, piece })))
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

    /// Whether there was more in the file than was to be read.
    pub fn was_cut(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.cut)
    }

    /// Why the file may be less than it once was; known at its end.
    pub fn note(&self) -> Option<&str> {
        self.0.as_ref().and_then(|state| state.file.note())
    }
}

impl State {
    /// Fills `piece` anew; false when the file has ended.
    fn advance(&mut self) -> Result<bool> {
        let Piece { samples, windows } = &mut self.piece;
        samples.clear();
        windows.clear();
        let mut more = !self.cut;
        while more && samples.len() < PIECE {
            more = self.file.read(samples)?;
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        if samples.len() > left {
            samples.truncate(left);
            (self.cut, more) = (true, false);
        }
        self.left -= samples.len() as u64;
        self.segmenter.push(samples, windows);
        if !more {
            windows.extend(self.segmenter.finish());
        }
        Ok(more || !samples.is_empty() || !windows.is_empty())
    }
}
