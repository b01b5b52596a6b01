//! The reasons why a token is refused, each a sentence for its sender. A sentence never repeats a part of the token.

use std::fmt;

use crate::limits;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    /// Longer than [`limits::TOKEN_BYTES`].
    TooLong,
    /// Not three parts in base64url, of which the first two are JSON objects.
    NotAToken,
    /// A member occurs twice in the header or in the claims.
    Duplicate,
    /// A member of the header has a wrong type, or `typ` is not `JWT`.
    Header(&'static str),
    /// The header has `crit` (RFC 7515 section 4.1.11). The broker knows no extension.
    Critical,
    /// No key has exactly the id that the token names.
    UnknownKey,
    /// The token names no key, and there is not exactly one.
    NoKeyId,
    /// The header names another algorithm than the key has.
    Algorithm,
    /// The signature is wrong.
    Signature,
    /// `exp` is missing.
    NoExpiry,
    /// The token has expired, more than [`limits::TOKEN_SKEW`] ago.
    Expired,
    /// `nbf` is in the future, by more than [`limits::TOKEN_SKEW`].
    NotYetValid,
    /// `iat` is in the future, by more than [`limits::TOKEN_SKEW`].
    FromTheFuture,
    /// `aud` does not name this broker.
    Audience,
    /// `iss` is not the issuer of the key.
    Issuer,
    /// A claim is missing or has a wrong type.
    Claim(&'static str),
    /// A claim begins with `wsmb`, but is not one of the broker's claims.
    UnknownClaim,
    /// The user who has asked the broker for the token was removed, or has another password now.
    AskerChanged,
}

impl BadToken {
    /// Whether the signature was right, so that the token is no guess: a page may wake up with an old token.
    #[must_use]
    pub fn is_signed(self) -> bool {
        match self {
            Self::TooLong
            | Self::NotAToken
            | Self::Duplicate
            | Self::Header(_)
            | Self::Critical
            | Self::UnknownKey
            | Self::NoKeyId
            | Self::Algorithm
            | Self::Signature => false,
            Self::NoExpiry
            | Self::Expired
            | Self::NotYetValid
            | Self::FromTheFuture
            | Self::Audience
            | Self::Issuer
            | Self::Claim(_)
            | Self::UnknownClaim
            | Self::AskerChanged => true,
        }
    }
}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skew = limits::TOKEN_SKEW.as_secs();
        match self {
            Self::TooLong => write!(f, "the token is longer than {} bytes", limits::TOKEN_BYTES),
            Self::NotAToken => f.write_str("the token is not a signed JWT (three parts in base64url, with dots between them)"),
            Self::Duplicate => f.write_str("the token has two members with the same name"),
            Self::Header(member) => write!(f, "the token's header has an unusable \"{member}\""),
            Self::Critical => f.write_str("the token demands an extension (\"crit\"), and this broker knows none"),
            Self::UnknownKey => f.write_str("the token names a key (\"kid\") that this broker does not have"),
            Self::NoKeyId => f.write_str("the token names no key (\"kid\"), and this broker does not have exactly one key"),
            Self::Algorithm => f.write_str("the token names another algorithm (\"alg\") than its key has"),
            Self::Signature => f.write_str("the token's signature is wrong"),
            Self::NoExpiry => f.write_str("the token has no expiry time (\"exp\")"),
            Self::Expired => f.write_str("the token has expired (\"exp\")"),
            Self::NotYetValid => write!(f, "the token is not valid yet (\"nbf\" is more than {skew} s in the future)"),
            Self::FromTheFuture => write!(
                f,
                "the token was issued in the future (\"iat\" is more than {skew} s ahead); compare the clocks of both machines"
            ),
            Self::Audience => f.write_str("the token is for another service (\"aud\")"),
            Self::Issuer => f.write_str("the token is of another issuer (\"iss\")"),
            Self::Claim(claim) => write!(f, "the token's claim \"{claim}\" is missing or unusable"),
            Self::UnknownClaim => f.write_str(
                "the token has an unknown claim that begins with \"wsmb\"; the claims are \"wsmb.send\" and \"wsmb.receive\", with the dot in the name",
            ),
            Self::AskerChanged => {
                f.write_str("the user who asked for the token does not exist any more or has another password; ask for a new token")
            }
        }
    }
}

impl std::error::Error for BadToken {}
