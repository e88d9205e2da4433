//! Multipart requests with files in them, written to disk as they arrive.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header;

use super::api::Api;
use crate::base::error::{Context, Error, Kind, Result};
use crate::config;
use crate::ingest::upload::{Audio, Offer};
use crate::recording::Spool;

/// The longest field that is not a file, in bytes.
const MAX_FIELD: usize = 64 * 1024;
/// The most parts of a request.
const MAX_PARTS: usize = 1_000;
/// The longest name of a file that is kept, in characters.
const MAX_NAME: usize = 200;
/// Bytes of a refused request that are still read, and for how long, so that
/// its sender can hear why: one that is cut off while it sends hears nothing.
const DRAIN: u64 = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What a request brought.
#[derive(Default)]
pub struct Form {
    /// Its files, each looked at.
    pub files: Vec<Offer>,
    fields: Vec<(String, String)>,
}

impl Form {
    /// The text of a field; of one given twice, the last.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// Every text of a field, `name` or `name[]`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let same = move |key: &str| key.strip_suffix("[]").unwrap_or(key) == name;
        self.fields.iter().filter(move |(key, _)| same(key)).map(|(_, value)| value.as_str())
    }

    /// Receives all of `request`. A file that is too large, or not audio, says
    /// so in its place, and the others go on.
    ///
    /// # Errors
    /// `TooLarge` when the whole is; `NoSpace` or `Unavailable` when the disk is
    /// too full or takes nothing; `BadInput` when it is not such a form, or its sender fell silent. Nothing
    /// of it is kept then.
    pub async fn receive(api: &Api, request: Request) -> Result<Self> {
        let limits = &api.config.uploads;
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let mut parts = Parts {
            multipart: Multipart::from_request(request, &())
                .await
                .context(Kind::BadInput, "the body is not multipart/form-data")?,
            spool: api.recordings.spool(),
            limits,
            bytes: 0,
        };
        let received = match length {
            Some(length) if length > parts.max_request() => Err(parts.request_too_large()),
            _ => match api.recordings.accepting() {
                Ok(()) => parts.receive().await,
                Err(refused) => Err(refused),
            },
        };
        if received.is_err() {
            parts.drain().await;
        }
        received
    }
}

/// A request that is arriving.
struct Parts<'a> {
    multipart: Multipart,
    spool: &'a Spool,
    limits: &'a config::Uploads,
    /// Bytes of content so far.
    bytes: u64,
}

impl Parts<'_> {
    async fn receive(&mut self) -> Result<Form> {
        let mut form = Form::default();
        for _ in 0..MAX_PARTS {
            let timeout = self.limits.timeout.get();
            let next = tokio::time::timeout(timeout, self.multipart.next_field()).await;
            let mut field = match next.map_err(silent)? {
                Ok(Some(field)) => field,
                Ok(None) => return Ok(form),
                // A form without any part has no body at all.
                Err(_) if self.bytes == 0 && form.fields.is_empty() => return Ok(form),
                Err(error) => return Err(malformed(error)),
            };
            // What the struct lends out is counted apart.
            let mut arriving = Arriving { limits: self.limits, bytes: &mut self.bytes };
            match field.file_name().map(plain_name) {
                Some(name) => {
                    let offer = arriving.file(self.spool, &mut field, name).await?;
                    form.files.push(offer);
                }
                None => {
                    let name = field.name().unwrap_or_default().to_owned();
                    form.fields.push((name, arriving.text(&mut field).await?));
                }
            }
        }
        Err(Error::new(Kind::BadInput, format!("a request has at most {MAX_PARTS} parts")))
    }

    fn max_request(&self) -> u64 {
        self.limits.max_request_mib << 20
    }

    fn request_too_large(&self) -> Error {
        request_too_large(self.limits)
    }

    /// Reads on for a while, and lets go of what comes.
    async fn drain(&mut self) {
        let mut left = DRAIN;
        let drained = async {
            while let Ok(Some(mut field)) = self.multipart.next_field().await {
                while let Ok(Some(chunk)) = field.chunk().await {
                    left = left.saturating_sub(chunk.len() as u64);
                    if left == 0 {
                        return;
                    }
                }
            }
        };
        // Whether it ended or time did is the same here.
        let _ = tokio::time::timeout(DRAIN_TIME, drained).await;
    }
}

/// Counts what arrives.
struct Arriving<'a> {
    limits: &'a config::Uploads,
    bytes: &'a mut u64,
}

impl Arriving<'_> {
    async fn chunk(&mut self, field: &mut Field<'_>) -> Result<Option<Bytes>> {
        let next = tokio::time::timeout(self.limits.timeout.get(), field.chunk()).await;
        let chunk = next.map_err(silent)?.map_err(malformed)?;
        *self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if *self.bytes > self.limits.max_request_mib << 20 {
            return Err(request_too_large(self.limits));
        }
        Ok(chunk)
    }

    async fn file(
        &mut self,
        spool: &Spool,
        field: &mut Field<'_>,
        filename: String,
    ) -> Result<Offer> {
        let limit = self.limits.max_file_mib << 20;
        let mut incoming = spool.begin().await?;
        while let Some(chunk) = self.chunk(field).await? {
            if incoming.bytes() + chunk.len() as u64 > limit {
                drop(incoming);
                let mut bytes = limit;
                while let Some(chunk) = self.chunk(field).await? {
                    bytes += chunk.len() as u64;
                }
                let text = format!("{filename} is larger than {} MiB", self.limits.max_file_mib);
                let file = Err(Error::new(Kind::TooLarge, text));
                return Ok(Offer { filename, bytes, file });
            }
            incoming.write(&chunk).await?;
        }
        let spooled = incoming.finish().await?;
        let bytes = spooled.bytes;
        let file = match Audio::check(&filename, spooled).await {
            Err(error) if error.kind() != Kind::BadInput => return Err(error),
            checked => checked,
        };
        Ok(Offer { filename, bytes, file })
    }

    async fn text(&mut self, field: &mut Field<'_>) -> Result<String> {
        let mut text = Vec::new();
        while let Some(chunk) = self.chunk(field).await? {
            if text.len() + chunk.len() > MAX_FIELD {
                let message = format!("a field is longer than {MAX_FIELD} bytes");
                return Err(Error::new(Kind::TooLarge, message));
            }
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).context(Kind::BadInput, "a field is not UTF-8")
    }
}

/// The name of a file without a path, in a form that can be shown.
fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    if plain.trim().is_empty() { "unnamed".into() } else { plain }
}

fn request_too_large(limits: &config::Uploads) -> Error {
    let text = format!("the request is larger than {} MiB", limits.max_request_mib);
    Error::new(Kind::TooLarge, text)
}

fn silent(_: tokio::time::error::Elapsed) -> Error {
    Error::new(Kind::BadInput, "nothing came for too long; send it again")
}

fn malformed(error: axum::extract::multipart::MultipartError) -> Error {
    Error::new(Kind::BadInput, "the multipart body is damaged or was cut off").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_paths() {
        assert_eq!(plain_name("/etc/passwd"), "passwd");
        assert_eq!(plain_name("C:\\Talks\\one.wav"), "one.wav");
        assert_eq!(plain_name("a\r\nb.mp3"), "ab.mp3");
        assert_eq!(plain_name("../"), "unnamed");
        assert_eq!(plain_name(&"ü".repeat(500)).chars().count(), MAX_NAME);
    }
}
