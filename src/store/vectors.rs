//! Vectors as stores keep them, and what they refuse.

use crate::base::error::{Error, Kind, Result};
use crate::index;

/// The widest vector that every store takes: sqlite-vec's bound.
pub(super) const WIDEST: usize = 8192;

/// A vector as it is kept: little-endian f32.
pub(super) fn to_blob(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The vector in such a blob.
pub(super) fn from_blob(blob: &[u8]) -> Vec<f32> {
    blob.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

/// `Conflict` for a vector of another width, `BadInput` for one that is none.
pub(super) fn check(vector: &[f32], width: usize) -> Result<()> {
    if vector.len() != width {
        return Err(index::other_width(width, vector.len()));
    }
    if !vector.iter().all(|value| value.is_finite()) {
        return Err(Error::new(Kind::BadInput, "an embedding holds a value that is not a number"));
    }
    Ok(())
}

/// The inner product with a stored vector: the cosine, both being unit length.
pub(super) fn dot(vector: &[f32], blob: &[u8]) -> f32 {
    // Sums side by side, so that the compiler may use vector instructions:
    // adding floats in another order than written is not its choice to make.
    const LANES: usize = 16;
    let (head, tail) = vector.as_chunks::<LANES>();
    let (stored, _) = blob.as_chunks::<4>();
    let (stored_head, stored_tail) = stored.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (a, b) in head.iter().zip(stored_head) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * f32::from_le_bytes(*b);
        }
    }
    let rest: f32 = tail.iter().zip(stored_tail).map(|(a, b)| a * f32::from_le_bytes(*b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// The vectors are tied to the model `known`, and another one is asked for.
pub(super) fn other_model(known: (&str, usize), asked: (&str, usize)) -> Error {
    let ((known, known_width), (model, width)) = (known, asked);
    Error::new(
        Kind::Conflict,
        format!(
            "memories are indexed by the embedding model {known} ({known_width} wide), and \
             {model} ({width} wide) is configured; configure {known} again, or run \
             `friend-lite reindex` to change over"
        ),
    )
}

/// The vectors are tied to no model yet.
pub(super) fn not_bound() -> Error {
    Error::new(Kind::Conflict, "no embedding model has been bound to the store yet")
}

/// Vectors of that width are not taken.
pub(super) fn unusable(width: usize) -> Error {
    let message = format!("an embedding {width} wide cannot be indexed (1 to {WIDEST})");
    Error::new(Kind::BadInput, message)
}

/// A memory was added since its vector was to be made anew.
pub(super) fn added_meanwhile() -> Error {
    Error::new(Kind::Conflict, "memories were added meanwhile; run `friend-lite reindex` again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dot_product_covers_every_value() {
        for width in [1, 3, 15, 16, 17, 384] {
            let a: Vec<f32> = (0..width).map(|i| i as f32 - 3.0).collect();
            let b: Vec<f32> = (0..width).map(|i| 0.5 * i as f32).collect();
            let plain: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            let ours = dot(&a, &to_blob(&b));
            assert!((plain - ours).abs() <= plain.abs() * 1e-5, "{width}: {plain} {ours}");
        }
    }
}
