//! The decoder of uploads: no file may panic it, hang it, or make it hold more
//! than a little of its sound at once. Start it from `tests/speech/formats`.

#![no_main]

use std::io::Cursor;
use std::sync::Once;

use friend_lite::audio::decode::AudioFile;
use libfuzzer_sys::fuzz_target;

/// More sound than this is not waited for: a minute.
const ENOUGH: usize = 16_000 * 60;
/// The most one piece may hold: two of the longest resampling blocks.
const PIECE: usize = 16_000 * 30;

fuzz_target!(|data: &[u8]| {
    // The library's own panics are caught, and must not end the run before
    // they are; one that gets out still does.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));

    let Ok(mut file) = AudioFile::new(Box::new(Cursor::new(data.to_vec())), "fuzzed") else {
        return;
    };
    let (mut piece, mut total) = (Vec::new(), 0);
    while total < ENOUGH {
        piece.clear();
        match file.read(&mut piece) {
            Ok(true) => assert!(!piece.is_empty()),
            Ok(false) | Err(_) => break,
        }
        assert!(piece.len() < PIECE, "{} samples at once", piece.len());
        total += piece.len();
    }
});
