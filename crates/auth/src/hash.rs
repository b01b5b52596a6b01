//! Parses and verifies password hashes.
//!
//! A [`struct@Hash`] is validated when it is parsed, so that verification cannot fail. A hash must never appear in a `Debug` output or an
//! error.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha_crypt::PasswordVerifier as _;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::apr1;
use crate::limits;

/// The supported formats and their cost parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `{SHA}`: one SHA-1 digest without salt. Weak.
    Sha1,
    /// `$apr1$`: 1,000 rounds of MD5. Weak.
    Apr1,
    /// `$2y$`, `$2a$`, `$2b$`: bcrypt with this cost (2 to the power of the cost is the number of rounds).
    Bcrypt(u32),
    /// `$5$`: SHA-256-crypt with this number of rounds.
    Sha256Crypt(u32),
    /// `$6$`: SHA-512-crypt with this number of rounds.
    Sha512Crypt(u32),
}

impl Format {
    /// Whether the passwords behind stolen hashes of this format can be found cheaply.
    #[must_use]
    pub fn is_weak(self) -> bool {
        matches!(self, Self::Sha1 | Self::Apr1)
    }

    /// The approximate duration of one verification, in units of one SHA-1 digest. Only for comparing formats.
    fn effort(self) -> u64 {
        match self {
            Self::Sha1 => 1,
            Self::Apr1 => 1_000,
            Self::Sha256Crypt(rounds) | Self::Sha512Crypt(rounds) => 2 * u64::from(rounds),
            Self::Bcrypt(cost) => 100 << cost,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "{SHA}",
            Self::Apr1 => "$apr1$",
            Self::Bcrypt(_) => "bcrypt",
            Self::Sha256Crypt(_) => "$5$",
            Self::Sha512Crypt(_) => "$6$",
        })
    }
}

/// Why a text is not a valid [`struct@Hash`]. Never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHash {
    /// There is no text after the colon.
    Empty,
    /// Thirteen characters of the crypt alphabet: DES crypt, which uses only the first 8 characters of a password.
    Des,
    /// No known prefix: a password in plain text, or an unsupported format.
    PlainOrUnknown,
    /// The prefix of a supported format, but an invalid rest.
    Damaged(&'static str),
    /// More rounds than the limits allow: one login would block a processor for too long.
    TooCostly,
}

impl fmt::Display for BadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("has no password hash after the colon"),
            Self::Des => {
                f.write_str("has a DES crypt hash, which is refused because it uses only 8 characters of the password")
            }
            Self::PlainOrUnknown => {
                f.write_str("has a password in plain text or a hash of an unsupported format, which is refused")
            }
            Self::Damaged(format) => write!(f, "has a damaged {format} hash"),
            Self::TooCostly => write!(
                f,
                "has a hash that is too expensive to verify (at most bcrypt cost {} or {} rounds)",
                limits::BCRYPT_COST,
                limits::SHA_CRYPT_ROUNDS
            ),
        }
    }
}

impl std::error::Error for BadHash {}

/// A valid password hash within the limits.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    format: Format,
    text: Box<str>,
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({})", self.format)
    }
}

impl Hash {
    /// Detects the format of `text` and validates it.
    ///
    /// # Errors
    /// [`BadHash`]: why the text is refused.
    pub fn parse(text: &str) -> Result<Self, BadHash> {
        let format = if text.is_empty() {
            return Err(BadHash::Empty);
        } else if let Some(digest) = text.strip_prefix("{SHA}") {
            sha1_digest(digest).map(|_| Format::Sha1).ok_or(BadHash::Damaged("{SHA}"))?
        } else if let Some(rest) = text.strip_prefix("$apr1$") {
            check_apr1(rest).then_some(Format::Apr1).ok_or(BadHash::Damaged("$apr1$"))?
        } else if ["$2y$", "$2a$", "$2b$"].iter().any(|prefix| text.starts_with(prefix)) {
            parse_bcrypt(text)?
        } else if let Some(rest) = text.strip_prefix("$5$") {
            Format::Sha256Crypt(parse_sha_crypt(text, rest, 43).map_err(|bad| bad.unwrap_or(BadHash::Damaged("$5$")))?)
        } else if let Some(rest) = text.strip_prefix("$6$") {
            Format::Sha512Crypt(parse_sha_crypt(text, rest, 86).map_err(|bad| bad.unwrap_or(BadHash::Damaged("$6$")))?)
        } else if text.len() == 13 && in_alphabet(text) {
            return Err(BadHash::Des);
        } else {
            return Err(BadHash::PlainOrUnknown);
        };
        Ok(Self { format, text: text.into() })
    }

