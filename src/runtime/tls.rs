//! The cryptography of TLS.

/// Installs ring as the cryptography of rustls, which picks none by itself when several could be linked.
pub fn use_ring() {
    // Fails only if a provider is already installed, and then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
