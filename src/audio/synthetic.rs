//! Sound made by arithmetic, for tests.

/// A source of the same noise each time for the same seed.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Evenly spread in -1..1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// White noise of that RMS.
    pub(crate) fn white(mut self, rms: f64) -> impl Iterator<Item = i16> {
        std::iter::from_fn(move || {
            let gaussian: f64 = (0..4).map(|_| self.next()).sum::<f64>() * 0.866;
            Some((gaussian * rms) as i16)
        })
    }

    /// Pink noise of about that RMS: Kellet's filter over white noise.
    pub(crate) fn pink(mut self, rms: f64) -> impl Iterator<Item = i16> {
        let mut b = [0.0f64; 3];
        std::iter::from_fn(move || {
            let white = self.next();
            b[0] = 0.99765 * b[0] + white * 0.0990460;
            b[1] = 0.96300 * b[1] + white * 0.2965164;
            b[2] = 0.57000 * b[2] + white * 1.0526913;
            Some(((b.iter().sum::<f64>() + white * 0.1848) * rms * 0.6) as i16)
        })
    }
}

/// Something close enough to a voice for a detector: a pulse train through two
/// formants, four syllables a second.
pub(crate) fn speech(seconds: f64) -> Vec<i16> {
    let mut out = Vec::new();
    let (mut a, mut b) = (Formant::new(600.0, 90.0), Formant::new(1_300.0, 120.0));
    let mut phase = 0.0;
    for i in 0..(seconds * 16_000.0) as usize {
        let t = i as f64 / 16_000.0;
        phase += (120.0 + 25.0 * (t * 3.1).sin()) / 16_000.0;
        let pulse = if phase >= 1.0 { 1.0 } else { 0.0 };
        phase -= phase.floor();
        let syllable = (t * 4.0 * std::f64::consts::PI).sin().powi(2);
        let voice = a.next(pulse) + 0.7 * b.next(pulse);
        out.push((voice * syllable * 9_000.0) as i16);
    }
    out
}

/// A resonance.
struct Formant {
    a1: f64,
    a2: f64,
    y1: f64,
    y2: f64,
}

impl Formant {
    fn new(hertz: f64, width: f64) -> Self {
        let r = (-std::f64::consts::PI * width / 16_000.0).exp();
        let a1 = 2.0 * r * (std::f64::consts::TAU * hertz / 16_000.0).cos();
        Self { a1, a2: -r * r, y1: 0.0, y2: 0.0 }
    }

    fn next(&mut self, x: f64) -> f64 {
        let y = x + self.a1 * self.y1 + self.a2 * self.y2;
        (self.y1, self.y2) = (y, self.y1);
        y
    }
}
