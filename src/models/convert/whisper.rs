//! Whisper: CTranslate2's container to the ggml file of whisper.cpp with f16
//! weights, as whisper.cpp's own converter writes it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::Path;

use super::ct2::{Tensor, Variables};
use super::element::{Element, copy, for_each_piece};
use super::{bad, failed};
use crate::base::error::Result;

/// "ggml" as a little-endian number.
const MAGIC: u32 = 0x6767_6d6c;

/// Most frequency bins of a mel filter; Whisper has 201.
const MAX_BINS: i32 = 4096;

/// Longest token of a vocabulary, in bytes.
const MAX_TOKEN: i32 = 4096;

/// Matrices that stay f32.
const KEPT_F32: [&str; 4] = [
    "encoder.conv1.bias",
    "encoder.conv2.bias",
    "encoder.positional_embedding",
    "decoder.positional_embedding",
];

/// Converts the CTranslate2 model at `model`, with the mel filters and the
/// vocabulary of the ggml model at `template`.
///
/// # Errors
/// `BadInput` when either is not what it should be.
pub(in crate::models) fn ct2_whisper(
    model: &Path,
    template: &Path,
    out: &mut impl Write,
) -> Result<()> {
    let mut model = BufReader::new(File::open(model).map_err(failed("the CTranslate2 model"))?);
    let mut template = BufReader::new(File::open(template).map_err(failed("the template"))?);
    convert(&mut model, &mut template, out)
}

fn convert<R: BufRead + Seek, T: Read, W: Write>(
    model: &mut R,
    template: &mut T,
    out: &mut W,
) -> Result<()> {
    let fail = failed("the model");
    let variables = Variables::read(model)?;
    let plan = Plan::of(&variables)?;
    for bias in &plan.must_be_zero {
        for_each_piece(model, bias.run, 1024, |numbers| {
            let zero = numbers.iter().all(|number| *number == 0.0);
            if zero { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
        })
        .map_err(|error| {
            bad("an attention key has a bias, which Whisper has not").with_source(error)
        })?;
    }
    write_ints(out, &[MAGIC.cast_signed()]).map_err(&fail)?;
    write_ints(out, &plan.parameters).map_err(&fail)?;
    copy_filters_and_vocabulary(template, &plan.parameters, out)?;
    for (name, tensor) in &plan.tensors {
        let f32 = tensor.dims.len() < 2 || KEPT_F32.contains(&name.as_str());
        let to = if f32 { Element::F32 } else { Element::F16 };
        let mut head = vec![tensor.dims.len() as i32, name.len() as i32, i32::from(!f32)];
        for dim in tensor.dims.iter().rev() {
            head.push(narrow(*dim)?);
        }
        write_ints(out, &head).map_err(&fail)?;
        out.write_all(name.as_bytes()).map_err(&fail)?;
        copy(model, tensor.run, to, out).map_err(&fail)?;
    }
    Ok(())
}

fn write_ints(out: &mut impl Write, ints: &[i32]) -> std::io::Result<()> {
    ints.iter().try_for_each(|int| out.write_all(&int.to_le_bytes()))
}

fn narrow(value: u64) -> Result<i32> {
    i32::try_from(value).map_err(|_| bad("a dimension of the model is too large"))
}

/// Copies what follows the parameters of `template`: a matrix of mel filters
/// and a list of tokens. Both must be for a model with `parameters`.
fn copy_filters_and_vocabulary(
    template: &mut impl Read,
    parameters: &[i32; 11],
    out: &mut impl Write,
) -> Result<()> {
    let [magic, vocabulary, ..] = read_ints::<12>(template)?;
    let [mels, bins] = read_ints(template)?;
    let [our_vocabulary, .., our_mels, _] = *parameters;
    let family = (MAGIC.cast_signed(), our_vocabulary, our_mels);
    if (magic, vocabulary, mels) != family || !(0..=MAX_BINS).contains(&bins) {
        return Err(bad("the template is not a Whisper model of the same family"));
    }
    write_ints(out, &[mels, bins]).map_err(failed("the model"))?;
    copy_bytes(template, u64::from(mels.unsigned_abs()) * u64::from(bins.unsigned_abs()) * 4, out)?;
    let [tokens] = read_ints(template)?;
    write_ints(out, &[tokens]).map_err(failed("the model"))?;
    for _ in 0..tokens {
        let [length] = read_ints(template)?;
        if !(0..=MAX_TOKEN).contains(&length) {
            return Err(bad("the template's vocabulary is damaged"));
        }
        write_ints(out, &[length]).map_err(failed("the model"))?;
        copy_bytes(template, u64::from(length.unsigned_abs()), out)?;
    }
    Ok(())
}

fn read_ints<const N: usize>(from: &mut impl Read) -> Result<[i32; N]> {
    let mut ints = [0; N];
    for int in &mut ints {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes).map_err(failed("the template"))?;
        *int = i32::from_le_bytes(bytes);
    }
    Ok(ints)
}

