//! One `[[webhook]]` as plain data, and the parts of it that have a format of their own: the URL and the secrets.
//!
//! Never here: a file, a socket; a secret in an error or in the output of `Debug`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::limits;
use wsmb_core::message::ChannelName;

/// `[[webhook]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The name in log lines; no two webhooks have the same.
    pub name: String,
    /// The channels whose messages are posted; at least one.
    pub channels: Vec<ChannelName>,
    /// Where the messages are posted.
    pub url: WebhookUrl,
    /// The keys of the signatures, the newest first; at least one.
    pub secrets: Vec<Secret>,
    /// Whether the configuration file itself contains a secret.
    pub has_secret_in_file: bool,
    /// The files with secrets.
    pub secret_files: Vec<PathBuf>,
    /// How long a request may take, from the connection to the end of the answer.
    pub timeout: Duration,
    /// Requests at the same time, each of another channel.
    pub concurrency: usize,
    /// Whether addresses that are not reachable from the internet are allowed.
    pub allow_private: bool,
    /// A file with the only certificates that are trusted; `None`: the system's authorities.
    pub ca: Option<PathBuf>,
}

/// The URL of a webhook: `https://host[:port][/path][?query]`, or with `http://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl {
    /// `https://`.
    pub is_encrypted: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// 443 or 80 if the URL names none.
    pub port: u16,
    /// The path and the query; begins with a slash.
    pub target: String,
}

impl WebhookUrl {
    /// Parses a URL. An error is the end of a sentence that begins with the key. It does not repeat the URL, whose query may be a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let right = || "must be a URL like \"https://app.example/hook\"".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(right)?;
        let is_encrypted = match &*scheme.to_ascii_lowercase() {
            "http" => false,
            "https" => true,
            _ => return Err(right()),
        };
        if text.len() > limits::WEBHOOK_URL_BYTES || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            let most = limits::WEBHOOK_URL_BYTES;
            return Err(format!(
                "must have at most {most} characters, all of ASCII and visible; percent-encode the others"
            ));
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("must not have a user or a password; the signature proves that the broker has sent a request"
                .to_owned());
        }
        if target.contains('#') {
            return Err("must not have a fragment (#…), which is never sent".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(right)?;
                (host, port)
            }
            _ => (authority, if is_encrypted { 443 } else { 80 }),
        };
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<Ipv6Addr>().is_ok()),
            None => Some(host).filter(|host| {
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            }),
        };
        let host = host.ok_or_else(right)?.to_ascii_lowercase();
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { is_encrypted, host, port, target: format!("{slash}{target}") })
    }

    /// The address, if the host is one and not a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Host and path without the query, which may be a secret.
    pub(super) fn label(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{}{}", self.host, path.trim_end_matches('/'))
    }
}

/// The key of a signature: `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks 1.0 has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Parses a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (least, most) = (limits::WEBHOOK_SECRET_BYTES_MIN, limits::WEBHOOK_SECRET_BYTES_MAX);
        let wrong = || {
            format!(
                "must be \"whsec_\" and {least} to {most} random bytes in base64; `echo \"whsec_$(openssl rand -base64 32)\"` makes one"
            )
        };
        let base64 = text.trim().strip_prefix("whsec_").ok_or_else(wrong)?;
        let bytes = BASE64_STANDARD.decode(base64).map_err(|_| wrong())?;
        if (least..=most).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(wrong()) }
    }

    /// The bytes of the key.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Hides the key.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split() {
        for (text, host, port, target) in [
            ("http://app.example", "app.example", 80, "/"),
            ("HTTP://App.Example:8080/hook?key=1", "app.example", 8080, "/hook?key=1"),
            ("http://[2001:db8::1]/x", "2001:db8::1", 80, "/x"),
            ("http://[::1]:81?x", "::1", 81, "/?x"),
            ("http://192.0.2.7/a:b@c", "192.0.2.7", 80, "/a:b@c"),
        ] {
            let url = WebhookUrl::parse(text).unwrap();
            assert_eq!((&*url.host, url.port, &*url.target), (host, port, target), "{text}");
        }
        assert_eq!(WebhookUrl::parse("http://a.example:81/hook/?key=1").unwrap().label(), "a.example/hook");
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_text() {
        let long = format!("http://a.example/{}", "x".repeat(limits::WEBHOOK_URL_BYTES));
        for text in [
            "",
            "app.example/hook",
            "ftp://a.example/",
            "http://",
            "http:///path",
            "http://a.example:0/",
            "http://a.example:x/",
            "http://a.example:99999/",
            "http://[::1/",
            "http://[x]/",
            "http://user:s3cret@a.example/",
            "http://a.example/a b",
            "http://a.example/\r\nX: 1",
            "http://a.example/ü",
            "http://a.example/#s3cret",
            "http://a%41/",
            &long,
        ] {
            let error = WebhookUrl::parse(text).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let secure = WebhookUrl::parse("HTTPS://a.example/").unwrap();
        assert_eq!((secure.is_encrypted, secure.port), (true, 443));
    }

    #[test]
    fn a_secret_is_long_enough_and_hidden() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(secret.bytes().len(), 24);
        assert_eq!(format!("{secret:?}"), "Secret");
        let of = |count: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; count]));
        assert!(Secret::parse(&of(64)).is_ok());
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_???", &of(23), &of(65)] {
            assert!(Secret::parse(text).is_err(), "{text}");
        }
    }
}
