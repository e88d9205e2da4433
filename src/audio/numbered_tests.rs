//! Numbers can be read, and the detector lets them through.

use std::collections::BTreeMap;

use super::numbered::*;
use crate::audio::segmenter::Segmenter;

#[test]
fn numbers_come_back_from_between_silences_and_from_cut_audio() {
    let voice = Voice::new();
    let mut samples = vec![0; 1_000];
    samples.extend(voice.second(7, 41));
    samples.extend(voice.second(7, 42));
    samples.extend(vec![0; 777]);
    samples.extend(&voice.second(8, 0)[..SECOND - 1]);
    let found = blocks(&samples);
    assert_eq!(to_text(&found), "7:4100-4299 8:0-98");
    let mut counts = BTreeMap::new();
    count(&to_text(&found), &mut counts);
    assert_eq!(counts.into_keys().collect::<Vec<_>>(), found);
}

#[test]
fn the_detector_takes_it_for_speech_from_the_first_block_to_the_last() {
    let voice = Voice::new();
    let mut samples = vec![0; 3 * SECOND];
    samples.extend((0..60).flat_map(|second| voice.second(1, second)));
    samples.resize(samples.len() + 3 * SECOND, 0);
    let mut segmenter = Segmenter::new(&crate::config::Transcribe::default());
    let mut windows = Vec::new();
    segmenter.push(&samples, &mut windows);
    windows.extend(segmenter.finish());
    let at = |at: u64| usize::try_from(at).unwrap();
    let spans = windows.iter().flat_map(|window| &window.spans);
    let heard: Vec<Block> =
        spans.flat_map(|span| blocks(&samples[at(span.start)..at(span.end)])).collect();
    assert_eq!(
        heard,
        (0..60 * BLOCKS).map(|number| Block { device: 1, number }).collect::<Vec<_>>()
    );
}
