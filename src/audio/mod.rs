//! Sound: Opus packets and PCM of any shape to 16 kHz mono, WAV files, voice
//! activity, and the cutting of speech into windows. Nothing here knows about
//! disks or sockets.

pub mod convert;
pub mod cutter;
pub mod opus;
pub mod pcm;
pub mod resample;
pub mod segmenter;
#[cfg(test)]
pub(crate) mod synthetic;
pub mod vad;
pub mod wav;
