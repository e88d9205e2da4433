use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};
use proptest::prelude::*;

use super::*;

/// The sentence that every file in `tests/speech/formats` holds.
fn sentence() -> Vec<i16> {
    let name = "librivox/sense_and_sensibility_01_austen_64kb-0880.wav";
    let mut reader = hound::WavReader::open(speech(name)).unwrap();
    reader.samples::<i16>().map(|sample| sample.unwrap()).collect()
}

fn speech(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/speech").join(name)
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(speech("formats").join(name)).unwrap()
}

/// Everything of a file, and the note at its end.
fn decode(bytes: &[u8]) -> Result<(Vec<i16>, Option<String>)> {
    let mut file = AudioFile::new(Box::new(Cursor::new(bytes.to_vec())), "test.bin")?;
    let mut out = Vec::new();
    while file.read(&mut out)? {}
    assert!(!file.read(&mut out)?);
    Ok((out, file.note().map(str::to_owned)))
}

fn energy(samples: &[i16]) -> f64 {
    samples.iter().map(|s| f64::from(*s).powi(2)).sum()
}

/// How alike two sounds are, from -1 to 1, at the best of small shifts, and the
/// shift in samples.
fn likeness(want: &[i16], got: &[i16]) -> (f64, i64) {
    let at = |samples: &[i16], i: i64| {
        usize::try_from(i).ok().and_then(|i| samples.get(i)).map_or(0.0, |s| f64::from(*s))
    };
    let scale = (energy(want) * energy(got)).sqrt();
    (-1_000..1_000)
        .step_by(4)
        .map(|shift| {
            let both: f64 =
                (0..want.len() as i64).step_by(5).map(|i| at(want, i) * at(got, i + shift)).sum();
            (both * 5.0 / scale, shift)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap()
}

#[test]
fn every_format_gives_the_sentence() {
    let want = sentence();
    // The likeness each must reach, and the delay of its codec in milliseconds
    // that its container does not tell of.
    for (name, least, delay) in [
        ("speech.flac", 0.99, 1),
        ("alac.m4a", 0.99, 1),
        ("mulaw.wav", 0.9, 1),
        ("alaw.wav", 0.9, 1),
        ("adpcm.wav", 0.97, 1),
        ("speech.mp3", 0.95, 1),
        ("speech.ogg", 0.9, 1),
        ("speech.opus", 0.9, 1),
        ("surround.opus", 0.9, 1),
        ("speech.m4a", 0.95, 25),
        ("speech.aac", 0.95, 70),
        ("speech.webm", 0.9, 8),
    ] {
        let (got, note) = decode(&fixture(name)).unwrap();
        let (alike, shift) = likeness(&want, &got);
        let ratio = energy(&got) / energy(&want);
        println!(
            "{name}: {} samples, likeness {alike:.4}, shift {shift}, energy {ratio:.3}",
            got.len()
        );
        assert_eq!(note, None, "{name}");
        assert!(alike > least, "{name}: {alike}");
        assert!(shift.abs() <= delay * 16, "{name}: {shift}");
        // A voice in two channels may be softer by the root of two in each,
        // and in one of six is a sixth of the whole.
        assert!((0.02..1.25).contains(&ratio), "{name}: {ratio}");
        let longer = got.len() as i64 - want.len() as i64;
        assert!((-320..=delay * 16 + 2_400).contains(&longer), "{name}: {longer}");
    }
}

#[test]
fn the_shape_is_that_of_the_file() {
    for (name, rate, channels) in [
        ("speech.flac", 22_050, 1),
        ("speech.mp3", 44_100, 2),
        ("speech.ogg", 48_000, 2),
        ("speech.m4a", 44_100, 2),
        ("mulaw.wav", 8_000, 1),
    ] {
        let file = AudioFile::open(&speech("formats").join(name)).unwrap();
        let Shape { rate: found, channels: count, samples } = file.shape();
        assert_eq!((found, count), (rate, channels), "{name}");
        let samples = samples.unwrap_or_else(|| panic!("{name} tells its length")) as i64;
        assert!((samples - sentence().len() as i64).abs() < 2_400, "{name}: {samples}");
    }
}

fn spec(
    sample_rate: u32,
    bits_per_sample: u16,
    channels: u16,
    sample_format: SampleFormat,
) -> WavSpec {
    WavSpec { channels, sample_rate, bits_per_sample, sample_format }
}

fn wav<S: hound::Sample + Copy>(spec: WavSpec, samples: &[S]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
    samples.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
    writer.finalize().unwrap();
    bytes.into_inner()
}

#[test]
fn every_depth_of_wav_reads_alike() {
    let want = [16_384i16, -16_384, 0, 8_192];
    for bits in [8u16, 16, 24, 32] {
        let scaled: Vec<i32> = want.iter().map(|s| i32::from(*s) << 16 >> (32 - bits)).collect();
        let bytes = wav(spec(16_000, bits, 1, SampleFormat::Int), &scaled);
        assert_eq!(decode(&bytes).unwrap().0, want, "{bits} bits");
    }
    let float: Vec<f32> = want.iter().map(|s| f32::from(*s) / 32_768.0).collect();
    assert_eq!(decode(&wav(spec(16_000, 32, 1, SampleFormat::Float), &float)).unwrap().0, want);
    // hound does not write doubles: the header of floats with other figures.
    let mut double = b"RIFF\x44\0\0\0WAVEfmt \x10\0\0\0\x03\0\x01\0".to_vec();
    double.extend_from_slice(&16_000u32.to_le_bytes());
    double.extend_from_slice(&128_000u32.to_le_bytes());
    double.extend_from_slice(b"\x08\0\x40\0data\x20\0\0\0");
    want.iter().for_each(|s| double.extend((f64::from(*s) / 32_768.0).to_le_bytes()));
    assert_eq!(decode(&double).unwrap().0, want);
    // What is out of range or no number is made the nearest that is.
    let wild = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 7.0];
    let bytes = wav(spec(16_000, 32, 1, SampleFormat::Float), &wild);
    assert_eq!(decode(&bytes).unwrap().0, [i16::MAX, i16::MIN, 0, i16::MAX]);
}

#[test]
fn any_rate_and_any_number_of_channels() {
    for (rate, channels) in
        [(44_100, 2), (8_000, 1), (11_025, 1), (48_000, 6), (96_000, 2), (192_000, 8)]
    {
        let frames = rate as usize;
        let samples: Vec<i16> = (0..frames * usize::from(channels))
            .map(|i| if i % usize::from(channels) == 0 { 3_000 } else { 1_000 })
            .collect();
        let bytes = wav(spec(rate, 16, channels, SampleFormat::Int), &samples);
        let (out, note) = decode(&bytes).unwrap();
        assert_eq!((out.len(), note), (16_000, None), "{rate} Hz, {channels} channels");
        let mean = (3_000 + 1_000 * (u32::from(channels) - 1)) / u32::from(channels);
        assert!(i64::from(out[8_000]).abs_diff(mean.into()) < 5, "{rate} Hz: {}", out[8_000]);
    }
    for rate in [100, 3_999, 400_000] {
        let slow = wav(spec(rate, 16, 1, SampleFormat::Int), &[0i16; 400]);
        assert_eq!(decode(&slow).unwrap_err().kind(), Kind::BadInput, "{rate}");
    }
}

#[test]
fn a_file_cut_short_gives_what_it_has_and_says_so() {
    let want = sentence();
    for name in [
        "speech.flac",
        "speech.mp3",
        "speech.ogg",
        "speech.opus",
        "mulaw.wav",
        "speech.webm",
        "speech.aac",
    ] {
        let bytes = fixture(name);
        let (got, note) = decode(&bytes[..bytes.len() * 6 / 10]).unwrap();
        println!("{name}: {} of {}, {note:?}", got.len(), want.len());
        assert!(
            (want.len() * 3 / 10..want.len() * 8 / 10).contains(&got.len()),
            "{name}: {}",
            got.len()
        );
        assert!(likeness(&want[..got.len()], &got).0 > 0.85, "{name}");
        // These say nowhere how long they are.
        if !matches!(name, "speech.webm" | "speech.aac") {
            assert!(note.is_some_and(|note| note.contains("test.bin")), "{name}");
        }
    }
    let bytes = wav(spec(16_000, 16, 1, SampleFormat::Int), &[5i16; 1_000]);
    assert_eq!(decode(&bytes[..bytes.len() - 501]).unwrap().0, [5i16; 749]);
}

#[test]
fn damage_in_the_middle_costs_only_its_place() {
    let want = sentence();
    for name in ["speech.mp3", "speech.opus", "speech.ogg", "speech.aac"] {
        let mut bytes = fixture(name);
        let middle = bytes.len() / 2;
        bytes[middle..middle + 200].fill(0x55);
        let (got, note) = decode(&bytes).unwrap();
        println!("damaged {name}: {} of {}, {note:?}", got.len(), want.len());
        assert!(got.len() > want.len() * 6 / 10, "{name}: {}", got.len());
    }
}

#[test]
fn what_is_no_audio_is_named_with_what_is() {
    let mut noise = vec![0u8; 300_000];
    let mut state = 1u32;
    noise.iter_mut().for_each(|byte| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    });
    let cases: [(&str, &[u8]); 7] = [
        ("text", b"these are notes, not a recording\n"),
        ("nothing", b""),
        ("a PDF", b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"),
        ("a zip", b"PK\x03\x04\x14\0\0\0\x08\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("an ID3 tag alone", b"ID3\x03\0\0\0\0\0\x0aTITLETITLETITLE"),
        ("noise", &noise),
        ("a header alone", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\0\0\0"),
    ];
    for (what, bytes) in cases {
        let error = decode(bytes).unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput, "{what}");
        assert!(error.message().contains("test.bin"), "{what}: {error}");
    }
    assert!(decode(b"text").unwrap_err().message().contains("FLAC"));
    let missing = AudioFile::open(Path::new("/nonexistent/a.wav")).err().unwrap();
    assert_eq!(missing.kind(), Kind::NotFound);
}

#[test]
fn one_file_after_the_other_in_an_ogg_is_read_on() {
    let one = fixture("speech.opus");
    let alone = decode(&one).unwrap().0.len();
    let (both, _) = decode(&[one.clone(), one].concat()).unwrap();
    assert!(both.len().abs_diff(2 * alone) < 2_000, "{} and {alone}", both.len());
}

const FORMATS: [&str; 12] = [
    "adpcm.wav",
    "alac.m4a",
    "alaw.wav",
    "mulaw.wav",
    "speech.aac",
    "speech.flac",
    "speech.m4a",
    "speech.mp3",
    "speech.ogg",
    "speech.opus",
    "speech.webm",
    "surround.opus",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_files_never_panic_and_end(
        which in 0..FORMATS.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        early in prop::collection::vec((0usize..600, any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = fixture(FORMATS[which]);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for (at, value) in early {
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Ten times the sentence is more than any damage can make of it in
        // honest time; what is longer is stopped by the caller.
        let file = AudioFile::new(Box::new(Cursor::new(bytes)), "test.bin");
        let Ok(mut file) = file else { return Ok(()) };
        let mut out = Vec::new();
        let mut pieces = 0;
        while out.len() < 16_000 * 60 && file.read(&mut out).unwrap_or(false) {
            pieces += 1;
            prop_assert!(pieces < 1_000_000);
        }
    }

    #[test]
    fn garbage_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..4_000), which in 0..FORMATS.len()) {
        let _ = decode(&bytes);
        // Behind a true beginning too.
        let mut real = fixture(FORMATS[which]);
        real.truncate(bytes.len() / 2);
        real.extend(bytes);
        let _ = decode(&real);
    }
}
