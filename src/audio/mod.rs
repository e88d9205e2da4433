//! Sound: audio files, Opus packets and PCM of any shape to 16 kHz mono, voice
//! activity, and the cutting of speech into windows. Nothing here knows about
//! recordings or sockets.

pub mod convert;
pub mod cutter;
pub mod decode;
#[cfg(test)]
pub(crate) mod numbered;
#[cfg(test)]
mod numbered_tests;
pub mod ogg;
pub mod opus;
pub mod pcm;
pub mod reading;
pub mod resample;
pub mod segmenter;
#[cfg(test)]
pub(crate) mod synthetic;
pub mod vad;
pub mod wav;
pub mod windows;