fn copy_bytes(from: &mut impl Read, bytes: u64, out: &mut impl Write) -> Result<()> {
    match std::io::copy(&mut from.take(bytes), out).map_err(failed("the model"))? {
        copied if copied == bytes => Ok(()),
        _ => Err(bad("the template ends early")),
    }
}

/// What the ggml file holds, in its order.
struct Plan<'a> {
    variables: &'a Variables,
    /// `n_vocab` to `ftype` of whisper.cpp's file header.
    parameters: [i32; 11],
    tensors: Vec<(String, Tensor)>,
    must_be_zero: Vec<Tensor>,
}

impl<'a> Plan<'a> {
    fn of(variables: &'a Variables) -> Result<Self> {
        let tokens = variables.tensor("decoder/embeddings/weight", 2)?;
        let audio = variables.tensor("encoder/position_encodings/encodings", 2)?;
        let text = variables.tensor("decoder/position_encodings/encodings", 2)?;
        let filters = variables.tensor("encoder/conv1/weight", 3)?;
        let (encoder, decoder) =
            (variables.layers("encoder/layer_"), variables.layers("decoder/layer_"));
        let heads = |part: &str| -> Result<i32> {
            i32::try_from(variables.int(&format!("{part}/num_heads"))?)
                .map_err(|_| bad("the model has too many heads"))
        };
        let dim = |tensor: &Tensor, axis: usize| {
            narrow(tensor.dims.get(axis).copied().unwrap_or_default())
        };
        let width = dim(&tokens, 1)?;
        let parameters = [
            dim(&tokens, 0)?,
            dim(&audio, 0)?,
            width,
            heads("encoder")?,
            narrow(encoder.into())?,
            dim(&text, 0)?,
            width,
            heads("decoder")?,
            narrow(decoder.into())?,
            dim(&filters, 1)?,
            1,
        ];
        let mut plan =
            Self { variables, parameters, tensors: Vec::new(), must_be_zero: Vec::new() };
        plan.tensors.push(("decoder.positional_embedding".into(), text));
        plan.tensors.push(("encoder.positional_embedding".into(), audio));
        plan.tensors.push(("decoder.token_embedding.weight".into(), tokens));
        for i in 0..decoder {
            let (to, from) = (format!("decoder.blocks.{i}"), format!("decoder/layer_{i}"));
            plan.feed_forward(&to, &from)?;
            plan.norm(&format!("{to}.attn_ln"), &format!("{from}/self_attention/layer_norm"))?;
            plan.self_attention(&format!("{to}.attn"), &format!("{from}/self_attention"))?;
            plan.norm(&format!("{to}.cross_attn_ln"), &format!("{from}/attention/layer_norm"))?;
            plan.cross_attention(&format!("{to}.cross_attn"), &format!("{from}/attention"))?;
        }
        plan.norm("decoder.ln", "decoder/layer_norm")?;
        for conv in ["conv1", "conv2"] {
            plan.whole(&format!("encoder.{conv}.weight"), &format!("encoder/{conv}/weight"), 3)?;
            let mut bias = variables.tensor(&format!("encoder/{conv}/bias"), 1)?;
            bias.dims.push(1);
            plan.tensors.push((format!("encoder.{conv}.bias"), bias));
        }
        for i in 0..encoder {
            let (to, from) = (format!("encoder.blocks.{i}"), format!("encoder/layer_{i}"));
            plan.feed_forward(&to, &from)?;
            plan.norm(&format!("{to}.attn_ln"), &format!("{from}/self_attention/layer_norm"))?;
            plan.self_attention(&format!("{to}.attn"), &format!("{from}/self_attention"))?;
        }
        plan.norm("encoder.ln_post", "encoder/layer_norm")?;
        Ok(plan)
    }

    fn whole(&mut self, to: &str, from: &str, rank: usize) -> Result<()> {
        let tensor = self.variables.tensor(from, rank)?;
        self.tensors.push((to.into(), tensor));
        Ok(())
    }

