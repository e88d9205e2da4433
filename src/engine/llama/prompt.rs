//! A chat to tokens, by the model's own template.

use friend_lite::base::error::{Context, Kind, Result};
use friend_lite::engine::messages::Message;
use llama_cpp_2::model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel};
use llama_cpp_2::token::LlamaToken;

/// The prompt for the next message after `messages`. What the messages say is
/// never read as control tokens: `<|im_end|>` in a transcript is plain text.
///
/// # Errors
/// `BadInput` when the model's template cannot take these messages.
pub(super) fn tokens(model: &LlamaModel, messages: &[Message]) -> Result<Vec<LlamaToken>> {
    let template = model
        .chat_template(None)
        .or_else(|_| LlamaChatTemplate::new("chatml"))
        .context(Kind::BadInput, "the model has no chat template")?;
    // The template is rendered around placeholders, so that its own text can be
    // told from that of the messages.
    let chat = messages.iter().enumerate().map(|(index, message)| {
        LlamaChatMessage::new(message.role.replace('\0', ""), placeholder(index))
    });
    let chat = chat
        .collect::<Result<Vec<_>, _>>()
        .context(Kind::BadInput, "a message cannot be passed to the model")?;
    let rendered = model
        .apply_chat_template(&template, &chat, true)
        .context(Kind::BadInput, "the model's chat template does not take these messages")?;
    let vocab = model.vocab();
    let (mut tokens, mut rest) = (Vec::new(), rendered.as_str());
    for (index, message) in messages.iter().enumerate() {
        // A template may leave a message out (a system message, say).
        let Some((before, after)) = rest.split_once(&placeholder(index)) else { continue };
        let first = tokens.is_empty();
        tokens.extend(vocab.tokenize(before.as_bytes(), first, true));
        tokens.extend(vocab.tokenize(message.content.as_bytes(), false, false));
        rest = after;
    }
    let first = tokens.is_empty();
    tokens.extend(vocab.tokenize(rest.as_bytes(), first, true));
    Ok(tokens)
}

/// Text that no template contains, from a private-use area of Unicode.
fn placeholder(index: usize) -> String {
    format!("\u{f8f0}{index}\u{f8f1}")
}
