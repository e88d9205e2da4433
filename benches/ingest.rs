//! What an hour of audio costs: each step of the way from bytes to disk.
//!
//! Throughput is in bytes or samples; an hour of 16 kHz mono is 57.6 million
//! samples.

#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use friend_lite::audio::convert::Converter;
use friend_lite::audio::pcm::{PcmDecoder, PcmFormat};
use friend_lite::audio::segmenter::Segmenter;
use friend_lite::audio::vad::{FRAME, Vad};
use friend_lite::base::clock::{Clock, Timestamp};
use friend_lite::config;
use friend_lite::domain::conversation::Conversation;
use friend_lite::domain::ids::{ClientId, ConversationId, UserId};
use friend_lite::recording::{Format, Recordings};

/// A minute of something loud and soft by turns: a swept buzz.
fn minute() -> Vec<i16> {
    let mut phase = 0.0f64;
    (0..60 * 16_000)
        .map(|i| {
            let t = f64::from(i) / 16_000.0;
            phase = (phase + (120.0 + 30.0 * (t * 2.0).sin()) / 16_000.0).fract();
            let loudness = (t * 7.0).sin().max(0.0) * (t * 0.4).sin().max(0.0);
            ((phase - 0.5) * loudness * 12_000.0) as i16
        })
        .collect()
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

fn pcm(c: &mut Criterion) {
    let sound = bytes(&minute());
    let mut group = c.benchmark_group("pcm");
    group.throughput(Throughput::Bytes(sound.len() as u64));
    for (name, format) in [
        ("s16 mono", PcmFormat::SPEECH),
        ("s16 stereo", PcmFormat::new(16_000, 2, 2).expect("valid")),
        ("s32 stereo", PcmFormat::new(16_000, 4, 2).expect("valid")),
    ] {
        group.bench_function(name, |b| {
            let (mut decoder, mut out) = (PcmDecoder::new(format), Vec::new());
            b.iter(|| {
                for chunk in sound.chunks(640) {
                    out.clear();
                    decoder.decode(black_box(chunk), &mut out);
                }
            });
        });
    }
    group.bench_function("s16 mono 48 kHz", |b| {
        let format = PcmFormat::new(48_000, 2, 1).expect("valid");
        let (mut converter, mut out) = (Converter::new(format).expect("valid"), Vec::new());
        b.iter(|| {
            for chunk in sound.chunks(1_920) {
                out.clear();
                converter.push(black_box(chunk), &mut out).expect("resampled");
            }
        });
    });
}

fn speech(c: &mut Criterion) {
    let sound = minute();
    let mut group = c.benchmark_group("speech");
    group.throughput(Throughput::Elements(sound.len() as u64));
    group.bench_function("vad", |b| {
        let mut vad = Vad::new(2);
        b.iter(|| {
            let frames = sound.as_chunks::<FRAME>().0;
            frames.iter().filter(|frame| vad.judge(black_box(frame)).speech).count()
        });
    });
    group.bench_function("segmenter", |b| {
        let mut segmenter = Segmenter::new(&config::Transcribe::default());
        let mut windows = Vec::new();
        b.iter(|| {
            for chunk in sound.chunks(320) {
                segmenter.push(black_box(chunk), &mut windows);
            }
            windows.clear();
        });
    });
}

fn recording(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let dir = tempfile::tempdir().expect("directory");
    let sound = minute();
    let mut group = c.benchmark_group("recording");
    group.throughput(Throughput::Elements(sound.len() as u64)).sample_size(10);
    group.bench_function("a minute, synced each second", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let clock = Clock::simulated(Timestamp::from_millis(0));
                let interval = Duration::from_secs(1);
                let recordings =
                    Recordings::open(dir.path(), interval, clock.clone()).expect("opened");
                let mut recorder = recordings.create(&conversation()).await.expect("created");
                for chunk in sound.chunks(320) {
                    recorder.append(chunk).await.expect("appended");
                    clock.advance(Duration::from_millis(20));
                }
                recorder.close().await
            })
        });
    });
}

fn conversation() -> Conversation {
    let id = ConversationId::generate();
    let client_id = ClientId::from_text("439011-bench");
    let started_at = Timestamp::from_millis(0);
    let name = Recordings::file_name(started_at, &client_id, &id, Format::Wav);
    let user = UserId::from_text("507f1f77bcf86cd799439011");
    Conversation::begin(id, user, client_id, name, started_at)
}

criterion_group!(benches, pcm, speech, recording);
criterion_main!(benches);
