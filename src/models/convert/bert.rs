//! A BERT sentence model to GGUF: matrices in q8_0, the rest in f32, with the
//! keys and names that llama.cpp's own converter gives them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::element::{Element, Run, copy, for_each_piece};
use super::gguf::{BLOCK, Metadata, TensorInfo, TensorType, write_head, write_padding, write_q8_0};
use super::safetensors::{Tensor, read_header};
use super::{bad, failed};
use crate::base::error::{Context, Kind, Result};

/// The numbers of a tensor quantised at once; a multiple of [`BLOCK`].
const PIECE: usize = 512 * BLOCK;

/// `config.json`, as far as it matters.
#[derive(Deserialize)]
struct Config {
    vocab_size: u32,
    max_position_embeddings: u32,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    layer_norm_eps: f32,
    type_vocab_size: u32,
}

/// `tokenizer.json`, as far as it matters.
#[derive(Deserialize)]
struct Tokenizer {
    model: WordPiece,
}

#[derive(Deserialize)]
struct WordPiece {
    vocab: HashMap<String, u32>,
}

/// Converts `model.safetensors`, `config.json` and `tokenizer.json` in `dir`.
///
/// # Errors
/// `BadInput` when one of them is not what it should be.
pub(in crate::models) fn bert_gguf(
    dir: &Path,
    title: &str,
    licence: &str,
    out: &mut impl Write,
) -> Result<()> {
    let config: Config = read_json(&dir.join("config.json"))?;
    let tokenizer: Tokenizer = read_json(&dir.join("tokenizer.json"))?;
    let weights = File::open(dir.join("model.safetensors")).map_err(failed("model.safetensors"))?;
    let about = About { title, licence };
    convert(&config, &tokenizer.model.vocab, &mut BufReader::new(weights), about, out)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = File::open(path).map_err(failed(&name()))?;
    serde_json::from_reader(BufReader::new(file))
        .with_context(Kind::BadInput, || format!("{} is not of a BERT model", name()))
}

/// What the model says of itself.
#[derive(Clone, Copy)]
struct About<'a> {
    title: &'a str,
    licence: &'a str,
}

fn convert<R: Read + Seek, W: Write>(
    config: &Config,
    vocabulary: &HashMap<String, u32>,
    weights: &mut R,
    about: About<'_>,
    out: &mut W,
) -> Result<()> {
    let fail = failed("the model");
    let mut tensors = Vec::new();
    for (name, tensor) in read_header(weights)? {
        if let Some(name) = rename(name.strip_prefix("bert.").unwrap_or(&name))? {
            tensors.push((info(name, &tensor)?, tensor));
        }
    }
    let tokens = tensors.iter().find(|(info, _)| info.name == "token_embd.weight");
    if tokens.and_then(|(info, _)| info.shape.first()) != Some(&config.vocab_size.into()) {
        return Err(bad("the model has not one vector for each token"));
    }
    let metadata = describe(config, vocabulary, about)?;
    let (infos, sources): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
    write_head(out, &metadata, &infos).map_err(&fail)?;
    for (info, tensor) in infos.iter().zip(sources) {
        let run = Run { offset: tensor.offset, count: tensor.count, element: Element::F32 };
        match info.stored {
            TensorType::F32 => copy(weights, run, Element::F32, out),
            TensorType::Q8_0 => for_each_piece(weights, run, PIECE, |numbers| {
                numbers.chunks(BLOCK).try_for_each(|block| write_q8_0(out, block))
            }),
        }
        .and_then(|()| write_padding(out, info))
        .map_err(&fail)?;
    }
    Ok(())
}

fn info(name: String, tensor: &Tensor) -> Result<TensorInfo> {
    let kept = name.starts_with("position_embd") || name.starts_with("token_types");
    let stored = if tensor.shape.len() == 1 || kept { TensorType::F32 } else { TensorType::Q8_0 };
    let row = tensor.shape.last().copied().unwrap_or_default();
    if stored == TensorType::Q8_0 && row % BLOCK as u64 != 0 {
        return Err(bad(format!("the rows of {name} do not divide into blocks of {BLOCK}")));
    }
    Ok(TensorInfo { name, shape: tensor.shape.clone(), count: tensor.count, stored })
}

