use opus::{Application, Bitrate, Channels, Encoder};

use super::tests::{bench, closed, conversation_in};
use super::*;
use crate::audio::ogg::{Head, Page};
use crate::audio::opus::OpusDecoder;
use crate::audio::synthetic::speech;

/// Speech as packets of 10 to 60 ms, and the samples that a decoder makes of it.
fn packets(seconds: f64) -> (Vec<Vec<u8>>, Vec<i16>) {
    let sound = speech(seconds);
    let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Voip).unwrap();
    encoder.set_bitrate(Bitrate::Bits(32_000)).unwrap();
    let (mut decoder, mut decoded) = (OpusDecoder::new().unwrap(), Vec::new());
    let (mut packets, mut rest) = (Vec::new(), sound.as_slice());
    for frame in [160, 320, 640, 960].into_iter().cycle() {
        let Some((head, tail)) = rest.split_at_checked(frame) else { break };
        let packet = encoder.encode_vec(head, 1_000).unwrap();
        decoder.decode(&packet, &mut decoded).unwrap();
        packets.push(packet);
        rest = tail;
    }
    (packets, decoded)
}

fn length(packet: &[u8]) -> u16 {
    crate::audio::opus::packet_samples(packet).unwrap() as u16
}

/// Records `packets`, a page for each `each` of them.
async fn record(recordings: &Recordings, packets: &[Vec<u8>], each: usize) -> String {
    let conversation = conversation_in(Format::Opus);
    let mut recorder = recordings.create(&conversation).await.unwrap();
    for some in packets.chunks(each) {
        for packet in some {
            recorder.append_packet(packet, length(packet)).await.unwrap();
        }
        recorder.sync().await.unwrap();
    }
    let samples: u64 = packets.iter().map(|p| u64::from(length(p))).sum();
    assert_eq!(closed(recorder).await, samples);
    conversation.audio_path
}

#[tokio::test]
async fn opus_packets_are_kept_as_they_came() {
    let bench = bench(Duration::from_secs(1));
    let (packets, decoded) = packets(4.0);
    let name = record(&bench.recordings, &packets, 25).await;
    assert!(name.ends_with(".opus"));
    let file = bench.recordings.files.open(&name, Use::Read).unwrap();
    assert_eq!(opus_file::packets(file.as_ref()), packets);
    let all = [Span { start: 0, end: decoded.len() as u64 }];
    assert_eq!(bench.recordings.samples(&name).await.unwrap(), decoded.len() as u64);
    assert_eq!(bench.recordings.read(&name, &all).await.unwrap(), decoded);
    let beyond = [Span { start: 0, end: decoded.len() as u64 + 1 }];
    let error = bench.recordings.read(&name, &beyond).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
}

#[tokio::test]
async fn a_piece_reads_as_it_does_from_the_start() {
    let bench = bench(Duration::from_secs(1));
    // Long enough that the place is searched for, not just come upon.
    let (packets, decoded) = packets(120.0);
    let name = record(&bench.recordings, &packets, 40).await;
    assert!(bench.bytes(&name).len() > 300_000);
    for start in [0, 5, 16_000, 123_456, 800_001, 1_500_000, decoded.len() as u64 - 3_000] {
        let spans =
            [Span { start, end: start + 500 }, Span { start: start + 900, end: start + 3_000 }];
        let read = bench.recordings.read(&name, &spans).await.unwrap();
        let wanted = spans.iter().flat_map(|s| &decoded[s.start as usize..s.end as usize]);
        let worst = read.iter().zip(wanted.clone()).map(|(a, b)| a.abs_diff(*b)).max();
        assert_eq!(read.len(), wanted.count());
        assert!(worst.unwrap() <= 200, "at {start}: {worst:?}");
    }
}

