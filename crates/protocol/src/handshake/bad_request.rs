//! The reasons why a request head is refused, each with the status and the text of the answer.

use std::fmt;

use wsmb_core::message::BadChannelName;

use crate::limits;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// The request is not HTTP/1; with the error of `httparse`.
    NotHttp(httparse::Error),
    /// The connection begins with a PROXY protocol header, which this listener does not expect.
    ProxyHeader,
    /// The connection begins with a TLS handshake, but its port does not speak TLS.
    Tls,
    /// The request line is longer than [`limits::REQUEST_HEAD`].
    LineTooLong,
    /// The head is longer than [`limits::REQUEST_HEAD`].
    HeadTooLong,
    /// The head has more than [`limits::REQUEST_HEADERS`] headers.
    TooManyHeaders,
    /// `Sec-WebSocket-Version` is missing or not 13.
    Version,
    /// `Sec-WebSocket-Key` is missing, empty or given twice.
    Key,
    /// `Authorization` is given twice.
    AuthorizationTwice,
    /// `topic` or `channel` is given twice, or both are given.
    TopicTwice,
    /// The percent-encoding of the topic is invalid, or the decoded bytes are not UTF-8.
    TopicEncoding,
    /// The topic is not a valid channel name.
    Topic(BadChannelName),
    /// The query has a token.
    TokenInAddress,
    /// `ticket` is given twice.
    TicketTwice,
    /// A subprotocol begins like a token, but the rest is not a text in base64url, or there are two of them.
    TokenProtocol,
    /// A subprotocol has a token, but the client does not offer [`super::SUBPROTOCOL`], so the answer could name no subprotocol.
    TokenAlone,
    /// `receiver` is invalid, for this reason.
    Receiver(&'static str),
    /// `receiver` is longer than [`wsmb_core::limits::NAME_BYTES`].
    ReceiverTooLong,
}

impl BadRequest {
    /// Returns the status of the answer: 400, 414, 426 or 431.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::LineTooLong => 414,
            Self::Version => 426,
            Self::HeadTooLong | Self::TooManyHeaders => 431,
            _ => 400,
        }
    }

    /// Returns additional headers of the answer (RFC 6455 section 4.4).
    #[must_use]
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Version => &[("Sec-WebSocket-Version", "13")],
            _ => &[],
        }
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp(error) => write!(f, "the request is not valid HTTP/1.1: {error}"),
            Self::ProxyHeader => f.write_str(
                "the connection begins with a PROXY protocol header, which this address does not expect; \
                 give the proxy a [[listener]] with proxy_protocol = true, or have it send none",
            ),
            Self::Tls => f.write_str(
                "the client speaks TLS on a port without TLS; use ws:// or http:// in its address, or a listener with TLS (tls = true)",
            ),
            Self::LineTooLong => write!(f, "the request line is longer than {} bytes", limits::REQUEST_HEAD),
            Self::HeadTooLong => write!(f, "the request head is longer than {} bytes", limits::REQUEST_HEAD),
            Self::TooManyHeaders => write!(f, "the request has more than {} headers", limits::REQUEST_HEADERS),
            Self::Version => f.write_str("this server speaks WebSocket version 13 (the header Sec-WebSocket-Version)"),
            Self::Key => f.write_str("the header Sec-WebSocket-Key must be given, once"),
            Self::AuthorizationTwice => f.write_str("the header Authorization is given twice"),
            Self::TopicTwice => f.write_str("the topic is given twice; give 'topic' or 'channel' once"),
            Self::TopicEncoding => f.write_str("the topic is not percent-encoded UTF-8"),
            Self::Topic(BadChannelName::Empty) => {
                f.write_str("the topic is empty; name a channel, or leave 'topic' out for the envelope dialect")
            }
            Self::Topic(bad) => write!(f, "the topic is no channel name: {bad}"),
            Self::TokenInAddress => f.write_str(
                "a token must not be in the address, because proxies and browsers store addresses; send it in the header Authorization: Bearer, \
                 as the subprotocol wsmb.token.BASE64URL, or ask for a ticket",
            ),
            Self::TicketTwice => f.write_str("'ticket' is given twice"),
            Self::TokenProtocol => {
                f.write_str("the subprotocol wsmb.token.… must be given once, with the token in base64url without padding")
            }
            Self::TokenAlone => f.write_str("offer the subprotocol wsmb.v1 beside wsmb.token.…: the broker never repeats a token"),
            Self::Receiver(wrong) => write!(f, "'receiver' {wrong}"),
            Self::ReceiverTooLong => write!(f, "'receiver' is longer than {} bytes", wsmb_core::limits::NAME_BYTES),
        }
    }
}

impl std::error::Error for BadRequest {}
