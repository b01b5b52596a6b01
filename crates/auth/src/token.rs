//! Verifies tokens: JSON Web Tokens (RFC 7519) with a signature in compact form (RFC 7515), and signs them.
//!
//! ```text
//! token ─► header ─► key (by its exact id) ─► signature ─► claims ─► Grant
//! ```
//!
//! The algorithm is always the key's (RFC 8725 section 3.1). Nothing that a token says is used before its signature is checked, except the id of the key.
//! This module must never read a clock, and never put a token or a key into an error or a `Debug` output.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::bad_token::BadToken;
use super::claims::{Claims, Demands};
use super::files::Users;
use super::json::{BadObject, Object};
use super::permission::{Patterns, Permissions};
use super::signature::{Algorithm, BadKey, Signing, Verifying};
use crate::limits;

/// The id of the broker's own key. No other key may have it.
pub const OWN_KEY: &str = "wsmb";

/// A key that verifies tokens: an `[[auth.key]]` of the configuration, or the broker's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    id: String,
    verifying: Verifying,
    audience: Option<String>,
    issuer: Option<String>,
    is_own: bool,
}

impl Key {
    /// Makes a key of an application. `text`: for HS256 the secret, as it is or in base64 behind `base64:`; otherwise a PEM file with the public key.
    ///
    /// # Errors
    /// The text is not a key for the algorithm, or the secret is too short.
    pub fn new(
        id: &str,
        algorithm: Algorithm,
        text: &str,
        audience: Option<String>,
        issuer: Option<String>,
    ) -> Result<Self, BadKey> {
        Ok(Self { id: id.to_owned(), verifying: Verifying::parse(algorithm, text)?, audience, issuer, is_own: false })
    }

    /// Makes the broker's own key of a random secret.
    pub(super) fn own(secret: [u8; limits::HS256_SECRET_BYTES]) -> Self {
        let verifying = Verifying::of_secret(secret);
        Self { id: OWN_KEY.to_owned(), verifying, audience: None, issuer: None, is_own: true }
    }

    /// The id, which a token names as `kid`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.verifying.algorithm
    }

    /// The audience that tokens of this key must name.
    #[must_use]
    pub fn audience(&self) -> Option<&str> {
        self.audience.as_deref()
    }

    /// The issuer that tokens of this key must name.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Returns the key that signs tokens, if it is the same secret (HS256).
    #[must_use]
    pub fn to_signing(&self) -> Option<Signing> {
        self.verifying.to_signing()
    }

    /// Returns a mark of a user's password: it changes with the hash, and does not reveal the hash. `None` if there is no such user.
    pub(super) fn mark(&self, users: &Users, user: &str) -> Option<String> {
        let text = format!("{user}\0{}", users.hash_of(user)?.secret_text());
        let mark = self.verifying.mark(text.as_bytes())?;
        Some(URL_SAFE_NO_PAD.encode(mark.get(..16)?))
    }
}

/// The rights that a token gives, until it expires.
#[derive(Clone, Debug)]
pub struct Grant {
    user: Arc<str>,
    expires: u64,
    send: Option<Patterns>,
    receive: Option<Patterns>,
    key: Arc<Key>,
    /// The user who asked the broker for the token, and the mark of that user's password.
    asker: Option<(String, String)>,
}

impl Grant {
    /// The user (`sub`). Need not be in a password file.
    #[must_use]
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// When the token expires (`exp`), in seconds since 1970. It is accepted for [`limits::TOKEN_SKEW`] longer.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Whether the token is accepted no longer. `now`: seconds since 1970.
    #[must_use]
    pub fn has_expired(&self, now: u64) -> bool {
        now >= self.expires.saturating_add(limits::TOKEN_SKEW.as_secs())
    }

    /// Whether the token allows to send to `channel`.
    #[must_use]
    pub fn may_send(&self, permissions: &Permissions, channel: &str) -> bool {
        self.may(self.send.as_ref(), channel, |user| permissions.may_send(user, channel))
    }

    /// Whether the token allows to receive from `channel`.
    #[must_use]
    pub fn may_receive(&self, permissions: &Permissions, channel: &str) -> bool {
        self.may(self.receive.as_ref(), channel, |user| permissions.may_receive(user, channel))
    }

    fn may(&self, claim: Option<&Patterns>, channel: &str, permitted: impl Fn(&str) -> bool) -> bool {
        match (&self.asker, claim) {
            // Never more than the user who asked for it has now.
            (Some((asker, _)), claim) => claim.is_some_and(|claim| claim.matches(channel)) && permitted(asker),
            (None, Some(claim)) => claim.matches(channel),
            (None, None) => permitted(&self.user),
        }
    }

