//! Real speech with its text, and sounds without any.

use std::path::{Path, PathBuf};

/// A recording and what is said in it.
pub struct Sample {
    pub path: PathBuf,
    pub text: String,
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/speech")
}

/// Kennedy's inaugural address, 11 s.
pub fn jfk() -> Sample {
    Sample {
        path: dir().join("jfk.wav"),
        text: "and so my fellow americans ask not what your country can do for you \
               ask what you can do for your country"
            .into(),
    }
}

/// Five sentences of "Sense and Sensibility", read for LibriVox.
pub fn librivox() -> Vec<Sample> {
    let list = std::fs::read_to_string(dir().join("librivox/transcription")).unwrap();
    list.lines()
        .filter_map(|line| {
            let (text, name) = line.rsplit_once('(')?;
            let text = text.replace("<s>", "").replace("</s>", "").trim().to_owned();
            let path = dir().join(format!("librivox/{}.wav", name.trim_end_matches(')')));
            Some(Sample { path, text })
        })
        .collect()
}

/// 16 kHz mono samples of a file.
pub fn samples(path: &Path) -> Vec<i16> {
    let mut reader = hound::WavReader::open(path).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (16_000, 1));
    reader.samples::<i16>().map(Result::unwrap).collect()
}

/// The LibriVox sentences one after the other, with `pause` seconds between.
pub fn reading(pause: f64) -> (Vec<i16>, String) {
    let gap = vec![0_i16; (pause * 16_000.0) as usize];
    let mut joined = Vec::new();
    let mut text = Vec::new();
    for sample in librivox() {
        joined.extend(samples(&sample.path));
        joined.extend(&gap);
        text.push(sample.text);
    }
    (joined, text.join(" "))
}

/// White noise of that amplitude, the same each time.
pub fn noise(seconds: f64, amplitude: f64) -> Vec<i16> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..(seconds * 16_000.0) as usize)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state as f64 / u64::MAX as f64 * 2.0 - 1.0) * amplitude) as i16
        })
        .collect()
}
