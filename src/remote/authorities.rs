//! Whose certificates are trusted besides those that the system trusts.

use std::error::Error as StdError;
use std::path::PathBuf;

use reqwest::Certificate;

use crate::base::error::{Context, Error, Kind, Result};
use crate::config;

/// The authorities that `remote.ca` names.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Where their certificates are, for who reads them alone.
    pub file: PathBuf,
    /// Their certificates (PEM).
    pub pem: Vec<u8>,
}

impl Authorities {
    /// Those that `config` names, if any.
    ///
    /// # Errors
    /// `Config` when the file cannot be read, or has no certificate.
    pub fn read(config: &config::Remote) -> Result<Option<Self>> {
        if config.ca.is_empty() {
            return Ok(None);
        }
        let bad = || format!("remote.ca: cannot read certificates from {}", config.ca);
        let pem = std::fs::read(&config.ca).with_context(Kind::Config, bad)?;
        let read = Self { file: config.ca.clone().into(), pem };
        match read.certificates().with_context(Kind::Config, bad)?.is_empty() {
            true => Err(Error::new(Kind::Config, bad())),
            false => Ok(Some(read)),
        }
    }

    /// Each certificate.
    pub(super) fn certificates(&self) -> reqwest::Result<Vec<Certificate>> {
        Certificate::from_pem_bundle(&self.pem)
    }
}

/// Whether a connection came to nothing because of the certificate that the server
/// showed.
pub fn is_distrust(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // The words of rustls, which is at the bottom of every adapter: on the way up
        // its type is lost.
        if error.to_string().contains("invalid peer certificate") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What is told of a server `name` that shows such a certificate.
pub fn distrust(name: &str) -> String {
    format!(
        "the certificate of {name} is not trusted; name the file with that of its authority in \
         remote.ca"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(ca: &str) -> config::Remote {
        config::Remote { ca: ca.into(), ..config::Remote::default() }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        assert!(Authorities::read(&remote("")).unwrap().is_none());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let path = file.to_str().unwrap();
        for content in [None, Some("nothing of the kind")] {
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let error = Authorities::read(&remote(path)).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.message().starts_with("remote.ca: ") && error.message().ends_with(path));
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let pem = made.self_signed(&key).unwrap().pem();
        std::fs::write(&file, format!("{pem}{pem}")).unwrap();
        let read = Authorities::read(&remote(path)).unwrap().unwrap();
        assert_eq!((read.file.as_path(), read.certificates().unwrap().len()), (file.as_path(), 2));
    }
}