#[tokio::test]
async fn a_torn_opus_file_keeps_its_whole_pages() {
    let bench = bench(Duration::ZERO);
    let (packets, decoded) = packets(0.2);
    let name = record(&bench.recordings, &packets, 1).await;
    let whole = bench.bytes(&name);
    let path = bench.recordings.dir().join(&name);
    let mut ends = vec![Head::LEN as usize];
    while let Some(page) = whole.get(ends[ends.len() - 1]..).and_then(Page::parse) {
        ends.push(ends[ends.len() - 1] + page.len());
    }
    assert_eq!(ends.len(), packets.len() + 1);
    for length in (0..=whole.len()).step_by(3) {
        // Cut off, and with zeros where the rest should be.
        let mut zeros = whole.clone();
        // (A header that is not whole has nothing behind it.)
        zeros[if length < Head::LEN as usize { 0 } else { length }..].fill(0);
        for bytes in [&whole[..length], &zeros] {
            std::fs::write(&path, bytes).unwrap();
            let kept = ends.iter().filter(|end| **end <= length).count().max(1) - 1;
            let wanted = packets[..kept].iter().map(|p| u64::from(self::length(p))).sum();
            assert_eq!(bench.recordings.repair(&name).await.unwrap(), wanted, "at {length}");
            let repaired = bench.bytes(&name);
            assert_eq!(repaired.len(), ends[kept], "at {length}");
            let all = [Span { start: 0, end: wanted }];
            let read = bench.recordings.read(&name, &all).await.unwrap();
            assert_eq!(read, decoded[..wanted as usize]);
        }
    }
}

#[tokio::test]
async fn a_damaged_page_is_silence_and_the_rest_stays_in_its_place() {
    let bench = bench(Duration::from_secs(1));
    let (packets, decoded) = packets(4.0);
    let name = record(&bench.recordings, &packets, 25).await;
    let mut bytes = bench.bytes(&name);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(bench.recordings.dir().join(&name), &bytes).unwrap();
    assert_eq!(bench.recordings.repair(&name).await.unwrap(), decoded.len() as u64);
    assert_eq!(bench.bytes(&name), bytes, "nothing is cut off");
    let all = [Span { start: 0, end: decoded.len() as u64 }];
    let read = bench.recordings.read(&name, &all).await.unwrap();
    assert_eq!(read.len(), decoded.len());
    let silent = read.chunks(160).filter(|chunk| chunk.iter().all(|s| *s == 0)).count();
    assert!((10..200).contains(&silent), "{silent}");
    let tail = decoded.len() - 8_000;
    let worst = read[tail..].iter().zip(&decoded[tail..]).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst.unwrap() <= 200, "{worst:?}");
}

#[tokio::test]
async fn foreign_ogg_files_are_left_alone() {
    let bench = bench(Duration::ZERO);
    let path = bench.recordings.dir().join("other.opus");
    let mut vorbis = Head { pre_skip: 0 }.pages(1, 48_000);
    vorbis[30] ^= 1;
    for bytes in [&b"ID3 something else entirely, long enough to be no torn header"[..], &vorbis] {
        std::fs::write(&path, bytes.repeat(4)).unwrap();
        let error = bench.recordings.repair("other.opus").await.unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        assert_eq!(bench.bytes("other.opus"), bytes.repeat(4));
    }
}

#[tokio::test]
async fn a_recording_takes_only_its_own_format() {
    let bench = bench(Duration::ZERO);
    let mut wav = bench.recordings.create(&conversation_in(Format::Wav)).await.unwrap();
    assert_eq!(wav.append_packet(&[0x48, 0], 320).await.unwrap_err().kind(), Kind::Internal);
    let mut opus = bench.recordings.create(&conversation_in(Format::Opus)).await.unwrap();
    assert_eq!(opus.append(&[0]).await.unwrap_err().kind(), Kind::Internal);
    let long = vec![0x48; 70_000];
    assert_eq!(opus.append_packet(&long, 320).await.unwrap_err().kind(), Kind::BadInput);
}
