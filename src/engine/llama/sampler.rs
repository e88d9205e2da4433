//! Picks the next token.

use friend_lite::base::error::{Context, Error, Kind, Result};
use friend_lite::engine::messages::Generate;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;

/// The likeliest tokens that a warm sampler chooses among.
const TOP_K: i32 = 40;
/// The share of probability that it chooses among.
const TOP_P: f32 = 0.95;

/// The sampler of one request.
#[derive(Debug)]
pub(super) struct Sampler {
    chain: LlamaSampler,
    grammar: Option<LlamaSampler>,
}

impl Sampler {
    /// # Errors
    /// `BadInput` when the schema cannot be turned into a grammar.
    pub(super) fn new(model: &LlamaModel, request: &Generate) -> Result<Self> {
        let grammar = match &request.schema {
            Some(schema) => Some(grammar(model, schema)?),
            None => None,
        };
        let chain = if request.temperature > 0.0 {
            LlamaSampler::chain_simple([
                LlamaSampler::top_k(TOP_K),
                LlamaSampler::top_p(TOP_P, 1),
                LlamaSampler::temp(request.temperature),
                LlamaSampler::dist(request.seed),
            ])
        } else {
            LlamaSampler::greedy()
        };
        Ok(Self { chain, grammar })
    }

    /// The next token after what `context` has read.
    ///
    /// # Errors
    /// `Internal` when no token fits the grammar.
    pub(super) fn next(&mut self, context: &LlamaContext<'_>) -> Result<LlamaToken> {
        let dead_end = || Error::new(Kind::Internal, "no token fits");
        let mut choice = context.token_data_array_ith(-1);
        choice.apply_sampler(&mut self.chain);
        let mut token = choice.selected_token().ok_or_else(dead_end)?;
        if let Some(grammar) = &mut self.grammar {
            // The grammar looks at one token first, and at the whole vocabulary
            // only when that one does not fit: most do.
            if !allows(grammar, token) {
                let mut choice = context.token_data_array_ith(-1);
                choice.apply_sampler(grammar);
                choice.apply_sampler(&mut self.chain);
                token = choice.selected_token().ok_or_else(dead_end)?;
                if !allows(grammar, token) {
                    return Err(dead_end());
                }
            }
            grammar.try_accept(token).context(Kind::Internal, "the grammar failed")?;
        }
        Ok(token)
    }
}

fn allows(grammar: &mut LlamaSampler, token: LlamaToken) -> bool {
    let mut one = LlamaTokenDataArray::new(vec![LlamaTokenData::new(token, 1.0, 0.0)], false);
    one.apply_sampler(grammar);
    one.data.first().is_some_and(|data| data.logit().is_finite())
}

fn grammar(model: &LlamaModel, schema: &serde_json::Value) -> Result<LlamaSampler> {
    const MESSAGE: &str = "the JSON schema cannot be used";
    let text = schema.to_string();
    let grammar = llama_cpp_2::json_schema_to_grammar(&text).context(Kind::BadInput, MESSAGE)?;
    LlamaSampler::grammar(model, &grammar, "root").context(Kind::BadInput, MESSAGE)
}
