//! The keys of tokens and their signatures: HS256 (RFC 7518 section 3.2), ES256 (section 3.4) and EdDSA with Ed25519 (RFC 8037).
//!
//! A key has one algorithm. This module must never take an algorithm from a token, and must never print a key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::limits;

/// The algorithm of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: the broker and the application share a secret.
    Hs256,
    /// ECDSA on the curve P-256 with SHA-256: the broker has the public key only.
    Es256,
    /// Ed25519: the broker has the public key only.
    EdDsa,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Hs256, Self::Es256, Self::EdDsa];

    /// The name in the header of a token (RFC 7518 section 3.1).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Finds an algorithm by its exact name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// The secret has so few bytes.
    Short(usize),
    /// The text after `base64:` is not base64.
    Base64,
    /// The secret is a PEM file: a public key is no secret.
    PemAsSecret,
    /// The file has a private key, which the broker must not have.
    Private,
    /// Not a PEM file with a public key for the algorithm.
    NotPublic(Algorithm),
    /// Not a PEM file with a private key for the algorithm.
    NotPrivate(Algorithm),
    /// The program was built without the feature `signatures`.
    NotBuilt(Algorithm),
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(bytes) => write!(
                f,
                "the secret has {bytes} bytes, and HS256 needs at least {}; make one with `openssl rand -hex 32`",
                limits::HS256_SECRET_BYTES
            ),
            Self::Base64 => f.write_str("the text after \"base64:\" is not base64"),
            Self::PemAsSecret => f.write_str(
                "the secret of HS256 is a PEM file, and everybody may know a public key; use a random text, or set the algorithm of the PEM file",
            ),
            Self::Private => f.write_str(
                "this is a private key, which only the application needs; give the broker the public key: `openssl pkey -in FILE -pubout`",
            ),
            Self::NotPublic(algorithm) => write!(
                f,
                "this is not a PEM file with a public key for {algorithm} (BEGIN PUBLIC KEY); make one with `openssl pkey -in FILE -pubout`"
            ),
            Self::NotPrivate(algorithm) => {
                write!(f, "this is not a PEM file with a private key for {algorithm} (BEGIN PRIVATE KEY)")
            }
            Self::NotBuilt(algorithm) => {
                write!(f, "this build of wsmb does not know {algorithm} (cargo feature \"signatures\"); use HS256")
            }
        }
    }
}

impl std::error::Error for BadKey {}

/// The key that verifies signatures: a secret (HS256), or the bytes of a public key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Verifying {
    pub(super) algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl fmt::Debug for Verifying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifying({})", self.algorithm)
    }
}

impl Verifying {
    /// Reads a key: for HS256 the secret, as it is or in base64 behind `base64:`; for the others a PEM file with the public key.
    pub(super) fn parse(algorithm: Algorithm, text: &str) -> Result<Self, BadKey> {
        let bytes = match algorithm {
            Algorithm::Hs256 => secret(text)?,
            _ if !cfg!(feature = "signatures") => return Err(BadKey::NotBuilt(algorithm)),
            _ if text.contains("PRIVATE KEY-----") => return Err(BadKey::Private),
            _ => public_key(algorithm, text).ok_or(BadKey::NotPublic(algorithm))?,
        };
        Ok(Self { algorithm, bytes })
    }

    /// Makes an HS256 key of a random secret.
    pub(super) fn of_secret(secret: [u8; limits::HS256_SECRET_BYTES]) -> Self {
        Self { algorithm: Algorithm::Hs256, bytes: secret.to_vec() }
    }

    /// Whether `signature` is the signature of `message`. Takes the same time for each wrong signature of HS256.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Hs256 => hmac(&self.bytes, message).is_some_and(|mac| mac.verify_slice(signature).is_ok()),
            algorithm => verify_public(algorithm, &self.bytes, message, signature),
        }
    }

    /// Returns the HMAC of a text under the secret of an HS256 key; for marks that are not signatures of tokens.
    pub(super) fn mark(&self, text: &[u8]) -> Option<Vec<u8>> {
        (self.algorithm == Algorithm::Hs256).then(|| authentication_code(&self.bytes, text)).flatten()
    }

    /// The key that signs: of HS256 the same secret.
    pub(super) fn to_signing(&self) -> Option<Signing> {
        (self.algorithm == Algorithm::Hs256).then(|| Signing(Signer::Secret(self.bytes.clone())))
    }
}

