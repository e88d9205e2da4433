//! Repeatable vectors that lie together by topic, as embeddings do.

/// Floats of a vector.
pub(crate) const WIDTH: usize = 384;

/// Repeatable numbers between -1 and 1 (SplitMix64).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn vector(&mut self) -> Vec<f32> {
        unit((0..WIDTH).map(|_| self.next()).collect())
    }

    /// Cosine to `topic` about 0.7, as between sentences about one thing.
    pub(crate) fn near(&mut self, topic: &[f32]) -> Vec<f32> {
        let off = self.vector();
        unit(topic.iter().zip(&off).map(|(t, o)| t + o).collect())
    }
}

fn unit(mut v: Vec<f32>) -> Vec<f32> {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.iter_mut().for_each(|x| *x /= norm);
    v
}
