//! Reads the claims of a token whose signature is right (RFC 7519 section 4.1).
//!
//! This module must never read a clock: the time is an argument.

use serde_json::Value;

use super::bad_token::BadToken;
use super::json::Object;
use super::permission::Patterns;
use crate::limits;

/// The claim with the channels to send to.
pub(super) const SEND: &str = "wsmb.send";
/// The claim with the channels to receive from.
pub(super) const RECEIVE: &str = "wsmb.receive";
/// In a token of the broker: the user who asked for it.
pub(super) const ASKER: &str = "wsmb.asker";
/// In a token of the broker: a mark of that user's password.
pub(super) const MARK: &str = "wsmb.mark";

/// What the key says about the claims of its tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demands<'a> {
    /// The audience that `aud` must name.
    pub(super) audience: Option<&'a str>,
    /// The value that `iss` must have.
    pub(super) issuer: Option<&'a str>,
    /// The key is the broker's own, whose tokens have [`ASKER`] and [`MARK`].
    pub(super) is_own: bool,
}

/// The claims that the broker uses.
#[derive(Clone, Debug)]
pub(super) struct Claims {
    pub(super) user: String,
    /// `exp`, in seconds since 1970.
    pub(super) expires: u64,
    pub(super) send: Option<Patterns>,
    pub(super) receive: Option<Patterns>,
    /// [`ASKER`] and [`MARK`].
    pub(super) asker: Option<(String, String)>,
}

impl Claims {
    /// Checks the claims. `now`: seconds since 1970.
    pub(super) fn read(object: &Object, demands: Demands<'_>, now: u64) -> Result<Self, BadToken> {
        let skew = limits::TOKEN_SKEW.as_secs();
        let expires = time(object, "exp")?.ok_or(BadToken::NoExpiry)?;
        if now >= expires.saturating_add(skew) {
            return Err(BadToken::Expired);
        }
        if time(object, "nbf")?.is_some_and(|start| start > now.saturating_add(skew)) {
            return Err(BadToken::NotYetValid);
        }
        if time(object, "iat")?.is_some_and(|issued| issued > now.saturating_add(skew)) {
            return Err(BadToken::FromTheFuture);
        }
        check_audience(object, demands.audience)?;
        if demands.issuer.is_some_and(|issuer| object.get("iss").and_then(Value::as_str) != Some(issuer)) {
            return Err(BadToken::Issuer);
        }
        let own: &[&str] = if demands.is_own { &[ASKER, MARK] } else { &[] };
        // A misspelt claim would otherwise give the user all rights that the permissions give.
        let is_unknown =
            |name: &str| name.starts_with("wsmb") && ![SEND, RECEIVE].contains(&name) && !own.contains(&name);
        if object.0.keys().any(|name| is_unknown(name)) {
            return Err(BadToken::UnknownClaim);
        }
        let asker = if demands.is_own { Some((text(object, ASKER)?, text(object, MARK)?)) } else { None };
        Ok(Self {
            user: user(object)?,
            expires,
            send: patterns(object, SEND)?,
            receive: patterns(object, RECEIVE)?,
            asker,
        })
    }
}

/// Reads a time in seconds since 1970, which may have a fraction.
fn time(object: &Object, name: &'static str) -> Result<Option<u64>, BadToken> {
    let Some(value) = object.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0).ok_or(BadToken::Claim(name))?;
    // A conversion from a float that is too large gives the largest integer.
    Ok(Some(value.as_u64().unwrap_or(seconds as u64)))
}

/// A token that names audiences is for these only. Without a configured audience, a token without `aud` is for every service that has the key.
fn check_audience(object: &Object, wanted: Option<&str>) -> Result<(), BadToken> {
    let name = wanted.unwrap_or("wsmb");
    let is_named = match object.get("aud") {
        None => wanted.is_none(),
        Some(Value::String(audience)) => audience == name,
        Some(Value::Array(all)) => all.iter().any(|audience| audience.as_str() == Some(name)),
        Some(_) => return Err(BadToken::Claim("aud")),
    };
    if is_named { Ok(()) } else { Err(BadToken::Audience) }
}

fn text(object: &Object, name: &'static str) -> Result<String, BadToken> {
    object.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(BadToken::Claim(name))
}

/// Reads `sub`. The empty name is the name of anonymous clients.
fn user(object: &Object) -> Result<String, BadToken> {
    let user = text(object, "sub")?;
    let is_good = (1..=wsmb_core::limits::NAME_BYTES).contains(&user.len()) && !user.contains(char::is_control);
    if is_good { Ok(user) } else { Err(BadToken::Claim("sub")) }
}

/// Reads a list of patterns, or one pattern. `None` if the claim is missing.
fn patterns(object: &Object, name: &'static str) -> Result<Option<Patterns>, BadToken> {
    let bad = BadToken::Claim(name);
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(pattern)) => Ok(Some([pattern].into_iter().collect())),
        Some(Value::Array(list)) if list.len() <= limits::TOKEN_PATTERNS => list
            .iter()
            .map(|pattern| pattern.as_str().ok_or(bad))
            .collect::<Result<Vec<_>, _>>()
            .map(|list| Some(list.into_iter().collect())),
        Some(_) => Err(bad),
    }
}
