//! The address of a broker: `ws[s]://[user[:password]@]host[:port][/path][?query]`. A [`Url`] is always valid.
//!
//! This crate has its own parser (docs/decisions/libraries.md says why): it passes path and query to the broker unchanged, and names each mistake. `Display`
//! and `Debug` never show a password.

use std::fmt;

use wsmb_protocol::handshake::percent_decode;

/// The address of a broker, with the request target, and optionally a user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    is_tls: bool,
    host: String,
    port: u16,
    target: String,
    user: Option<String>,
    password: Option<String>,
}

/// Why a text is not a valid [`Url`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadUrl {
    /// The text does not begin with `ws://` or `wss://`.
    Scheme,
    /// `wss://`: this build has no TLS.
    Tls,
    /// There is no host between `ws://` and the path.
    NoHost,
    /// The host is not a host name or an IP address.
    Host(String),
    /// The port is not a number from 1 to 65535.
    Port(String),
    /// A `#`, which no WebSocket address may contain (RFC 6455 section 3).
    Fragment,
    /// In the user name or the password, a `%` is not followed by two hexadecimal digits, or the decoded bytes are not UTF-8.
    Percent,
    /// The text contains a control character.
    ControlCharacter,
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("the address must begin with ws:// or wss://, as in ws://127.0.0.1:8888"),
            Self::Tls => f.write_str("this build has no TLS: wss:// addresses cannot be used, only ws://"),
            Self::NoHost => f.write_str("the address names no host; it should look like ws://127.0.0.1:8888"),
            Self::Host(host) => write!(f, "`{host}` in the address is not a host name or an IP address"),
            Self::Port(port) => write!(f, "`{port}` in the address is not a port number from 1 to 65535"),
            Self::Fragment => f.write_str("the address may not contain a `#`; inside a name, write it as %23"),
            Self::Percent => f.write_str(
                "a `%` in the user name or password of the address must be followed by two hexadecimal digits; \
                 a percent sign itself is written %25",
            ),
            Self::ControlCharacter => f.write_str("the address contains a control character"),
        }
    }
}

impl std::error::Error for BadUrl {}

impl Url {
    /// Parses an address. The default port is 80, with TLS 443 (RFC 6455 section 3). An IPv6 address must be in brackets.
    ///
    /// # Errors
    /// [`BadUrl`]: the mistake in the address.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        if text.chars().any(char::is_control) {
            return Err(BadUrl::ControlCharacter);
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::Scheme)?;
        let is_tls = scheme.eq_ignore_ascii_case("wss");
        if is_tls && !cfg!(feature = "tls") {
            return Err(BadUrl::Tls);
        }
        if !is_tls && !scheme.eq_ignore_ascii_case("ws") {
            return Err(BadUrl::Scheme);
        }
        if rest.contains('#') {
            return Err(BadUrl::Fragment);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host_port)) => (Some(userinfo), host_port),
            None => (None, authority),
        };
        let (host, port) = split_port(host_port, if is_tls { 443 } else { 80 })?;
        let (user, password) = match userinfo.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            None | Some(("", "")) => (None, None),
            Some((user, password)) => {
                let decode = |text| percent_decode(text).ok_or(BadUrl::Percent);
                let has_password = userinfo.is_some_and(|info| info.contains(':'));
                (Some(decode(user)?), if has_password { Some(decode(password)?) } else { None })
            }
        };
        Ok(Self { is_tls, host: host.to_owned(), port, target: target_of(target), user, password })
    }

    /// Whether the connection is encrypted (`wss://`).
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Returns the host name or IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns path and query for the request line. The text begins with `/`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the decoded user name in the address.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the decoded password in the address.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Returns `host:port`, with an IPv6 address in brackets: for the `Host` header and for messages.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The address without user name and password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), if self.target == "/" { "" } else { &self.target })
    }
}

/// The same text as [`fmt::Display`], so that `{:?}` never writes a password into a log.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn split_port(host_port: &str, default: u16) -> Result<(&str, u16), BadUrl> {
    let (host, port) = if let Some(rest) = host_port.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| BadUrl::Host(host_port.to_owned()))?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| BadUrl::Host(host.to_owned()))?;
        (host, if after.is_empty() { None } else { Some(after.strip_prefix(':').unwrap_or(after)) })
    } else {
        match host_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_port, None),
        }
    };
    if host.is_empty() {
        return Err(BadUrl::NoHost);
    }
    if !host.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | ':')) {
        return Err(BadUrl::Host(host.to_owned()));
    }
    let port = match port {
        None => default,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => return Err(BadUrl::Port(text.to_owned())),
        },
    };
    Ok((host, port))
}

