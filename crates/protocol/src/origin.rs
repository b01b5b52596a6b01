//! Origins of web pages (RFC 6454): `https://app.example:8443`. Which page may connect is compared with them. Text only.

use core::fmt;
use core::net::IpAddr;

use crate::limits;

/// Where a web page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A page of a host: scheme (`http` or `https`), host in lower case without a trailing dot, port.
    Page {
        /// The page came over TLS.
        secure: bool,
        /// As in the address of the page; IPv6 in brackets.
        host: String,
        /// The port, that of the scheme if none is written.
        port: u16,
    },
    /// `null`: a page without an origin of its own (a local file, a frame in a sandbox).
    Null,
}

impl Origin {
    /// Reads an origin of a page; `None` if the text is none, be it because the scheme is not `http` or `https`.
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

    /// Whether it is a page of the host that a request names. Ports are compared only if the host has one: a proxy may leave it out.
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

/// Whether the text is an `Origin` that a web page may have, well written or not: only these are checked. Other schemes (`file://` of the ESP32 library, `app://`,
/// browser extensions) are programs that can claim whatever they like.
#[must_use]
pub fn is_of_web(text: &str) -> bool {
    let scheme = text.split(':').next().unwrap_or_default();
    text == "null" || ["http", "https"].iter().any(|web| scheme.trim().eq_ignore_ascii_case(web))
}

/// The host that a request names (`Host`, `X-Forwarded-Host`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// In lower case, without a trailing dot; IPv6 in brackets.
    pub name: String,
    /// If one is written.
    pub port: Option<u16>,
}

impl Host {
    /// Reads `broker.example`, `broker.example:8888`, `[::1]:8888`.
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

    /// No name server decides where this leads: an address, or this machine.
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
    fn an_origin_is_of_the_host_that_the_page_came_from() {
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
    fn what_is_no_origin_of_a_page_is_none() {
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
    fn web_pages_are_told_from_programs() {
        for text in ["http://a", "https://a", "HTTPS://a", "null", "http:", "https", "http ://x"] {
            assert!(is_of_web(text), "{text}");
        }
        for text in ["file://", "app://a", "chrome-extension://a", "capacitor://localhost", "", "a.example"] {
            assert!(!is_of_web(text), "{text}");
        }
    }

    #[test]
    fn an_origin_is_written_as_it_is_read() {
        for text in ["https://app.example", "http://app.example:8080", "https://[2001:db8::1]:8443", "null"] {
            assert_eq!(Origin::parse(text).map(|origin| origin.to_string()), Some(text.to_owned()));
        }
        assert_eq!(Origin::parse("http://A:80").map(|origin| origin.to_string()), Some("http://a".to_owned()));
    }

    #[test]
    fn no_name_server_decides_about_addresses_and_localhost() {
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