    /// Whether the token would still be accepted with these keys and users, apart from its expiry.
    #[must_use]
    pub fn is_still_accepted(&self, keys: &[Arc<Key>], users: &Users) -> bool {
        keys.contains(&self.key) && self.is_asker_unchanged(users)
    }

    fn is_asker_unchanged(&self, users: &Users) -> bool {
        let Some((asker, mark)) = &self.asker else { return true };
        self.key.mark(users, asker).is_some_and(|now| now.as_bytes().ct_eq(mark.as_bytes()).into())
    }
}

/// The three parts of a token.
struct Parts<'a> {
    header: Object,
    /// The bytes that are signed: header and claims as written.
    signed: &'a [u8],
    claims: &'a str,
    signature: Vec<u8>,
}

/// Verifies a token. `keys`: all keys that are accepted; `users`: the list in force; `now`: seconds since 1970.
///
/// # Errors
/// The first reason why the token is refused.
pub fn verify(token: &str, keys: &[Arc<Key>], users: &Users, now: u64) -> Result<Grant, BadToken> {
    let Parts { header, signed, claims, signature } = split(token)?;
    let key = key_of(&header, keys)?;
    if header.get("alg").and_then(Value::as_str) != Some(key.algorithm().name()) {
        return Err(BadToken::Algorithm);
    }
    if !key.verifying.verify(signed, &signature) {
        return Err(BadToken::Signature);
    }
    let demands = Demands { audience: key.audience(), issuer: key.issuer(), is_own: key.is_own };
    let Claims { user, expires, send, receive, asker } = Claims::read(&object(claims)?, demands, now)?;
    let grant = Grant { user: user.into(), expires, send, receive, key: key.clone(), asker };
    if grant.is_asker_unchanged(users) { Ok(grant) } else { Err(BadToken::AskerChanged) }
}

fn split(token: &str) -> Result<Parts<'_>, BadToken> {
    if token.len() > limits::TOKEN_BYTES {
        return Err(BadToken::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(BadToken::NotAToken)?;
    let (header, claims) = signed.split_once('.').ok_or(BadToken::NotAToken)?;
    if claims.contains('.') {
        return Err(BadToken::NotAToken);
    }
    let header = object(header)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| BadToken::NotAToken)?;
    Ok(Parts { header, signed: signed.as_bytes(), claims, signature })
}

fn object(encoded: &str) -> Result<Object, BadToken> {
    let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| BadToken::NotAToken)?;
    Object::parse(&json).map_err(|bad| match bad {
        BadObject::NotAnObject => BadToken::NotAToken,
        BadObject::Duplicate => BadToken::Duplicate,
    })
}

/// Finds the key that the header names: by its exact id, never by a file name or an address.
fn key_of<'a>(header: &Object, keys: &'a [Arc<Key>]) -> Result<&'a Arc<Key>, BadToken> {
    if header.get("crit").is_some() {
        return Err(BadToken::Critical);
    }
    // A signed object of another kind is not a token, even if the same key has signed it (RFC 8725 section 3.11).
    if let Some(kind) = header.get("typ") {
        let is_token = |kind: &str| ["JWT", "at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known));
        if !kind.as_str().is_some_and(is_token) {
            return Err(BadToken::Header("typ"));
        }
    }
    match header.get("kid") {
        Some(Value::String(id)) => keys.iter().find(|key| key.id == *id).ok_or(BadToken::UnknownKey),
        Some(_) => Err(BadToken::Header("kid")),
        None => {
            let mut of_applications = keys.iter().filter(|key| !key.is_own);
            match (of_applications.next(), of_applications.next()) {
                (Some(key), None) => Ok(key),
                _ => Err(BadToken::NoKeyId),
            }
        }
    }
}

/// Signs claims. Returns the token; `None` if the system gives no random numbers.
#[must_use]
pub fn sign(key_id: &str, claims: &Map<String, Value>, key: &Signing) -> Option<String> {
    let header = serde_json::json!({ "alg": key.algorithm().name(), "typ": "JWT", "kid": key_id });
    let encode = |json: String| URL_SAFE_NO_PAD.encode(json);
    let signed = format!("{}.{}", encode(header.to_string()), encode(Value::Object(claims.clone()).to_string()));
    let signature = key.sign(signed.as_bytes())?;
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Returns the header and the claims of a token as JSON texts, whether the token is accepted or not. For people only.
#[must_use]
pub fn peek(token: &str) -> Option<(String, String)> {
    let mut parts = token.split('.').map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