/// The name that llama.cpp knows a tensor by; none for one that it has no use
/// for.
fn rename(name: &str) -> Result<Option<String>> {
    if name.contains("position_ids") || name.starts_with("pooler.") || name.starts_with("cls.") {
        return Ok(None);
    }
    let unknown = || bad(format!("the tensor {name} is not of a BERT model"));
    let (stem, suffix) = name.rsplit_once('.').ok_or_else(unknown)?;
    if !matches!(suffix, "weight" | "bias") {
        return Err(unknown());
    }
    if let Some(rest) = stem.strip_prefix("encoder.layer.") {
        let (layer, part) = rest.split_once('.').ok_or_else(unknown)?;
        let layer: u32 = layer.parse().map_err(|_| unknown())?;
        let part = match part {
            "attention.self.query" => "attn_q",
            "attention.self.key" => "attn_k",
            "attention.self.value" => "attn_v",
            "attention.output.dense" => "attn_output",
            "attention.output.LayerNorm" => "attn_output_norm",
            "intermediate.dense" => "ffn_up",
            "output.dense" => "ffn_down",
            "output.LayerNorm" => "layer_output_norm",
            _ => return Err(unknown()),
        };
        return Ok(Some(format!("blk.{layer}.{part}.{suffix}")));
    }
    let stem = match stem {
        "embeddings.word_embeddings" => "token_embd",
        "embeddings.position_embeddings" => "position_embd",
        "embeddings.token_type_embeddings" => "token_types",
        "embeddings.LayerNorm" => "token_embd_norm",
        _ => return Err(unknown()),
    };
    Ok(Some(format!("{stem}.{suffix}")))
}

fn describe(
    config: &Config,
    vocabulary: &HashMap<String, u32>,
    about: About<'_>,
) -> Result<Metadata> {
    let id = |token: &str| {
        vocabulary.get(token).copied().ok_or_else(|| bad(format!("the tokenizer has no {token}")))
    };
    let (separator, start) = (id("[SEP]")?, id("[CLS]")?);
    let (texts, types) = tokens(config.vocab_size, vocabulary);
    let mut metadata = Metadata::default();
    metadata.text("general.architecture", "bert");
    metadata.text("general.name", about.title);
    metadata.text("general.license", about.licence);
    metadata.u32("bert.vocab_size", config.vocab_size);
    metadata.u32("bert.context_length", config.max_position_embeddings);
    metadata.u32("bert.embedding_length", config.hidden_size);
    metadata.u32("bert.feed_forward_length", config.intermediate_size);
    metadata.u32("bert.block_count", config.num_hidden_layers);
    metadata.u32("bert.attention.head_count", config.num_attention_heads);
    metadata.f32("bert.attention.layer_norm_epsilon", config.layer_norm_eps);
    metadata.bool("bert.attention.causal", false);
    // Mean of the tokens' vectors.
    metadata.u32("bert.pooling_type", 1);
    // Mostly q8_0.
    metadata.u32("general.file_type", 7);
    metadata.text("tokenizer.ggml.model", "bert");
    metadata.text("tokenizer.ggml.pre", "bert-bge");
    metadata.u32("tokenizer.ggml.token_type_count", config.type_vocab_size);
    metadata.texts("tokenizer.ggml.tokens", &texts);
    metadata.i32s("tokenizer.ggml.token_type", &types);
    metadata.u32("tokenizer.ggml.bos_token_id", start);
    metadata.u32("tokenizer.ggml.eos_token_id", separator);
    metadata.u32("tokenizer.ggml.unknown_token_id", id("[UNK]")?);
    // The key is spelt so in the format.
    metadata.u32("tokenizer.ggml.seperator_token_id", separator);
    metadata.u32("tokenizer.ggml.padding_token_id", id("[PAD]")?);
    metadata.u32("tokenizer.ggml.mask_token_id", id("[MASK]")?);
    metadata.bool("tokenizer.ggml.add_bos_token", true);
    metadata.bool("tokenizer.ggml.add_sep_token", true);
    Ok(metadata)
}

