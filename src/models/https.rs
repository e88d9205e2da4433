//! Downloads that go on where they were cut.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use tokio::io::AsyncWriteExt;

use super::catalog::Remote;
use super::progress::Report;
use crate::base::error::{Context, Error, Kind, Result, io_kind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of a server that has accepted the request.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes written before they are synced: a recording that syncs beside a download
/// then never waits for a gigabyte of it.
const SYNC_EVERY: u64 = 8 << 20;
/// Attempts in a row that brought nothing new, before giving up.
const MAX_FAILURES: u32 = 5;

/// Fetches files from web servers.
pub(super) struct Downloader {
    client: Client,
    /// Pause after the first failure; each one after doubles it.
    pause: Duration,
}

/// How one request ended short of the whole file.
enum Cut {
    /// Worth another request.
    Again(Error),
    /// No connection at all: worth another only when there was one before.
    Unreachable(Error),
    /// The same request will fail the same way.
    Final(Error),
}

impl Downloader {
    pub(super) fn new(pause: Duration) -> Result<Self> {
        // Fails when another part of the program has installed one: just as good.
        crate::base::tls::install();
        let client = Client::builder()
            .user_agent(concat!("friend-lite/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .context(Kind::Internal, "cannot set up HTTPS")?;
        Ok(Self { client, pause })
    }

    /// Fetches `remote` into the file at `path`, from the length that this
    /// already has. What arrives stays there when it fails.
    pub(super) async fn download(
        &self,
        remote: &Remote,
        path: &Path,
        report: &Report,
    ) -> Result<()> {
        let mut reached = length(path).await;
        let mut connected = false;
        let mut failures = 0;
        loop {
            let error = match self.request(remote, path, report).await {
                Ok(()) => return Ok(()),
                Err(Cut::Final(error)) => return Err(error),
                Err(Cut::Unreachable(error)) if !connected => return Err(error),
                Err(Cut::Unreachable(error)) => error,
                Err(Cut::Again(error)) => {
                    connected = true;
                    error
                }
            };
            let length = length(path).await;
            failures = if length > reached { 0 } else { failures + 1 };
            reached = reached.max(length);
            if failures >= MAX_FAILURES {
                return Err(error);
            }
            tracing::debug!("{}, going on at byte {length}", error.report());
            tokio::time::sleep(self.pause * 2_u32.pow(failures)).await;
        }
    }

    /// One request for what is missing of `remote`.
    async fn request(&self, remote: &Remote, path: &Path, report: &Report) -> Result<(), Cut> {
        let mut have = length(path).await;
        if have == remote.bytes {
            report.at(have);
            return Ok(());
        }
        if have > remote.bytes {
            have = 0;
        }
        let mut request = self.client.get(&remote.url);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let mut response = request.send().await.map_err(|error| {
            let connect = error.is_connect();
            let error = network("cannot connect", error);
            if connect { Cut::Unreachable(error) } else { Cut::Again(error) }
        })?;
        let start = start_of(&response, have, remote.bytes)?;
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(start == 0)
            .append(start != 0)
            .open(path)
            .await
            .map_err(unwritable)?;
        let received = self.receive(&mut response, &mut file, start, remote, report).await;
        file.flush().await.map_err(unwritable)?;
        received
    }

    async fn receive(
        &self,
        response: &mut Response,
        file: &mut tokio::fs::File,
        start: u64,
        remote: &Remote,
        report: &Report,
    ) -> Result<(), Cut> {
        let (mut at, mut synced) = (start, start);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    at += chunk.len() as u64;
                    if at > remote.bytes {
                        file.set_len(0).await.map_err(unwritable)?;
                        return Err(Cut::Final(other_size(at, remote.bytes)));
                    }
                    file.write_all(&chunk).await.map_err(unwritable)?;
                    report.at(at);
                    if at - synced >= SYNC_EVERY {
                        file.sync_data().await.map_err(unwritable)?;
                        synced = at;
                    }
                }
                Ok(None) if at == remote.bytes => return Ok(()),
                Ok(None) => {
                    let message = format!("the server ended the file at byte {at}");
                    return Err(Cut::Again(Error::new(Kind::Unavailable, message)));
                }
                Err(error) => return Err(Cut::Again(network("the connection was cut", error))),
            }
        }
    }
}

/// The byte at which the body of `response` starts: `have`, or 0 when the
/// server sends the whole file instead of the range.
fn start_of(response: &Response, have: u64, bytes: u64) -> Result<u64, Cut> {
    let status = response.status();
    let (start, total) = match status {
        StatusCode::OK => (0, response.content_length()),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            match range.and_then(parse_content_range) {
                Some((start, total)) if start == have => (have, total),
                _ => {
                    let message = "the server sent another range than asked for";
                    return Err(Cut::Final(Error::new(Kind::Unavailable, message)));
                }
            }
        }
        _ => {
            let error = Error::new(Kind::Unavailable, format!("the server answers {status}"));
            let passing = status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
            return Err(if passing { Cut::Again(error) } else { Cut::Final(error) });
        }
    };
    match total {
        Some(total) if total != bytes => Err(Cut::Final(other_size(total, bytes))),
        _ => Ok(start),
    }
}

/// Start and, where given, the whole size from `bytes 100-199/200`.
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()))
}

async fn length(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |meta| meta.len())
}

fn other_size(actual: u64, bytes: u64) -> Error {
    Error::new(
        Kind::BadInput,
        format!("the server's file has {actual} bytes or more instead of {bytes}"),
    )
}

fn network(what: &str, error: reqwest::Error) -> Error {
    let kind = if error.is_timeout() { Kind::Timeout } else { Kind::Unavailable };
    Error::new(kind, what).with_source(error.without_url())
}

fn unwritable(error: std::io::Error) -> Cut {
    Cut::Final(Error::new(io_kind(&error), "cannot write the download").with_source(error))
}

#[cfg(test)]
pub(super) mod tests;
