//! Recordings in a bucket of S3, or of a server that speaks its protocol: put
//! there whole with their SHA-256, and read by range.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, GetOptions, MultipartUpload, ObjectStore, PutPayload,
    RetryConfig,
};

use super::authorities::{distrust, is_distrust};
use super::http::client;
use super::{Fault, Service};
use crate::base::clock::Timestamp;
use crate::base::error::{Context, Error, Kind, Result, io_kind};
use crate::config::{self, Secret};
use crate::supervisor::blocking;

/// Bytes sent at a time: the least that a part of an upload may have but the last.
const PART: u64 = 5 << 20;
/// Where an object carries the SHA-256 of its bytes, in hex.
const SHA256: &str = "sha256";
/// Of what the server says about an error so much is told.
const MAX_TOLD: usize = 300;

/// A bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket {
    service: Arc<Service>,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    secrets: Arc<[Secret; 2]>,
}

/// What the bucket tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes in hex, where it was put there with one.
    pub sha256: Option<String>,
    /// When it was put there.
    pub modified: Timestamp,
    /// What identifies its bytes.
    pub etag: Option<String>,
}

/// The client that all services outside are asked with.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Bucket {
    /// The bucket that `config` names, asked as `service`. It is connected to when
    /// it is first asked for something.
    ///
    /// # Errors
    /// `Config` when the address, the keys or the certificates cannot be used.
    pub fn new(
        config: &config::S3,
        remote: &config::Remote,
        service: Arc<Service>,
    ) -> Result<Self> {
        let client = client(remote)?
            // A request takes a piece of a recording at most.
            .timeout(config.deadline.get())
            .https_only(!config.endpoint.starts_with("http:"))
            .build()
            .context(Kind::Internal, "cannot set up HTTPS")?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(config.access_key_id.expose())
            .with_secret_access_key(config.secret_access_key.expose())
            // The server refuses what arrives as something else.
            .with_checksum_algorithm(Checksum::SHA256)
            // The service is what asks again.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(Connector(client));
        builder = match config.endpoint.trim_end_matches('/') {
            "" => builder.with_virtual_hosted_style_request(true),
            endpoint => builder.with_endpoint(endpoint).with_allow_http(true),
        };
        let bad = |what| format!("s3.{what} cannot be used");
        let store = builder.build().with_context(Kind::Config, || bad("bucket"))?;
        let prefix = Path::parse(&config.prefix).with_context(Kind::Config, || bad("prefix"))?;
        let secrets = [config.access_key_id.clone(), config.secret_access_key.clone()];
        Ok(Self { service, store: Arc::new(store), prefix, secrets: Arc::new(secrets) })
    }

    /// One in the memory of this process.
    #[cfg(test)]
    pub(crate) fn in_memory(clock: crate::base::clock::Clock) -> Self {
        Self {
            service: Arc::new(Service::new("bucket", std::time::Duration::from_secs(1), clock)),
            store: Arc::new(object_store::memory::InMemory::new()),
            prefix: Path::default(),
            secrets: Arc::new([Secret::default(), Secret::default()]),
        }
    }

    /// The service that it is.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// What is there under that name; none when there is nothing.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub async fn head(&self, name: &str) -> Result<Option<Stored>> {
        let found = self.service.call(|| self.head_once(name)).await;
        match found {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    async fn head_once(&self, name: &str) -> Result<Stored, Fault> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let found = self.store.get_opts(&self.path(name), options).await;
        let found = found.map_err(|error| self.fault(error))?;
        let sha256 = found.attributes.get(&Attribute::Metadata(SHA256.into()));
        Ok(Stored {
            bytes: found.meta.size,
            sha256: sha256.map(|value| value.to_string()),
            modified: Timestamp::from_millis(found.meta.last_modified.timestamp_millis()),
            etag: found.meta.e_tag,
        })
    }

    /// The bytes of `range`, all of which the object has. To be asked for a few MiB
    /// at a time.
    ///
    /// # Errors
    /// `NotFound` without the object; else as [`Service::call`].
    pub async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.service
            .call(|| async {
                let options =
                    GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
                let found = self.store.get_opts(&self.path(name), options).await;
                let found = found.map_err(|error| self.fault(error))?;
                if found.range != range {
                    return Err(match found.meta.size < range.end {
                        true => Fault::Refused(Error::new(
                            Kind::BadInput,
                            "the recording in the bucket is shorter than it should be",
                        )),
                        false => Fault::passing(format!("{} answers another part", self.name())),
                    });
                }
                found.bytes().await.map_err(|error| self.fault(error))
            })
            .await
    }

    /// Puts `file`, which has so many bytes with that SHA-256, under `name`, in
    /// place of what was there. It is there whole, and seen to be, when this
    /// returns.
    ///
    /// # Errors
    /// As [`Service::call`]; `Storage` when the file cannot be read.
    pub async fn put(&self, name: &str, file: File, bytes: u64, sha256: &str) -> Result<()> {
        let is_there =
            |found: &Stored| (found.bytes, found.sha256.as_deref()) == (bytes, Some(sha256));
        // An earlier attempt may have come this far. One that is away is found out
        // with little, too.
        if self.head(name).await?.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        let file = Arc::new(file);
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, content_type(name).to_owned()),
            (Attribute::Metadata(SHA256.into()), sha256.to_owned()),
        ]);
        self.service
            .call(|| async {
                self.put_once(name, &file, bytes, attributes.clone()).await?;
                match self.head_once(name).await {
                    Ok(found) if is_there(&found) => Ok(()),
                    Ok(_) => Err(Fault::passing(format!(
                        "{} has something else than was put there",
                        self.name()
                    ))),
                    Err(Fault::Refused(error)) => Err(Fault::passing(error.message())),
                    Err(fault) => Err(fault),
                }
            })
            .await
    }

    async fn put_once(
        &self,
        name: &str,
        file: &Arc<File>,
        bytes: u64,
        attributes: Attributes,
    ) -> Result<(), Fault> {
        let path = self.path(name);
        if bytes <= PART {
            let payload = read_file(file, 0..bytes).await?;
            let put = self.store.put_opts(&path, payload, attributes.into()).await;
            return put.map(drop).map_err(|error| self.fault(error));
        }
        let upload = self.store.put_multipart_opts(&path, attributes.into()).await;
        let mut upload = upload.map_err(|error| self.fault(error))?;
        let done = self.put_parts(upload.as_mut(), file, bytes).await;
        if done.is_err() {
            // Its parts take room until it is given up. Who is away does not hear of
            // it; a rule of the bucket does the same after some days.
            let _ = upload.abort().await;
        }
        done
    }

    /// One part after the other, so that no more than one is in memory.
    async fn put_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        file: &Arc<File>,
        bytes: u64,
    ) -> Result<(), Fault> {
        let mut at = 0;
        while at < bytes {
            let end = bytes.min(at + PART);
            let payload = read_file(file, at..end).await?;
            upload.put_part(payload).await.map_err(|error| self.fault(error))?;
            at = end;
        }
        upload.complete().await.map(drop).map_err(|error| self.fault(error))
    }

    /// Deletes what is there under those names; nothing there is no error.
    ///
    /// # Errors
    /// As [`Service::call`]: some of them may be gone then.
    pub async fn delete(&self, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        self.service
            .call(|| async {
                let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
                let mut gone = self.store.delete_stream(stream::iter(paths).boxed());
                while let Some(path) = gone.next().await {
                    match path {
                        Err(object_store::Error::NotFound { .. }) | Ok(_) => {}
                        Err(error) => return Err(self.fault(error)),
                    }
                }
                Ok(())
            })
            .await
    }

    /// Everything that is there, by name, with its bytes.
    ///
    /// # Errors
    /// As [`Service::call`].
    pub async fn list(&self) -> Result<BTreeMap<String, u64>> {
        self.service
            .call(|| async {
                let mut listed = self.store.list(Some(&self.prefix));
                let mut found = BTreeMap::new();
                while let Some(object) = listed.next().await {
                    let object = object.map_err(|error| self.fault(error))?;
                    let name = object.location.filename().unwrap_or_default();
                    // What lies deeper is somebody else's.
                    if self.path(name) == object.location {
                        found.insert(name.to_owned(), object.size);
                    }
                }
                Ok(found)
            })
            .await
    }

    /// Asks once whether the bucket is there and takes the keys.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self) -> Result<String, Fault> {
        let mut listed = self.store.list(Some(&self.path("no-such-recording")));
        match listed.next().await {
            Some(Err(error)) => Err(self.fault(error)),
            _ => Ok("answers, and takes the keys".into()),
        }
    }

    fn name(&self) -> &'static str {
        self.service.name()
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    fn fault(&self, error: object_store::Error) -> Fault {
        use object_store::Error as E;
        let name = self.name();
        let told = self.told(&error);
        let unavailable = |what: &str| Error::new(Kind::Unavailable, format!("{name} {what}"));
        match error {
            _ if is_distrust(&error) => {
                let error = Error::new(Kind::Unavailable, distrust(name)).with_source(told);
                Fault::Lasting(error)
            }
            _ if told.contains("NoSuchBucket") => {
                Fault::Lasting(unavailable("has no bucket of that name; correct s3.bucket"))
            }
            E::NotFound { .. } => {
                Fault::Refused(Error::new(Kind::NotFound, "no such recording in the bucket"))
            }
            // Their words have pieces of the keys in them.
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                Fault::Lasting(unavailable("refuses the keys; correct them in the configuration"))
            }
            error => {
                let (kind, what) = match http_error(&error) {
                    Some(HttpErrorKind::Timeout) => (Kind::Timeout, "does not answer in time"),
                    Some(HttpErrorKind::Connect) => (Kind::Unavailable, "cannot be reached"),
                    _ => (Kind::Unavailable, "does not do what it is asked"),
                };
                let error = Error::new(kind, format!("{name} {what}")).with_source(told);
                Fault::Passing(error, None)
            }
        }
    }

    /// What is at the bottom of an error, without the keys.
    fn told(&self, error: &object_store::Error) -> String {
        let mut bottom: &dyn StdError = error;
        while let Some(below) = bottom.source() {
            bottom = below;
        }
        let mut said = bottom.to_string();
        for secret in self.secrets.iter() {
            if !secret.is_empty() {
                said = said.replace(secret.expose(), "***");
            }
        }
        said.chars().filter(|c| !c.is_control()).take(MAX_TOLD).collect()
    }
}

/// What went wrong with the request itself, if that did.
fn http_error(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut cause: Option<&dyn StdError> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<HttpError>() {
            return Some(found.kind());
        }
        cause = error.source();
    }
    None
}

async fn read_file(file: &Arc<File>, range: Range<u64>) -> Result<PutPayload, Fault> {
    let file = file.clone();
    let read = blocking(move || {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or_default()];
        file.read_exact_at(&mut bytes, range.start).map_err(|error| {
            Error::new(io_kind(&error), "cannot read the recording").with_source(error)
        })?;
        Ok(PutPayload::from(bytes))
    });
    // That is no fault of the service.
    read.await.map_err(Fault::Refused)
}

fn content_type(name: &str) -> &'static str {
    if name.ends_with(".wav") { "audio/x-wav" } else { "audio/ogg" }
}
