//! Opus as a wearable makes it.

use opus::{Application, Bitrate, Channels, Encoder};

/// 16 kHz mono samples as bare packets of `frame` samples, at 32 kbit/s.
#[allow(dead_code, reason = "not every program that shares this harness needs it")]
pub fn packets(samples: &[i16], frame: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(16_000, Channels::Mono, Application::Voip).unwrap();
    encoder.set_bitrate(Bitrate::Bits(32_000)).unwrap();
    samples.chunks_exact(frame).map(|chunk| encoder.encode_vec(chunk, 4_000).unwrap()).collect()
}
