//! The one provider of cryptography for TLS.

/// Chooses ring for every TLS connection of this process. Calling it again does
/// no harm.
pub fn install() {
    // An error means that a provider is in place already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