    /// The format of the hash.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The approximate duration of [`Self::verify`], in units of one SHA-1 digest.
    #[must_use]
    pub fn effort(&self) -> u64 {
        self.format.effort()
    }

    /// The text of the file. Secret: only for digesting in the cache, and for sorting.
    pub(super) fn secret_text(&self) -> &str {
        &self.text
    }

    /// Whether `password` matches the hash. Blocks for up to seconds; a match takes as long as a mismatch.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        match self.format {
            Format::Sha1 => {
                let given: [u8; 20] = Sha1::digest(password).into();
                self.text
                    .strip_prefix("{SHA}")
                    .and_then(sha1_digest)
                    .is_some_and(|expected| bool::from(expected.ct_eq(&given)))
            }
            Format::Apr1 => {
                let rest = self.text.strip_prefix("$apr1$").unwrap_or_default();
                let (salt, expected) = rest.split_once('$').unwrap_or_default();
                bool::from(expected.as_bytes().ct_eq(&apr1::encode(password, salt.as_bytes())))
            }
            Format::Bcrypt(_) => bcrypt::verify(password, &self.text).unwrap_or(false),
            Format::Sha256Crypt(_) => sha_crypt::ShaCrypt::SHA256.verify_password(password, &*self.text).is_ok(),
            Format::Sha512Crypt(_) => sha_crypt::ShaCrypt::SHA512.verify_password(password, &*self.text).is_ok(),
        }
    }
}

fn in_alphabet(text: &str) -> bool {
    text.bytes().all(|byte| apr1::ALPHABET.contains(&byte))
}

fn sha1_digest(text: &str) -> Option<[u8; 20]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn check_apr1(rest: &str) -> bool {
    rest.split_once('$').is_some_and(|(salt, digest)| {
        !salt.is_empty() && salt.len() <= apr1::SALT_MAX && digest.len() == apr1::DIGEST_CHARS && in_alphabet(digest)
    })
}

fn parse_bcrypt(text: &str) -> Result<Format, BadHash> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| BadHash::Damaged("bcrypt"))?;
    match parts.get_cost() {
        ..4 => Err(BadHash::Damaged("bcrypt")),
        cost @ 4..=limits::BCRYPT_COST => Ok(Format::Bcrypt(cost)),
        _ => Err(BadHash::TooCostly),
    }
}

