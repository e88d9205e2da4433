//! An authority for certificates, and a certificate of it for a server on this
//! machine.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A directory with the files (PEM).
pub struct Authority(tempfile::TempDir);

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let named = |name: &str, hosts: Vec<String>| {
            let mut params = CertificateParams::new(hosts).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut own = named("an authority of the tests", Vec::new());
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let own_key = KeyPair::generate().unwrap();
        let ca = own.self_signed(&own_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let params = named("a server of the tests", vec!["127.0.0.1".into(), "localhost".into()]);
        let cert = params.signed_by(&key, &Issuer::new(own, own_key)).unwrap().pem();
        let key = key.serialize_pem();
        let both = format!("{cert}{key}");
        for (name, pem) in [("ca", ca), ("cert", cert), ("key", key), ("both", both)] {
            std::fs::write(dir.path().join(name), pem).unwrap();
        }
        Self(dir)
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir().join("ca")
    }

    /// The server's certificate.
    pub fn cert(&self) -> PathBuf {
        self.dir().join("cert")
    }

    /// The server's private key.
    pub fn key(&self) -> PathBuf {
        self.dir().join("key")
    }

    /// The two in one file.
    pub fn both(&self) -> PathBuf {
        self.dir().join("both")
    }
}
