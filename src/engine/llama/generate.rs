//! A chat to its next message.

use std::num::NonZeroU32;

use friend_lite::base::error::{Context, Error, Kind, Result};
use friend_lite::engine::messages::{Finish, Generate, Generated, Piece};
use friend_lite::engine::serve::{Service, Tell};
use friend_lite::wyoming::event::{Event, Info};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;

use super::Loaded;
use super::prompt;
use super::sampler::Sampler;

/// Tokens of a prompt that are read at once. Memory grows with it; speed does
/// not beyond this. A known prefix is reused in whole chunks: each token is then
/// read among the same neighbours as without reuse, and the answer is the same.
const CHUNK: usize = 64;

/// A language model that is ready to write.
#[derive(Debug)]
pub(crate) struct Generator<'m> {
    loaded: &'m Loaded,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    /// The prompt of the last request, as far as the context holds it.
    known: Vec<LlamaToken>,
}

impl<'m> Generator<'m> {
    /// Makes ready for chats of up to `context` tokens, or what the model was
    /// trained on if that is less.
    ///
    /// # Errors
    /// `Internal` when memory does not suffice.
    pub(crate) fn new(loaded: &'m Loaded, context: u32, threads: i32) -> Result<Self> {
        let context = context.clamp(64, loaded.model.n_ctx_train().max(64));
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(context))
            .with_n_batch(CHUNK as u32)
            .with_n_ubatch(CHUNK as u32)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_flash_attention_policy(llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_ENABLED)
            .with_type_k(KvCacheType::Q8_0)
            .with_type_v(KvCacheType::Q8_0);
        let context = loaded
            .model
            .new_context(&loaded.backend, params)
            .context(Kind::Internal, "no memory for the model's context")?;
        Ok(Self { loaded, context, batch: LlamaBatch::new(CHUNK, 1), known: Vec::new() })
    }

    fn generate(&mut self, request: &Generate, tell: &mut Tell<'_>) -> Result<Generated> {
        let prompt = prompt::tokens(&self.loaded.model, &request.messages)?;
        let room = (self.context.n_ctx() as usize).saturating_sub(prompt.len());
        if room == 0 || prompt.is_empty() {
            let message = format!(
                "the prompt has {} tokens, the model's context {}",
                prompt.len(),
                self.context.n_ctx()
            );
            return Err(Error::new(Kind::BadInput, message));
        }
        let mut sampler = Sampler::new(&self.loaded.model, request)?;
        let reused_tokens = self.read(&prompt)?;
        let limit = room.min(request.max_tokens as usize);
        let vocab = self.loaded.model.vocab();
        let (mut bytes, mut count, mut finish) = (Vec::new(), 0, Finish::Length);
        let mut told = 0;
        while count < limit {
            let token = sampler.next(&self.context)?;
            if vocab.is_eog(token) {
                finish = Finish::Stop;
                break;
            }
            count += 1;
            bytes.extend(vocab.token_to_piece(token, false, None));
            if request.stream
                && let Some(text) = whole_characters(bytes.get(told..).unwrap_or_default())
            {
                told += text.len();
                tell(Event::of(&Piece { text: text.to_owned() }))?;
            }
            if count < limit {
                self.decode(&[token], prompt.len() + count - 1)?;
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Generated { text, prompt_tokens: prompt.len(), reused_tokens, tokens: count, finish })
    }

    /// Reads `prompt`, leaving out what the context knows of it. Returns how
    /// much that was.
    fn read(&mut self, prompt: &[LlamaToken]) -> Result<usize> {
        let same = self.known.iter().zip(prompt).take_while(|(old, new)| old == new).count();
        // The last token is always read: what follows it is asked for next.
        let mut start = same.min(prompt.len() - 1) / CHUNK * CHUNK;
        let old = std::mem::take(&mut self.known);
        let cut = u32::try_from(start).ok();
        if !self.context.clear_kv_cache_seq(Some(0), cut, None).unwrap_or(false) {
            // Not every kind of model can forget a part.
            self.context.clear_kv_cache();
            start = 0;
        }
        self.known.extend(old.iter().take(start));
        for (index, chunk) in prompt.get(start..).unwrap_or_default().chunks(CHUNK).enumerate() {
            self.decode(chunk, start + index * CHUNK)?;
            self.known.extend(chunk);
        }
        Ok(start)
    }

    fn decode(&mut self, tokens: &[LlamaToken], from: usize) -> Result<()> {
        self.batch.clear();
        for (index, token) in tokens.iter().enumerate() {
            let position = i32::try_from(from + index).context(Kind::Internal, "too far")?;
            let last = index + 1 == tokens.len();
            let added = self.batch.add(*token, position, &[0], last);
            added.context(Kind::Internal, "a batch overflowed")?;
        }
        self.context.decode(&mut self.batch).context(Kind::Internal, "llama.cpp failed")
    }
}

/// The text at the start of `bytes`, up to a character that is not whole yet;
/// none where nothing can be said yet.
fn whole_characters(bytes: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default()).ok()?
        }
    };
    (!text.is_empty()).then_some(text)
}

impl Service for Generator<'_> {
    fn info(&self) -> Info {
        Info::default()
    }

    fn handle(&mut self, event: Event, tell: &mut Tell<'_>) -> Result<Option<Event>> {
        if !event.is::<Generate>() {
            let message = format!("this engine does not answer `{}`", event.kind);
            return Err(Error::new(Kind::BadInput, message));
        }
        let answer = self.generate(&event.body()?, tell);
        if answer.as_ref().is_err_and(|error| error.kind() != Kind::BadInput) {
            // The context is in an unknown state: forget it all.
            self.context.clear_kv_cache();
            self.known.clear();
        }
        answer.map(|answer| Some(Event::of(&answer)))
    }
}
