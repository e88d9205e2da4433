//! Conversions into the files that the engines load. Every one streams: a
//! whole model is never in memory. They reproduce the published files to the
//! byte, which the catalog's SHA-256 checks.

mod bert;
mod ct2;
mod element;
mod gguf;
mod safetensors;
mod whisper;

pub(super) use bert::bert_gguf;
#[cfg(test)]
pub(super) use bert::tests::files as bert_files;
pub(super) use whisper::ct2_whisper;

use std::io::ErrorKind;

use crate::base::error::{Error, Kind, io_kind};

/// The error of reading or writing `what`. A file that ends early is wrong, not
/// unreadable.
fn failed(what: &str) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| {
        let kind = match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Kind::BadInput,
            _ => io_kind(&error),
        };
        Error::new(kind, format!("{what} could not be converted")).with_source(error)
    }
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Kind::BadInput, message)
}
