//! The events of the llama engine, which Wyoming has none for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wyoming::event::Body;

/// Asks for text: the next message of a chat. Answered by [`Generated`], and
/// where it is to [`stream`](Generate::stream), by a [`Piece`] for every token
/// before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    /// The chat so far.
    pub messages: Vec<Message>,
    /// A JSON schema that the answer must follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// Seed of the sampler.
    pub seed: u32,
    /// Whether the text is wanted as it is written, too.
    #[serde(default)]
    pub stream: bool,
}

/// What the model has written since the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The text.
    pub text: String,
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// The answer to [`Generate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// What the model wrote.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of it that were known from the request before.
    pub reused_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// Why it ends there.
    pub finish: Finish,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model was done.
    Stop,
    /// It ran out of tokens.
    Length,
}

/// Asks for the vectors of texts. Answered by [`Embedded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embed {
    /// The texts; each is cut at what the model reads.
    pub texts: Vec<String>,
}

/// The answer to [`Embed`]. The payload holds the vectors one after the other,
/// each of unit length, as little-endian 32-bit floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embedded {
    /// Vectors.
    pub count: usize,
    /// Numbers in each.
    pub width: usize,
}

impl Body for Generate {
    const KIND: &'static str = "generate";
}

impl Body for Piece {
    const KIND: &'static str = "generated-piece";
}

impl Body for Generated {
    const KIND: &'static str = "generated";
}

impl Body for Embed {
    const KIND: &'static str = "embed";
}

impl Body for Embedded {
    const KIND: &'static str = "embedded";
}

/// Vectors as the payload of [`Embedded`].
pub fn vectors_to_bytes(vectors: &[Vec<f32>]) -> Vec<u8> {
    vectors.iter().flatten().flat_map(|number| number.to_le_bytes()).collect()
}

/// The payload of [`Embedded`] as vectors. None when its length is not that of
/// `count` vectors of `width`.
pub fn vectors_from_bytes(bytes: &[u8], count: usize, width: usize) -> Option<Vec<Vec<f32>>> {
    let expected = count.checked_mul(width)?.checked_mul(4)?;
    if bytes.len() != expected || (width == 0 && count > 0) {
        return None;
    }
    let numbers = bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number));
    let numbers: Vec<f32> = numbers.collect();
    Some(numbers.chunks(width.max(1)).map(<[f32]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_survive_the_wire() {
        let vectors = vec![vec![1.0, -0.5, f32::MIN_POSITIVE], vec![0.0, 2.5, -1e9]];
        let bytes = vectors_to_bytes(&vectors);
        assert_eq!(vectors_from_bytes(&bytes, 2, 3), Some(vectors));
        assert_eq!(vectors_from_bytes(&bytes, 3, 2).map(|rows| rows.len()), Some(3));
        assert_eq!(vectors_from_bytes(&bytes, 2, 4), None);
        assert_eq!(vectors_from_bytes(&bytes, usize::MAX, 8), None);
        assert_eq!(vectors_from_bytes(&[], 5, 0), None);
        assert_eq!(vectors_from_bytes(&[], 0, 0), Some(vec![]));
    }
}