/// The tokens by id and their types. WordPiece marks what continues a word with
/// `##`; llama.cpp wants what starts one marked with `▁` instead.
fn tokens(size: u32, vocabulary: &HashMap<String, u32>) -> (Vec<String>, Vec<i32>) {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    const UNUSED: i32 = 5;
    let mut tokens: Vec<_> = (0..size).map(|id| (format!("[PAD{id}]"), UNUSED)).collect();
    for (text, id) in vocabulary {
        let Some(slot) = usize::try_from(*id).ok().and_then(|id| tokens.get_mut(id)) else {
            continue;
        };
        let kind = match text.as_str() {
            "[PAD]" | "[UNK]" | "[CLS]" | "[SEP]" | "[MASK]" => CONTROL,
            text if text.starts_with("[unused") => UNUSED,
            _ => NORMAL,
        };
        let marked = match text.strip_prefix("##") {
            _ if text.starts_with('[') && text.ends_with(']') => text.clone(),
            Some(rest) => rest.to_owned(),
            None => format!("\u{2581}{text}"),
        };
        *slot = (marked, kind);
    }
    tokens.into_iter().unzip()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Cursor;

    const CONFIG: &str = r#"{"vocab_size": 8, "max_position_embeddings": 2, "hidden_size": 32,
        "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1,
        "layer_norm_eps": 1e-12, "type_vocab_size": 2}"#;

    /// The three files of a model with one tensor.
    pub(in crate::models) fn files() -> [(&'static str, Vec<u8>); 3] {
        let tokenizer = serde_json::json!({"model": {"vocab": vocabulary()}});
        [
            ("config.json", CONFIG.into()),
            ("tokenizer.json", tokenizer.to_string().into()),
            ("model.safetensors", weights(&[("embeddings.word_embeddings.weight", &[8, 32])])),
        ]
    }

    fn vocabulary() -> HashMap<String, u32> {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing"];
        tokens.iter().zip(0..).map(|(token, id)| ((*token).into(), id)).collect()
    }

    fn weights(tensors: &[(&str, &[u64])]) -> Vec<u8> {
        let (mut header, mut at) = (serde_json::Map::new(), 0);
        for (name, shape) in tensors {
            let end = at + 4 * shape.iter().product::<u64>();
            header.insert(
                (*name).into(),
                serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}),
            );
            at = end;
        }
        let header = serde_json::to_vec(&header).unwrap();
        let data = (0..at / 4).flat_map(|n| (n as f32).to_le_bytes());
        (header.len() as u64).to_le_bytes().into_iter().chain(header).chain(data).collect()
    }

    fn run(tensors: &[(&str, &[u64])]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let about = About { title: "t", licence: "mit" };
        let config = serde_json::from_str(CONFIG).unwrap();
        convert(&config, &vocabulary(), &mut Cursor::new(weights(tensors)), about, &mut out)?;
        Ok(out)
    }

    #[test]
    fn matrices_are_quantised_and_vectors_kept() {
        let out = run(&[
            ("bert.embeddings.word_embeddings.weight", &[8, 32]),
            ("bert.encoder.layer.0.output.LayerNorm.bias", &[32]),
            ("bert.pooler.dense.weight", &[32, 32]),
        ])
        .unwrap();
        assert_eq!(&out[..4], b"GGUF");
        assert_eq!(out[8..16], 2_u64.to_le_bytes());
        // 8 blocks of 34 bytes, padded to 32, then 32 f32 numbers from 256 on.
        let data = &out[out.len() - 288 - 128..];
        assert_eq!(data[33], 127);
        assert_eq!(data[272..288], [0; 16]);
        assert_eq!(data[288..292], 256.0_f32.to_le_bytes());
    }

    #[test]
    fn tokens_are_marked_where_a_word_starts() {
        let (texts, types) = tokens(8, &vocabulary());
        assert_eq!(texts[4..], ["[MASK]", "\u{2581}play", "ing", "[PAD7]"]);
        assert_eq!(types[4..], [3, 1, 1, 5]);
    }

    #[test]
    fn what_is_not_bert_is_refused() {
        let word: (&str, &[u64]) = ("embeddings.word_embeddings.weight", &[8, 32]);
        assert!(run(&[word]).is_ok());
        assert!(run(&[word, ("encoder.layer.0.rotary.weight", &[32])]).is_err());
        assert!(run(&[word, ("embeddings.LayerNorm.scale", &[32])]).is_err());
        assert!(run(&[("embeddings.word_embeddings.weight", &[8, 30])]).is_err());
        assert!(run(&[("embeddings.word_embeddings.weight", &[7, 32])]).is_err());
        assert!(run(&[]).is_err());
    }
}