    /// The `index`-th of the pieces, each as high as the model is wide, that
    /// CTranslate2 stacks into one tensor.
    fn piece(&self, from: &str, rank: usize, index: u64) -> Result<Tensor> {
        let [_, _, width, ..] = self.parameters;
        let width = u64::from(width.unsigned_abs());
        let piece = self.variables.tensor(from, rank)?.rows(index * width, (index + 1) * width);
        piece.ok_or_else(|| bad(format!("the tensor {from} is too small")))
    }

    fn norm(&mut self, to: &str, from: &str) -> Result<()> {
        self.whole(&format!("{to}.weight"), &format!("{from}/gamma"), 1)?;
        self.whole(&format!("{to}.bias"), &format!("{from}/beta"), 1)
    }

    fn linear(&mut self, to: &str, from: &str) -> Result<()> {
        self.whole(&format!("{to}.weight"), &format!("{from}/weight"), 2)?;
        self.whole(&format!("{to}.bias"), &format!("{from}/bias"), 1)
    }

    fn feed_forward(&mut self, to: &str, from: &str) -> Result<()> {
        self.norm(&format!("{to}.mlp_ln"), &format!("{from}/ffn/layer_norm"))?;
        self.linear(&format!("{to}.mlp.0"), &format!("{from}/ffn/linear_0"))?;
        self.linear(&format!("{to}.mlp.2"), &format!("{from}/ffn/linear_1"))
    }

    /// `linear_0` stacks query, key and value.
    fn self_attention(&mut self, to: &str, from: &str) -> Result<()> {
        let stack = format!("{from}/linear_0");
        self.query_key_value(to, [(&stack, 0), (&stack, 1), (&stack, 2)])?;
        self.linear(&format!("{to}.out"), &format!("{from}/linear_1"))
    }

    /// `linear_0` is the query; `linear_1` stacks key and value.
    fn cross_attention(&mut self, to: &str, from: &str) -> Result<()> {
        let (query, stack) = (format!("{from}/linear_0"), format!("{from}/linear_1"));
        self.query_key_value(to, [(&query, 0), (&stack, 0), (&stack, 1)])?;
        self.linear(&format!("{to}.out"), &format!("{from}/linear_2"))
    }

