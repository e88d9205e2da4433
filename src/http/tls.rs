//! TLS of the HTTP server: a certificate and key in PEM files, read again when
//! they change, as they do when a certificate is renewed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::base::error::{Context, Error, Kind, Result};
use crate::config;
use crate::supervisor::{Supervisor, blocking};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the two files hold, and how new they are.
#[derive(Clone)]
struct Loaded {
    key: Arc<CertifiedKey>,
    modified: [Option<SystemTime>; 2],
}

/// The certificate in force.
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    loaded: RwLock<Loaded>,
}

impl Certificate {
    /// Reads the files that `config` names; none when TLS is not configured.
    ///
    /// # Errors
    /// `Config` when a file is missing, or key and certificate do not fit.
    pub fn open(config: &config::Tls) -> Result<Option<Arc<Self>>> {
        if config.certificate.is_empty() {
            return Ok(None);
        }
        let (certificate, key) = (PathBuf::from(&config.certificate), PathBuf::from(&config.key));
        let loaded = RwLock::new(read(&certificate, &key)?);
        Ok(Some(Arc::new(Self { certificate, key, loaded })))
    }

    /// Accepts TLS connections with whatever certificate is in force.
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        crate::base::tls::install();
        let mut config =
            rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Has the files watched until shutdown.
    pub fn watch(self: &Arc<Self>, supervisor: &Supervisor) {
        let this = self.clone();
        supervisor.service("tls", move |stop| this.clone().run(stop));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let this = self.clone();
            match blocking(move || this.refresh()).await {
                Ok(true) => tracing::info!("the TLS certificate was renewed"),
                Ok(false) => {}
                // The old one goes on; a renewal may be writing the files just now.
                Err(error) => {
                    tracing::warn!("the new TLS certificate is not taken: {}", error.report());
                }
            }
        }
    }

    /// Reads the files again if they have changed. Whether they had.
    fn refresh(&self) -> Result<bool> {
        let now = [modified(&self.certificate), modified(&self.key)];
        if now == self.loaded().modified {
            return Ok(false);
        }
        let loaded = read(&self.certificate, &self.key)?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(true)
    }

    fn loaded(&self) -> Loaded {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("certificate", &self.certificate).finish()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded().key)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read(certificate: &Path, key: &Path) -> Result<Loaded> {
    // Before reading: a file that changes meanwhile is read again.
    let modified = [modified(certificate), modified(key)];
    let cannot = |what: &str, path: &Path| {
        format!("cannot read the {what} in {} (PEM is expected)", path.display())
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(|found| found.collect::<Result<_, _>>())
        .with_context(Kind::Config, || cannot("certificate", certificate))?;
    if chain.is_empty() {
        return Err(Error::new(Kind::Config, cannot("certificate", certificate)));
    }
    let secret = PrivateKeyDer::from_pem_file(key)
        .with_context(Kind::Config, || cannot("private key", key))?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&secret)
        .with_context(Kind::Config, || cannot("private key", key))?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().with_context(Kind::Config, || {
        format!("{} and {} do not belong together", certificate.display(), key.display())
    })?;
    Ok(Loaded { key: Arc::new(certified), modified })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    fn config(dir: &Path) -> config::Tls {
        let path = |name: &str| dir.join(name).display().to_string();
        config::Tls { certificate: path("cert.pem"), key: path("key.pem") }
    }

    #[test]
    fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = write(dir.path(), "one.example");
        let certificate = Certificate::open(&config(dir.path())).unwrap().unwrap();
        let served = |c: &Certificate| c.loaded().key.cert.first().unwrap().to_vec();
        assert_eq!(served(&certificate), first);
        assert!(!certificate.refresh().unwrap());

        let second = write(dir.path(), "two.example");
        let later = SystemTime::now() + Duration::from_secs(5);
        let touch = |name: &str, at| {
            std::fs::File::open(dir.path().join(name)).unwrap().set_modified(at).unwrap();
        };
        touch("cert.pem", later);
        assert!(certificate.refresh().unwrap());
        assert_eq!(served(&certificate), second);

        std::fs::write(dir.path().join("key.pem"), "not a key").unwrap();
        touch("key.pem", later + Duration::from_secs(5));
        assert_eq!(certificate.refresh().unwrap_err().kind(), Kind::Config);
        assert_eq!(served(&certificate), second);
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_certificate_is_served() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let dir = tempfile::tempdir().unwrap();
        let der = write(dir.path(), "memory.example");
        let certificate = Certificate::open(&config(dir.path())).unwrap().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let supervisor = Supervisor::new();
        let (server, acceptor) = (supervisor.clone(), certificate.acceptor());
        let router = axum::Router::new().route("/", axum::routing::get(async || "over TLS"));
        supervisor.once(async move {
            let config = crate::config::Config::default();
            let clock = crate::base::clock::Clock::system();
            let tls = Some(acceptor);
            super::super::server::serve(listener, tls, router, &config, &clock, &server)
                .await
                .unwrap();
        });

        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(der)).unwrap();
        let client =
            rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = "memory.example".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.ends_with("over TLS"), "{answer}");
        supervisor.stop();
    }

    #[test]
    fn files_that_are_missing_or_do_not_fit_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Certificate::open(&config(dir.path())).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.message().contains("cert.pem"), "{}", error.message());
        write(dir.path(), "one.example");
        let key = std::fs::read(dir.path().join("key.pem")).unwrap();
        write(dir.path(), "two.example");
        std::fs::write(dir.path().join("key.pem"), key).unwrap();
        let error = Certificate::open(&config(dir.path())).unwrap_err();
        assert!(error.message().contains("belong together"), "{}", error.message());
        assert!(Certificate::open(&config::Tls::default()).unwrap().is_none());
    }
}
