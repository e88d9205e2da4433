//! What decoding costs: bare Opus packets, and a file of three seconds in each
//! format, opened and read to its end.
//!
//! Throughput is in samples at 16 kHz: 16 million a second are a thousand times
//! real time.

#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::io::Cursor;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use friend_lite::audio::decode::AudioFile;
use friend_lite::audio::opus::OpusDecoder;
use opus::{Application, Bitrate, Channels, Encoder};

/// What a wearable sends at a time: 20 ms.
const FRAME: usize = 320;

fn speech() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/speech")
}

/// Eleven seconds of speech as a wearable sends them: 32 kbit/s.
fn packets() -> Vec<Vec<u8>> {
    let mut reader = hound::WavReader::open(speech().join("jfk.wav")).expect("jfk.wav");
    let samples: Vec<i16> = reader.samples().map(|sample| sample.expect("a sample")).collect();
    let mut encoder = Encoder::new(16_000, Channels::Mono, Application::Voip).expect("an encoder");
    encoder.set_bitrate(Bitrate::Bits(32_000)).expect("a bit rate");
    let frames = samples.chunks_exact(FRAME);
    frames.map(|frame| encoder.encode_vec(frame, 4_000).expect("a packet")).collect()
}

fn opus_packets(c: &mut Criterion) {
    let packets = packets();
    let mut group = c.benchmark_group("opus");
    group.throughput(Throughput::Elements((packets.len() * FRAME) as u64));
    group.bench_function("packets of 20 ms", |b| {
        let (mut decoder, mut out) = (OpusDecoder::new().expect("a decoder"), Vec::new());
        b.iter(|| {
            for packet in &packets {
                out.clear();
                decoder.decode(black_box(packet), &mut out).expect("a packet");
            }
        });
    });
    group.finish();
}

fn files(c: &mut Criterion) {
    let mut paths: Vec<_> = std::fs::read_dir(speech().join("formats"))
        .expect("formats")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.push(speech().join("jfk.wav"));
    paths.sort();
    let mut group = c.benchmark_group("file");
    for path in paths {
        let bytes = std::fs::read(&path).expect("a file");
        let read = || {
            let mut file =
                AudioFile::new(Box::new(Cursor::new(bytes.clone())), "bench").expect("audio");
            let mut out = Vec::new();
            while file.read(&mut out).expect("audio") {}
            out.len()
        };
        group.throughput(Throughput::Elements(read() as u64));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        group.bench_function(name, |b| b.iter(|| black_box(read())));
    }
    group.finish();
}

criterion_group!(benches, opus_packets, files);
criterion_main!(benches);
