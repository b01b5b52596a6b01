//! Certificates: reads and judges them, makes the settings of TLS for both sides, and says in one sentence what is wrong with a certificate.
//!
//! ```text
//! PEM files ─► pair (chain, key) ─► server_config          the server
//! roots, --ca ─► client::config ─► Fault of the server     the client commands and the load generator
//! names ─► make ─► a self-signed pair                      `wsmb cert`
//! ```
//!
//! rustls with *ring* does the cryptography and decides whether a certificate is trusted. [`Facts`] are read for messages, and for the user's name in a client
//! certificate that rustls has verified.
//!
//! Never here: a socket, a log line, a decision about a user; a private key in an error.

#[cfg(feature = "client")]
pub mod client;
mod facts;
mod fault;
pub mod limits;
#[cfg(feature = "make")]
mod make;
mod pair;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use facts::Facts;
pub use fault::Fault;
#[cfg(feature = "make")]
pub use make::{Made, make};
pub use pair::{Files, Pair};

/// Returns rustls' algorithms, implemented by *ring*.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Returns the SHA-256 fingerprint of a certificate (DER), as `openssl x509 -fingerprint -sha256` prints it: pairs of digits with colons.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| hex::encode_upper([*byte])).collect();
    pairs.join(":")
}
