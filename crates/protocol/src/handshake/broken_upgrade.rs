//! Recognises requests of WebSocket clients that a proxy has damaged: without the right settings, most proxies use HTTP/1.0 or omit hop-by-hop headers.

use std::fmt;

use super::{lists, values};

/// What is missing in a damaged request for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenUpgrade {
    /// The request is HTTP/1.0, which has no upgrade.
    Version,
    /// The request has a `Sec-WebSocket-Key`, but no `Upgrade: websocket`.
    Upgrade,
    /// The request has `Upgrade: websocket`, but no `Connection: Upgrade`.
    Connection,
}

impl BrokenUpgrade {
    /// Returns what is missing; `None` if the request is a valid request for a WebSocket, or is for something else. `version`: the minor version, 0 for HTTP/1.0.
    pub(super) fn find(headers: &[httparse::Header<'_>], version: u8) -> Option<Self> {
        let has_upgrade = lists(headers, "Upgrade", "websocket");
        let has_key = values(headers, "Sec-WebSocket-Key").next().is_some();
        if version == 0 && (has_upgrade || has_key) {
            Some(Self::Version)
        } else if !has_upgrade && has_key {
            Some(Self::Upgrade)
        } else if has_upgrade && !lists(headers, "Connection", "Upgrade") {
            Some(Self::Connection)
        } else {
            None
        }
    }
}

/// The text for the log and for the answer.
impl fmt::Display for BrokenUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broken_upgrade = match self {
            Self::Version => "was made with HTTP/1.0, which has no upgrade",
            Self::Upgrade => "has no header \"Upgrade: websocket\"",
            Self::Connection => "has no header \"Connection: Upgrade\"",
        };
        write!(f, "a request for a WebSocket {broken_upgrade}; {PROXY_SETTINGS}")
    }
}

/// The settings that the proxy needs.
pub const PROXY_SETTINGS: &str = "a proxy in front of the broker probably lacks a setting; \
    nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; \
    Apache: upgrade=websocket in ProxyPass (before 2.4.47: mod_proxy_wstunnel)";