/// Returns the rounds of `[rounds=N$]salt$digest`. The error `None` means that the hash is damaged.
fn parse_sha_crypt(text: &str, rest: &str, digest_length: usize) -> Result<u32, Option<BadHash>> {
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        None => (sha_crypt::Params::RECOMMENDED_ROUNDS, rest),
        Some(rest) => {
            let (number, rest) = rest.split_once('$').ok_or(None)?;
            (number.parse().map_err(|_| None)?, rest)
        }
    };
    let (_, digest) = rest.split_once('$').ok_or(None)?;
    let readable = sha_crypt::PasswordHash::new(text).is_ok();
    if !readable || digest.len() != digest_length || !in_alphabet(digest) || rounds < sha_crypt::Params::ROUNDS_MIN {
        return Err(None);
    }
    if rounds > limits::SHA_CRYPT_ROUNDS { Err(Some(BadHash::TooCostly)) } else { Ok(rounds) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hashes of the password `secret`, made with openssl and with the C library's crypt.
    pub(crate) const SECRETS: [(&str, Format); 9] = [
        ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", Format::Sha1),
        ("$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/", Format::Apr1),
        ("$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", Format::Bcrypt(5)),
        ("$2a$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", Format::Bcrypt(5)),
        ("$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", Format::Bcrypt(5)),
        ("$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA", Format::Sha256Crypt(5_000)),
        ("$5$rounds=1000$abc$Mz4DiYKTnNKbZLo/mIp3d8Y4aQBhv3uhSwxLDy55/Y8", Format::Sha256Crypt(1_000)),
        (
            "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
            Format::Sha512Crypt(5_000),
        ),
        (
            "$6$rounds=1234$abcdefghijklmnop$IHxJU1//aPNjHJ/dTsgfYDQ8x53Qf934gbfExKhFjSUfeLhnxh5Qjre4cx8Z1herK1vKT7cjNCB8ULVND1/Q./",
            Format::Sha512Crypt(1_234),
        ),
    ];

    #[test]
    fn every_format_accepts_only_the_right_password() {
        for (text, format) in SECRETS {
            let hash = Hash::parse(text).unwrap();
            assert_eq!(hash.format(), format, "{text}");
            assert!(hash.verify(b"secret"), "{text}");
            for wrong in [&b"Secret"[..], b"secret ", b"", b"secre", b"secret\0"] {
                assert!(!hash.verify(wrong), "{text} accepted {wrong:?}");
            }
        }
    }

    #[test]
    fn refused_hashes_have_their_reason() {
        let table = [
            ("", BadHash::Empty),
            ("abNANd1rDfiNc", BadHash::Des),
            ("secret", BadHash::PlainOrUnknown),
            ("$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1", BadHash::PlainOrUnknown),
            ("$2x$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", BadHash::PlainOrUnknown),
            ("{SHA}", BadHash::Damaged("{SHA}")),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY", BadHash::Damaged("{SHA}")),
            ("$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5S", BadHash::Damaged("$apr1$")),
            ("$apr1$$h9FWgUz3n9YxylKLlR5SQ/", BadHash::Damaged("$apr1$")),
            ("$2y$05$abc", BadHash::Damaged("bcrypt")),
            ("$2y$03$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", BadHash::Damaged("bcrypt")),
            ("$2y$16$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a", BadHash::TooCostly),
            ("$5$saltsalt$short", BadHash::Damaged("$5$")),
            ("$5$rounds=999$abc$Mz4DiYKTnNKbZLo/mIp3d8Y4aQBhv3uhSwxLDy55/Y8", BadHash::Damaged("$5$")),
            ("$5$rounds=1000001$abc$Mz4DiYKTnNKbZLo/mIp3d8Y4aQBhv3uhSwxLDy55/Y8", BadHash::TooCostly),
            ("$6$", BadHash::Damaged("$6$")),
        ];
        for (text, expected) in table {
            assert_eq!(Hash::parse(text), Err(expected), "{text}");
            assert!(text.len() < 6 || !expected.to_string().contains(text), "the message shows the hash: {expected}");
        }
    }

    #[test]
    fn debug_output_does_not_contain_the_hash() {
        let hash = Hash::parse("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=").unwrap();
        assert_eq!(format!("{hash:?}"), "Hash({SHA})");
    }

    proptest! {
        #[test]
        fn parsing_any_text_does_not_panic(text in "(\\$(5|6|apr1|2y)\\$|\\{SHA\\})?[ -~é]{0,90}") {
            if let Ok(hash) = Hash::parse(&text) {
                // Every accepted hash can be verified. Expensive ones are skipped to keep the test short.
                if hash.effort() < 100_000 {
                    let _ = hash.verify(b"secret");
                }
            }
        }
    }
}
