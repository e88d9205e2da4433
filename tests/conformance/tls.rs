//! Services that show a certificate of an authority of one's own: it is trusted
//! where `remote.ca` names it, and elsewhere the error says what to do.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use friend_lite::base::error::{Error, Kind};
use friend_lite::config::{Mongodb, Qdrant, Remote, S3, Secret};
use friend_lite::index::qdrant::Client;
use friend_lite::remote::bucket::Bucket;
use friend_lite::remote::http::Http;
use friend_lite::remote::{Fault, Phase};
use friend_lite::store::mongodb::MongoStore;
use friend_lite::stt::openai::OpenaiSpeech;
use friend_lite::stt::{Speech, SpeechToText};
use tokio::time::{Instant, sleep};

use super::service;
use crate::harness::authority::Authority;
use crate::harness::daemon::Daemon;
use crate::harness::mongod::Mongod;
use crate::harness::services::{BUCKET, KEY, KEY_ID, Server};

fn remote(ca: &str) -> Remote {
    Remote { ca: ca.into(), ..super::remote() }
}

/// Asks a service that shows a certificate of `authority`: with that named, with
/// nothing named, and with another.
async fn trusts<T: std::fmt::Debug, F: Future<Output = Result<T, Error>>>(
    name: &str,
    authority: &Authority,
    ask: impl Fn(Remote) -> F,
) {
    let other = Authority::new();
    let until = Instant::now() + Duration::from_secs(60);
    // It listens a while before it answers.
    while let Err(error) = ask(remote(authority.ca().to_str().unwrap())).await {
        assert!(Instant::now() < until, "{name}: {}", error.report());
        sleep(Duration::from_millis(200)).await;
    }
    for ca in ["", other.ca().to_str().unwrap()] {
        let error = ask(remote(ca)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{}", error.report());
        let told = format!(
            "the certificate of {name} is not trusted; name the file with that of its authority \
             in remote.ca"
        );
        assert_eq!(error.message(), told, "{}", error.report());
        assert!(!error.report().contains(KEY), "{}", error.report());
    }
}

#[tokio::test]
async fn qdrant() {
    let authority = Arc::new(Authority::new());
    let server = Server::qdrant_tls(&authority);
    trusts("qdrant", &authority, async |remote| {
        let url = format!("https://127.0.0.1:{}", server.port);
        let config = Qdrant { url, api_key: Secret::new(KEY), ..Qdrant::default() };
        Client::new(&config, &remote)?.check().await.map_err(Fault::into_error)
    })
    .await;
}

#[tokio::test]
async fn a_bucket() {
    let authority = Arc::new(Authority::new());
    let server = Server::s3_tls(&authority);
    trusts("s3", &authority, async |remote| {
        let config = S3 {
            bucket: BUCKET.into(),
            endpoint: format!("https://127.0.0.1:{}", server.port),
            access_key_id: Secret::new(KEY_ID),
            secret_access_key: Secret::new(KEY),
            ..S3::default()
        };
        Bucket::new(&config, &remote, service("s3"))?.check().await.map_err(Fault::into_error)
    })
    .await;
}

#[tokio::test]
async fn mongodb() {
    let authority = Authority::new();
    let files = tempfile::tempdir().unwrap();
    // It becomes a set first, which is told to it without TLS.
    let port = Mongod::launch(0, files.path(), false).port;
    let [ca, both] = [authority.ca(), authority.both()].map(|file| file.display().to_string());
    let arguments =
        ["--tlsMode", "requireTLS", "--tlsCAFile", &ca, "--tlsCertificateKeyFile", &both];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
    arguments.push("--tlsAllowConnectionsWithoutCertificates".into());
    let server = Mongod::again(port, files.path(), &arguments);
    let uri = format!("{}&tls=true", server.uri());
    trusts("MongoDB", &authority, async |remote| {
        let config = Mongodb { uri: Secret::new(&uri), ..Mongodb::default() };
        MongoStore::open(&config, &remote, "here", service("mongodb")).await.map(drop)
    })
    .await;
    drop(server);
}

#[tokio::test]
async fn what_speaks_http() {
    let authority = Authority::new();
    let [cert, key] = [authority.cert(), authority.key()].map(|file| file.display().to_string());
    let daemon = Daemon::with(&[("TLS__CERTIFICATE", &cert), ("TLS__KEY", &key)]);
    assert!(daemon.url.starts_with("https://"), "{}", daemon.url);
    trusts("openai_speech", &authority, async |remote| {
        let (url, key, limit) =
            (format!("{}/v1", daemon.url), Secret::new(KEY), Duration::from_secs(30));
        let http = Http::new("openai_speech", &url, ("Bearer", &key), limit, &remote)?;
        let service = service("openai_speech");
        let engine = OpenaiSpeech::new(service.clone(), http, "whisper-1", None);
        let speech = Speech {
            samples: vec![0; 16_000],
            lane: friend_lite::domain::job::Lane::Live,
            language: None,
            place: None,
        };
        let error = engine.transcribe(speech).await.unwrap_err();
        // Nobody mends that by asking again soon.
        assert_eq!(service.standing().phase, Phase::Open);
        // The connection stands; who asks is another matter.
        if error.message().contains("refuses the key") { Ok(()) } else { Err(error) }
    })
    .await;
}
