//! Parses and compares the origins of web pages (RFC 6454): `https://app.example:8443`. Never decides which page may connect.

use core::fmt;
use core::net::IpAddr;

use crate::limits;

/// The origin of a web page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A page of a host.
    Page {
        /// The scheme: `https` if true, else `http`.
        secure: bool,
        /// The host in lower case without a trailing dot; an IPv6 address is in brackets.
        host: String,
        /// The port; if none is written, the default port of the scheme.
        port: u16,
    },
    /// `null`: a page without an origin (a local file, a frame in a sandbox).
    Null,
}

impl Origin {
    /// Parses the origin of a page. Returns `None` if the text is not valid, or the scheme is not `http` or `https`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > limits::ORIGIN_BYTES {
            return None;
        }
        if text == "null" {
            return Some(Self::Null);
        }
        let (scheme, rest) = text.split_once("://")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let Host { name, port } = Host::parse(rest)?;
        Some(Self::Page { secure, host: name, port: port.unwrap_or(if secure { 443 } else { 80 }) })
    }

    /// Whether the page is from the host of the request. Ports are compared only if the host has a port: a proxy may omit it.
    #[must_use]
    pub fn is_of(&self, request: &Host) -> bool {
        match self {
            Self::Page { host, port, .. } => *host == request.name && request.port.is_none_or(|other| other == *port),
            Self::Null => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Page { secure, host, port } => {
                let (scheme, usual) = if *secure { ("https", 443) } else { ("http", 80) };
                write!(f, "{scheme}://{host}")?;
                if *port == usual { Ok(()) } else { write!(f, ":{port}") }
            }
        }
    }
}

/// Whether an `Origin` can be that of a web page; it may be invalid. The broker checks only such origins: other schemes (`file://` of the ESP32 library,
/// `app://`, browser extensions) belong to programs, which can send any origin.
#[must_use]
pub fn is_of_web(text: &str) -> bool {
    let scheme = text.split(':').next().unwrap_or_default();
    text == "null" || ["http", "https"].iter().any(|web| scheme.trim().eq_ignore_ascii_case(web))
}

/// The host of a request (`Host`, `X-Forwarded-Host`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name in lower case, without a trailing dot; an IPv6 address is in brackets.
    pub name: String,
    /// The port, if one is written.
    pub port: Option<u16>,
}

impl Host {
    /// Parses a host: `broker.example`, `broker.example:8888`, `[::1]:8888`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']')?;
                rest[..end].parse::<core::net::Ipv6Addr>().ok()?;
                (&text[..end + 2], &rest[end + 1..])
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_good = |c: char| !c.is_control() && !c.is_whitespace() && !"/\\?#@\"<>,;'".contains(c);
        if name.is_empty() || !name.chars().all(is_good) {
            return None;
        }
        Some(Self { name: name.to_lowercase(), port })
    }

    /// Whether the host needs no name server: an IP address, or `localhost`.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        let bare = self.name.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok() || bare == "localhost" || bare.ends_with(".localhost")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn an_origin_is_compared_with_the_host_of_a_request() {
        for (origin, request, same) in [
            ("http://broker.example", "broker.example", true),
            ("https://broker.example", "broker.example", true),
            ("https://Broker.Example.", "broker.example", true),
            ("http://broker.example:8888", "broker.example:8888", true),
            ("https://broker.example:8443", "broker.example", true),
            ("http://broker.example", "broker.example:80", true),
            ("https://broker.example", "broker.example:443", true),
            ("http://broker.example", "broker.example:8888", false),
            ("http://broker.example:8889", "broker.example:8888", false),
            ("http://[::1]:8888", "[::1]:8888", true),
            ("http://127.0.0.1:8888", "127.0.0.1:8888", true),
            ("http://evil.example", "broker.example", false),
            ("http://broker.example.evil.example", "broker.example", false),
            ("null", "null", false),
        ] {
            let parsed = Origin::parse(origin).unwrap_or_else(|| panic!("{origin}"));
            assert_eq!(parsed.is_of(&host(request)), same, "{origin} {request}");
        }
    }

    #[test]
    fn invalid_origins_are_none() {
        for text in [
            "",
            "broker.example",
            "file://",
            "app://x",
            "http://",
            "http://a/b",
            "http://a b",
            "http://user@a",
            "http://a:",
            "http://a:x",
            "http://a:99999",
            "http://a:+80",
            "http://[::1",
            "http://[x]",
            "NULL",
            "http:a",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
        assert_eq!(Origin::parse(&format!("http://{}", "a".repeat(300))), None);
    }

    #[test]
    fn origins_of_web_pages_differ_from_those_of_programs() {
        for text in ["http://a", "https://a", "HTTPS://a", "null", "http:", "https", "http ://x"] {
            assert!(is_of_web(text), "{text}");
        }
        for text in ["file://", "app://a", "chrome-extension://a", "capacitor://localhost", "", "a.example"] {
            assert!(!is_of_web(text), "{text}");
        }
    }

    #[test]
    fn a_displayed_origin_can_be_parsed_again() {
        for text in ["https://app.example", "http://app.example:8080", "https://[2001:db8::1]:8443", "null"] {
            assert_eq!(Origin::parse(text).map(|origin| origin.to_string()), Some(text.to_owned()));
        }
        assert_eq!(Origin::parse("http://A:80").map(|origin| origin.to_string()), Some("http://a".to_owned()));
    }

    #[test]
    fn addresses_and_localhost_need_no_name_server() {
        for (text, fixed) in [
            ("127.0.0.1:8888", true),
            ("[::1]:8888", true),
            ("LOCALHOST", true),
            ("a.localhost:1", true),
            ("broker.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
        ] {
            assert_eq!(host(text).is_fixed(), fixed, "{text}");
        }
    }
}
