//! Recordings in a bucket.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use friend_lite::base::error::Kind;
use friend_lite::config::{self, Interval, Secret};
use friend_lite::remote::Service;
use friend_lite::remote::bucket::Bucket;

use super::faults::{self, DEADLINE};
use super::{Report, remote, service};
use crate::harness::faulty::Proxy;
use crate::harness::services::{BUCKET, KEY, KEY_ID, Server};

/// More than two parts of an upload.
const LARGE: usize = 11 << 20;

fn config(port: u16) -> config::S3 {
    config::S3 {
        bucket: BUCKET.into(),
        endpoint: format!("http://127.0.0.1:{port}"),
        prefix: "audio/here".into(),
        access_key_id: Secret::new(KEY_ID),
        secret_access_key: Secret::new(KEY),
        deadline: Interval::from_secs(DEADLINE.as_secs()),
        ..config::S3::default()
    }
}

fn at(config: &config::S3) -> (Arc<Service>, Bucket) {
    let service = service("s3");
    (service.clone(), Bucket::new(config, &remote(), service).unwrap())
}

/// A file of so many bytes, of which no two pieces are alike, and its SHA-256.
fn file(length: usize) -> (File, Vec<u8>, String) {
    use sha2::{Digest, Sha256};
    let bytes: Vec<u8> =
        (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let sha256 = hex::encode(Sha256::digest(&bytes));
    (file, bytes, sha256)
}

async fn suite(report: &mut Report, config: &config::S3, bucket: &Bucket) {
    assert_eq!(bucket.head("1_a_b.opus").await.unwrap(), None);
    assert!(bucket.list().await.unwrap().is_empty());
    bucket.delete(&["1_a_b.opus".into()]).await.unwrap();
    let read = bucket.read("1_a_b.opus", 0..10).await;
    assert_eq!(read.unwrap_err().kind(), Kind::NotFound);
    report.passed("nothing where nothing was put");

    for (name, length) in [("1_a_b.opus", 0), ("2_a_b.opus", 100_000), ("3_a_b.wav", LARGE)] {
        let (file, bytes, sha256) = file(length);
        bucket.put(name, file.try_clone().unwrap(), length as u64, &sha256).await.unwrap();
        let found = bucket.head(name).await.unwrap().unwrap();
        assert_eq!((found.bytes, found.sha256.as_deref()), (length as u64, Some(&*sha256)));
        // Once more changes nothing.
        bucket.put(name, file, length as u64, &sha256).await.unwrap();
        assert_eq!(bucket.head(name).await.unwrap().unwrap(), found);
        for range in [0..length, 0..length.min(1), length / 3..length / 2, length..length] {
            let read = bucket.read(name, range.start as u64..range.end as u64).await.unwrap();
            assert!(read == bytes[range.clone()], "{name} {range:?}");
        }
    }
    report.passed("what was put there comes back, in parts and whole");
    let beyond = bucket.read("2_a_b.opus", 99_990..100_010).await.unwrap_err();
    assert_eq!(beyond.kind(), Kind::BadInput, "{}", beyond.report());
    report.passed("no more than there is");

    let (other, bytes, sha256) = file(70_000);
    bucket.put("2_a_b.opus", other, 70_000, &sha256).await.unwrap();
    assert!(bucket.read("2_a_b.opus", 0..70_000).await.unwrap() == bytes);
    report.passed("something else in its place");
    let (wrong, _, _) = file(5_000);
    let refused = bucket.put("4_a_b.opus", wrong, 6_000, &sha256).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Storage, "{}", refused.report());
    report.passed("a file that is shorter than it should be is not put there");

    let deeper = config::S3 { prefix: "audio/here/deeper".into(), ..config.clone() };
    let (file, _, sha256) = file(10);
    at(&deeper).1.put("5_a_b.opus", file, 10, &sha256).await.unwrap();
    let listed: Vec<_> = bucket.list().await.unwrap().into_iter().collect();
    let expected = [("1_a_b.opus", 0), ("2_a_b.opus", 70_000), ("3_a_b.wav", LARGE as u64)];
    assert_eq!(listed, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
    report.passed("a list of all that is there, and of nothing else");

    bucket.delete(&["2_a_b.opus".into(), "9_a_b.opus".into(), "3_a_b.wav".into()]).await.unwrap();
    assert_eq!(bucket.list().await.unwrap().into_keys().collect::<Vec<_>>(), ["1_a_b.opus"]);
    assert_eq!(bucket.head("3_a_b.wav").await.unwrap(), None);
    report.passed("deleted, and no matter whether it was there");

    for (key, wrong) in [
        (
            "keys",
            config::S3 { secret_access_key: Secret::new("of-somebody-else"), ..config.clone() },
        ),
        ("bucket", config::S3 { bucket: "no-such-bucket".into(), ..config.clone() }),
    ] {
        let (service, bucket) = at(&wrong);
        let error = bucket.read("1_a_b.opus", 0..1).await.unwrap_err();
        assert!(error.is_transient() && error.message().contains(key), "{}", error.report());
        assert!(!service.is_ready());
        assert!(bucket.check().await.is_err());
        assert!(!error.report().contains("somebody-else"), "{}", error.report());
    }
    bucket.check().await.unwrap();
    report.passed("wrong keys and a bucket that is not there are told");
}

#[tokio::test]
async fn s3() {
    let mut report = Report::of("bucket", "s3 (SeaweedFS)");
    let mut server = Server::s3();
    let own = config(server.port);
    suite(&mut report, &own, &at(&own).1).await;
    let proxy = Proxy::before(server.port).await;
    let (service, bucket) = at(&config(proxy.port));
    let (file, _, sha256) = file(100_000);
    let ask = async || {
        bucket.delete(&["6_a_b.opus".into()]).await?;
        bucket.put("6_a_b.opus", file.try_clone().unwrap(), 100_000, &sha256).await?;
        bucket.read("6_a_b.opus", 50_000..60_000).await.map(drop)
    };
    faults::suite(&mut report, &mut server, &proxy, &service, ask).await;
}
