//! `wsmb token`: makes tokens with a key of the configuration, and says whether a broker with this configuration would accept a token.
//!
//! Connects to no broker. Never takes a token or a key as an argument, because other users of the computer could read it.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Map, Value, json};

use super::settings::Settings;
use super::{Failure, Outcome, arguments, build, connect, output};
use wsmb_auth::{Credentials, Key, OwnKey, Signing, limits, token};
use wsmb_config::Config;
use wsmb_core::message::Timestamp;
use wsmb_protocol::envelope::iso8601;

/// Make a token with a key of the configuration, or inspect a token
///
/// Needs the broker's configuration, and no running broker. Without --send and --receive, the token has the rights that the permissions give the user. With
/// one of them, it has only the rights that are named.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb token --config wsmb.toml --user alice --receive 'user/alice/*' --ttl 1h
  wsmb token --config wsmb.toml --key-id partner --key private.pem --user alice --send sms
  wsmb token --config wsmb.toml --inspect < token.txt
  WSMB_TOKEN=$(wsmb token --config wsmb.toml --user alice) wsmb receive sms")]
pub(crate) struct Token {
    /// User of the token
    #[arg(long, value_name = "NAME", required_unless_present = "inspect", value_parser = arguments::name)]
    user: Option<String>,

    /// Channel or pattern that the token may send to; may be given several times
    #[arg(long, value_name = "PATTERN")]
    send: Vec<String>,

    /// Channel or pattern that the token may receive from; may be given several times
    #[arg(long, value_name = "PATTERN")]
    receive: Vec<String>,

    /// Time until the token expires
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = arguments::duration)]
    ttl: Duration,

    /// Id of the [[auth.key]] that signs [default: the only one]
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,

    /// File with the private key (PEM) of a key with ES256 or EdDSA
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Print a token's header and claims, and whether this configuration accepts it (exit code 0: yes; 1: no)
    #[arg(long, conflicts_with_all = ["user", "send", "receive", "key_id", "key"])]
    inspect: bool,

    /// File whose first line is the token to inspect [default: standard input]
    #[arg(long, value_name = "FILE", requires = "inspect")]
    token_file: Option<PathBuf>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: Settings,
}

impl Token {
    pub(crate) fn run(&self) -> Outcome {
        let config = self.settings.load(&[])?;
        let keys = build::keys(&config).map_err(Failure::failed)?;
        if self.inspect { self.print_verdict(&config, keys) } else { self.make(&keys) }
    }

    fn make(&self, keys: &[Arc<Key>]) -> Outcome {
        let key = self.choose(keys)?;
        let signing = self.signing(key)?;
        let now = now();
        let expires = now.saturating_add(self.ttl.as_secs());
        let mut claims = Map::new();
        let mut set = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
        set("sub", json!(self.user));
        set("iat", json!(now));
        set("exp", json!(expires));
        if let Some(audience) = key.audience() {
            set("aud", json!(audience));
        }
        if let Some(issuer) = key.issuer() {
            set("iss", json!(issuer));
        }
        if !self.send.is_empty() || !self.receive.is_empty() {
            set("wsmb.send", json!(self.send));
            set("wsmb.receive", json!(self.receive));
        }
        let token = token::sign(key.id(), &claims, &signing)
            .ok_or_else(|| Failure::failed("the system provides no random numbers"))?;
        // The private key may not fit the public key of the configuration, and the token may be too long.
        token::verify(&token, keys, &wsmb_auth::Users::default(), now)
            .map_err(|bad| Failure::failed(format_args!("the broker would refuse this token: {bad}")))?;
        if self.json {
            return output::line(
                &json!({ "token": token, "expires": iso8601(Timestamp(expires.saturating_mul(1_000))) }).to_string(),
            );
        }
        output::line(&token)
    }

    /// Finds the key that `--key-id` names, or the only one.
    fn choose<'a>(&self, keys: &'a [Arc<Key>]) -> Result<&'a Key, Failure> {
        let ids = || keys.iter().map(|key| key.id()).collect::<Vec<_>>().join(", ");
        match (&self.key_id, keys) {
            (_, []) => Err(Failure::failed(
                "the configuration has no [[auth.key]]; docs/configuration.md shows how to make one",
            )),
            (None, [key]) => Ok(key),
            (None, _) => Err(Failure::misuse(format_args!(
                "the configuration has several keys; add --key-id with one of: {}",
                ids()
            ))),
            (Some(id), _) => keys.iter().find(|key| key.id() == id).map(|key| &**key).ok_or_else(|| {
                Failure::misuse(format_args!(
                    "the configuration has no [[auth.key]] with the id {id}; there are {}",
                    ids()
                ))
            }),
        }
    }

    fn signing(&self, key: &Key) -> Result<Signing, Failure> {
        match (&self.key, key.to_signing()) {
            (None, Some(signing)) => Ok(signing),
            (None, None) => Err(Failure::misuse(format_args!(
                "the configuration has only the public key of {}; add --key FILE with the private key",
                key.id()
            ))),
            (Some(file), _) => {
                let fail = |error: &dyn std::fmt::Display| {
                    Failure::failed(format_args!("cannot sign with the key in {}: {error}", file.display()))
                };
                let text = std::fs::read_to_string(file).map_err(|error| fail(&error))?;
                Signing::parse(key.algorithm(), &text).map_err(|error| fail(&error))
            }
        }
    }

    /// Prints what the token says, and whether the configuration accepts it.
    fn print_verdict(&self, config: &Config, mut keys: Vec<Arc<Key>>) -> Outcome {
        let text = match &self.token_file {
            Some(file) => connect::read_token(file)?,
            None => read_input()?,
        };
        let text = text.trim();
        keys.extend(OwnKey::load(config.auth.token_key.clone()).0.get());
        let users = Credentials::load(&config.auth.htpasswd, &config.auth.users).users();
        let verdict = token::verify(text, &keys, &users, now());
        let (header, claims) = token::peek(text).unwrap_or_default();
        if self.json {
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
            let reason = verdict.as_ref().err().map(ToString::to_string);
            let object = json!({ "accepted": verdict.is_ok(), "reason": reason, "header": parsed(&header), "claims": parsed(&claims) });
            output::line(&object.to_string())?;
            return verdict.map(drop).map_err(|_| Failure::Reported);
        }
        // The token may come from anybody, so its text may have control characters.
        output::line(&format!("header    {}", output::printable(&header)))?;
        output::line(&format!("claims    {}", output::printable(&claims)))?;
        match verdict {
            Ok(grant) => {
                let expires = iso8601(Timestamp(grant.expires().saturating_mul(1_000)));
                output::line(&format!("accepted  as the user {} until {expires}", output::printable(grant.user())))
            }
            Err(bad) => {
                output::line(&format!("refused   {bad}"))?;
                Err(Failure::Reported)
            }
        }
    }
}

/// Reads a token from standard input; somewhat more than the longest one, so that a longer one is reported.
fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(2 * limits::TOKEN_BYTES as u64)
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format_args!("cannot read the token from standard input: {error}")))?;
    Ok(text)
}

/// The time in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