    fn query_key_value(&mut self, to: &str, from: [(&String, u64); 3]) -> Result<()> {
        for (part, (stack, index)) in ["query", "key", "value"].into_iter().zip(from) {
            let weight = self.piece(&format!("{stack}/weight"), 2, index)?;
            let bias = self.piece(&format!("{stack}/bias"), 1, index)?;
            self.tensors.push((format!("{to}.{part}.weight"), weight));
            match part {
                "key" => self.must_be_zero.push(bias),
                _ => self.tensors.push((format!("{to}.{part}.bias"), bias)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ct2::tests::Builder;
    use super::*;
    use std::io::Cursor;

    const WIDTH: u32 = 2;

    fn layer(mut b: Builder, at: &str, attentions: &[&str], key_bias: f32) -> Builder {
        let norm = |b: Builder, at: String| {
            b.f32s(&format!("{at}/gamma"), &[2], &[1.0; 2]).f32s(
                &format!("{at}/beta"),
                &[2],
                &[0.0; 2],
            )
        };
        let linear = |b: Builder, at: String, rows: u32, bias: &[f32]| {
            let weight: Vec<_> = (0..rows * WIDTH).map(|n| n as f32).collect();
            b.f32s(&format!("{at}/weight"), &[rows, WIDTH], &weight).f32s(
                &format!("{at}/bias"),
                &[rows],
                bias,
            )
        };
        b = norm(b, format!("{at}/ffn/layer_norm"));
        b = linear(b, format!("{at}/ffn/linear_0"), 2, &[0.5; 2]);
        b = linear(b, format!("{at}/ffn/linear_1"), 2, &[0.5; 2]);
        for attention in attentions {
            let at = format!("{at}/{attention}");
            b = norm(b, format!("{at}/layer_norm"));
            let k = key_bias;
            if *attention == "self_attention" {
                b = linear(b, format!("{at}/linear_0"), 6, &[9.0, 9.0, k, k, 8.0, 8.0]);
                b = linear(b, format!("{at}/linear_1"), 2, &[7.0; 2]);
            } else {
                b = linear(b, format!("{at}/linear_0"), 2, &[9.0; 2]);
                b = linear(b, format!("{at}/linear_1"), 4, &[k, k, 8.0, 8.0]);
                b = linear(b, format!("{at}/linear_2"), 2, &[7.0; 2]);
            }
        }
        b
    }

    fn model(key_bias: f32) -> Vec<u8> {
        let mut b = Builder::new().i16("encoder/num_heads", 1).i16("decoder/num_heads", 1);
        b = b.f32s("decoder/embeddings/weight", &[5, 2], &[0.25; 10]);
        b = b.f32s("encoder/position_encodings/encodings", &[4, 2], &[0.5; 8]);
        b = b.f32s("decoder/position_encodings/encodings", &[3, 2], &[0.5; 6]);
        b = b.f32s("encoder/conv1/weight", &[2, 1, 3], &[1.0; 6]).f32s(
            "encoder/conv1/bias",
            &[2],
            &[1.0; 2],
        );
        b = b.f32s("encoder/conv2/weight", &[2, 2, 3], &[1.0; 12]).f32s(
            "encoder/conv2/bias",
            &[2],
            &[1.0; 2],
        );
        for at in ["encoder/layer_norm", "decoder/layer_norm"] {
            b = b.f32s(&format!("{at}/gamma"), &[2], &[1.0; 2]).f32s(
                &format!("{at}/beta"),
                &[2],
                &[0.0; 2],
            );
        }
        b = layer(b, "encoder/layer_0", &["self_attention"], key_bias);
        layer(b, "decoder/layer_0", &["self_attention", "attention"], key_bias).finish()
    }

    fn template(vocabulary: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let head = [MAGIC as i32, vocabulary, 4, 2, 1, 1, 3, 2, 1, 1, 1, 1, 1, 2];
        write_ints(&mut bytes, &head).unwrap();
        bytes.extend([0.5_f32, 0.25].iter().flat_map(|f| f.to_le_bytes()));
        write_ints(&mut bytes, &[2, 1]).unwrap();
        bytes.push(b'a');
        write_ints(&mut bytes, &[2]).unwrap();
        bytes.extend(b"bc");
        bytes
    }

    fn run(model: &[u8], template: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        convert(&mut Cursor::new(model), &mut Cursor::new(template), &mut out)?;
        Ok(out)
    }

    /// Name, kind and data of every tensor after the head of a ggml file.
    fn tensors(mut bytes: &[u8]) -> Vec<(String, i32, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let [rank, length, f16] = read_ints(&mut bytes).unwrap();
            let mut count = 1;
            for _ in 0..rank {
                count *= read_ints::<1>(&mut bytes).unwrap()[0] as usize;
            }
            let (name, rest) = bytes.split_at(length as usize);
            let (data, rest) = rest.split_at(count * if f16 == 1 { 2 } else { 4 });
            found.push((String::from_utf8(name.into()).unwrap(), f16, data.into()));
            bytes = rest;
        }
        found
    }

    #[test]
    fn writes_the_head_of_the_template_and_every_tensor() {
        let (model, template) = (model(0.0), template(5));
        let out = run(&model, &template).unwrap();
        assert_eq!(out[..template.len()], template);
        let tensors = tensors(&out[template.len()..]);
        let get = |name: &str| tensors.iter().find(|t| t.0 == name).unwrap();
        let halves = |numbers: [f32; 4]| {
            numbers
                .iter()
                .flat_map(|n| super::super::element::f32_to_f16(*n).to_le_bytes())
                .collect::<Vec<_>>()
        };
        assert_eq!(get("encoder.blocks.0.attn.value.weight").2, halves([8.0, 9.0, 10.0, 11.0]));
        assert_eq!(get("decoder.blocks.0.cross_attn.key.weight").2, halves([0.0, 1.0, 2.0, 3.0]));
        assert_eq!(
            get("encoder.blocks.0.attn.value.bias").2,
            [8.0_f32; 2].map(f32::to_le_bytes).concat()
        );
        assert_eq!((get("encoder.conv1.bias").1, get("encoder.conv1.weight").1), (0, 1));
        assert!(!tensors.iter().any(|t| t.0.ends_with("key.bias")));
        assert_eq!(tensors.len(), 3 + (6 + 2 + 7 + 2 + 7) + 2 + 4 + (6 + 2 + 7) + 2);
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        assert!(run(&model(0.5), &template(5)).unwrap_err().message().contains("bias"));
        assert!(run(&model(0.0), &template(6)).unwrap_err().message().contains("template"));
        let whole = template(5);
        assert!(run(&model(0.0), &whole[..whole.len() - 1]).is_err());
        assert!(run(&whole, &whole).is_err());
    }
}