/// Returns path and query for the request line: the text begins with `/`, and bytes that a request line must not contain are percent-encoded.
fn target_of(text: &str) -> String {
    let mut target = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        target.push('/');
    }
    for byte in text.bytes() {
        if byte.is_ascii_graphic() {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_part_is_parsed() {
        let url = Url::parse("WS://app%40home:p%3Aw:x%C3%A9@broker.example:8888/behind/proxy?topic=my sms").unwrap();
        assert_eq!(url.host(), "broker.example");
        assert_eq!(url.port(), 8888);
        assert_eq!(url.target(), "/behind/proxy?topic=my%20sms");
        assert_eq!(url.user(), Some("app@home"));
        assert_eq!(url.password(), Some("p:w:xé"));
        assert_eq!(url.authority(), "broker.example:8888");
    }

    #[test]
    fn omitted_parts_have_defaults() {
        let url = Url::parse("ws://localhost").unwrap();
        assert_eq!((url.port(), url.target(), url.user(), url.password()), (80, "/", None, None));
        let url = Url::parse("ws://localhost?topic=sms").unwrap();
        assert_eq!(url.target(), "/?topic=sms");
        let url = Url::parse("ws://app@localhost").unwrap();
        assert_eq!((url.user(), url.password()), (Some("app"), None));
        let url = Url::parse("ws://app:@localhost").unwrap();
        assert_eq!((url.user(), url.password()), (Some("app"), Some("")));
        let url = Url::parse("ws://@localhost").unwrap();
        assert_eq!((url.user(), url.password()), (None, None));
    }

    #[test]
    fn an_encrypted_address_has_its_own_default_port() {
        let url = Url::parse("wss://broker.example/x");
        if cfg!(feature = "tls") {
            let url = url.unwrap();
            assert_eq!(
                (url.is_tls(), url.port(), url.to_string()),
                (true, 443, "wss://broker.example:443/x".to_owned())
            );
        } else {
            assert_eq!(url, Err(BadUrl::Tls));
        }
        assert!(!Url::parse("ws://h").unwrap().is_tls());
    }

    #[test]
    fn an_ipv6_address_needs_brackets() {
        let url = Url::parse("ws://[::1]:8888/").unwrap();
        assert_eq!((url.host(), url.port()), ("::1", 8888));
        assert_eq!(url.authority(), "[::1]:8888");
        assert_eq!(Url::parse("ws://[fe80::1]").unwrap().port(), 80);
    }

    #[test]
    fn each_mistake_in_an_address_has_its_error() {
        let table = [
            ("", BadUrl::Scheme),
            ("localhost:8888", BadUrl::Scheme),
            ("http://localhost", BadUrl::Scheme),
            ("ws://", BadUrl::NoHost),
            ("ws:///path", BadUrl::NoHost),
            ("ws://:8888", BadUrl::NoHost),
            ("ws://a b", BadUrl::Host("a b".into())),
            ("ws://[zz]:1", BadUrl::Host("zz".into())),
            ("ws://[::1", BadUrl::Host("[::1".into())),
            ("ws://h:0", BadUrl::Port("0".into())),
            ("ws://h:+5", BadUrl::Port("+5".into())),
            ("ws://h:65536", BadUrl::Port("65536".into())),
            ("ws://h:", BadUrl::Port(String::new())),
            ("ws://::1", BadUrl::NoHost),
            ("ws://h/#x", BadUrl::Fragment),
            ("ws://a%4@h", BadUrl::Percent),
            ("ws://a%zz@h", BadUrl::Percent),
            ("ws://%ff@h", BadUrl::Percent),
            ("ws://h/\r\nX: y", BadUrl::ControlCharacter),
        ];
        for (text, expected) in table {
            assert_eq!(Url::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn display_and_debug_do_not_show_the_password() {
        let url = Url::parse("ws://app:secret@h:1/x").unwrap();
        assert_eq!(format!("{url} {url:?}"), "ws://h:1/x ws://h:1/x");
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic_or_injects_a_header(text in ".*") {
            if let Ok(url) = Url::parse(&format!("ws://h/{text}")) {
                prop_assert!(url.target().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }

        #[test]
        fn percent_encoded_credentials_are_decoded(user in "[^:]{1,20}", password in ".{0,20}") {
            let encode = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
            let url = Url::parse(&format!("ws://{}:{}@h", encode(&user), encode(&password))).unwrap();
            prop_assert_eq!(url.user(), Some(user.as_str()));
            prop_assert_eq!(url.password(), Some(password.as_str()));
        }
    }
}
