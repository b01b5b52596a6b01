//! Requests that a WebSocket client has sent and that a proxy has spoilt on the way: most proxies speak HTTP/1.0 to a server, or leave out the
//! headers that concern one connection only, unless a setting says otherwise.

use std::fmt;

use super::{lists, values};

/// What is missing for a WebSocket in a request that was meant to ask for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// It is HTTP/1.0, which has no upgrade.
    Version,
    /// It has a `Sec-WebSocket-Key`, and no `Upgrade: websocket`.
    Upgrade,
    /// It has `Upgrade: websocket`, and no `Connection: Upgrade`.
    Connection,
}

impl Missed {
    /// `version` is the minor one: 0 for HTTP/1.0. `None`: the request asks for a WebSocket as it should, or for something else.
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

/// A sentence without its end, as it is logged and answered.
impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missed = match self {
            Self::Version => "was made with HTTP/1.0, which has no upgrade",
            Self::Upgrade => "has no header \"Upgrade: websocket\"",
            Self::Connection => "has no header \"Connection: Upgrade\"",
        };
        write!(f, "a request for a WebSocket {missed}; {SETTINGS}")
    }
}

/// What to write into the configuration of the proxy.
pub const SETTINGS: &str = "a proxy in front of the broker probably lacks a setting; \
    nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; \
    Apache: upgrade=websocket in ProxyPass (before 2.4.47: mod_proxy_wstunnel)";