fn secret(text: &str) -> Result<Vec<u8>, BadKey> {
    let text = text.trim();
    if text.starts_with("-----BEGIN") {
        return Err(BadKey::PemAsSecret);
    }
    let bytes = match text.strip_prefix("base64:") {
        Some(encoded) => STANDARD.decode(encoded.trim()).map_err(|_| BadKey::Base64)?,
        None => text.as_bytes().to_vec(),
    };
    if bytes.len() < limits::HS256_SECRET_BYTES { Err(BadKey::Short(bytes.len())) } else { Ok(bytes) }
}

fn hmac(secret: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC takes a key of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(message);
    Some(mac)
}

fn authentication_code(secret: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    hmac(secret, message).map(|mac| mac.finalize().into_bytes().to_vec())
}

/// Returns the bytes between the lines of a PEM file (RFC 7468).
fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}

/// Returns the bytes of a public key. The file contains a SubjectPublicKeyInfo (RFC 5280 section 4.1), which for these two kinds of keys is a fixed prefix
/// and the key (RFC 5480 section 2, with an uncompressed point; RFC 8410 section 4).
fn public_key(algorithm: Algorithm, text: &str) -> Option<Vec<u8>> {
    const P256: &[u8] =
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
    let (prefix, length) = if algorithm == Algorithm::Es256 { (P256, 65) } else { (ED25519, 32) };
    let der = pem(text, "PUBLIC KEY")?;
    der.strip_prefix(prefix).filter(|key| key.len() == length).map(<[u8]>::to_vec)
}

#[cfg(feature = "signatures")]
fn verify_public(algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};

    let verification: &dyn VerificationAlgorithm =
        if algorithm == Algorithm::Es256 { &ECDSA_P256_SHA256_FIXED } else { &ED25519 };
    UnparsedPublicKey::new(verification, key).verify(message, signature).is_ok()
}

/// Without the feature, [`Verifying::parse`] makes no key for which this is called.
#[cfg(not(feature = "signatures"))]
fn verify_public(_: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> bool {
    false
}

/// The key that signs tokens.
pub struct Signing(Signer);

enum Signer {
    Secret(Vec<u8>),
    #[cfg(feature = "signatures")]
    Es256(ring::signature::EcdsaKeyPair),
    #[cfg(feature = "signatures")]
    EdDsa(ring::signature::Ed25519KeyPair),
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signing({})", self.algorithm())
    }
}

impl Signing {
    /// Reads a key: for HS256 as in the configuration, for the others a PEM file with the private key (PKCS#8).
    ///
    /// # Errors
    /// The text is not such a key.
    pub fn parse(algorithm: Algorithm, text: &str) -> Result<Self, BadKey> {
        if algorithm == Algorithm::Hs256 {
            return Ok(Self(Signer::Secret(secret(text)?)));
        }
        Self::private(algorithm, text)
    }

    #[cfg(feature = "signatures")]
    fn private(algorithm: Algorithm, text: &str) -> Result<Self, BadKey> {
        use ring::rand::SystemRandom;
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};

        let bad = BadKey::NotPrivate(algorithm);
        let der = pem(text, "PRIVATE KEY").ok_or(bad)?;
        let signer = match algorithm {
            // OpenSSL writes Ed25519 keys without the public key.
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Signer::EdDsa),
            _ => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new())
                .map(Signer::Es256),
        };
        signer.map(Self).map_err(|_| bad)
    }

    #[cfg(not(feature = "signatures"))]
    fn private(algorithm: Algorithm, _: &str) -> Result<Self, BadKey> {
        Err(BadKey::NotBuilt(algorithm))
    }

    /// The algorithm of the key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Signer::Secret(_) => Algorithm::Hs256,
            #[cfg(feature = "signatures")]
            Signer::Es256(_) => Algorithm::Es256,
            #[cfg(feature = "signatures")]
            Signer::EdDsa(_) => Algorithm::EdDsa,
        }
    }

    /// Signs a message. `None` if the system gives no random numbers.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Signer::Secret(secret) => authentication_code(secret, message),
            #[cfg(feature = "signatures")]
            Signer::Es256(pair) => {
                pair.sign(&ring::rand::SystemRandom::new(), message).ok().map(|signature| signature.as_ref().to_vec())
            }
            #[cfg(feature = "signatures")]
            Signer::EdDsa(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
