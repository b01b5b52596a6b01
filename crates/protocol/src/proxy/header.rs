//! Parses the header of the PROXY protocol, versions 1 and 2. A TCP proxy sends this header at the beginning of a connection
//! (<https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>, section 2).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits;

/// The beginning of version 1, a line of text.
const VERSION_1: &[u8] = b"PROXY ";

/// The beginning of version 2, a binary header.
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1 with its line ending, in bytes (section 2.1).
const LINE: usize = 107;

/// The size of the fixed part of version 2, in bytes: the signature, version and command, family and transport, and the length of the rest.
const FIXED: usize = 16;

/// A complete PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The address of the client. `None` if the proxy itself made the connection (`LOCAL`, a health check), or if the client has no IP address (`UNKNOWN`, a
    /// Unix socket).
    pub source: Option<SocketAddr>,
    /// The length of the header in bytes. The data of the client follows.
    pub length: usize,
}

/// Why the first bytes of a connection are not a valid PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// The connection does not begin with a PROXY header.
    Missing,
    /// The header announces this number of bytes: more than [`limits::PROXY_HEADER`].
    TooLong(usize),
    /// The header is malformed, for this reason.
    Malformed(&'static str),
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the connection does not begin with a PROXY protocol header"),
            Self::TooLong(length) => {
                write!(f, "the PROXY protocol header has {length} bytes, more than {}", limits::PROXY_HEADER)
            }
            Self::Malformed(wrong) => write!(f, "the PROXY protocol header is malformed: {wrong}"),
        }
    }
}

impl std::error::Error for BadHeader {}

/// Whether a connection begins with a PROXY header, valid or not.
#[must_use]
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(VERSION_1) || bytes.starts_with(VERSION_2)
}

/// Parses the PROXY header at the beginning of `bytes`. Returns `None` if it is incomplete.
///
/// # Errors
/// The bytes are not the beginning of a valid header.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    if bytes.starts_with(VERSION_1) {
        version_1(bytes)
    } else if bytes.starts_with(VERSION_2) {
        version_2(bytes)
    } else if VERSION_1.starts_with(bytes) || VERSION_2.starts_with(bytes) {
        Ok(None)
    } else {
        Err(BadHeader::Missing)
    }
}

/// Parses version 1, for example `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n`.
fn version_1(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let malformed = |wrong| Err(BadHeader::Malformed(wrong));
    let visible = &bytes[..bytes.len().min(LINE)];
    let Some(end) = visible.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE { Ok(None) } else { malformed("its line does not end within 107 bytes") };
    };
    let Ok(line) = std::str::from_utf8(&visible[VERSION_1.len()..end]) else {
        return malformed("its line is no text");
    };
    let length = end + 2;
    let mut words = line.split(' ');
    let is_v4 = match words.next() {
        Some("UNKNOWN") => return Ok(Some(Header { source: None, length })),
        Some("TCP4") => true,
        Some("TCP6") => false,
        _ => return malformed("the protocol is none of TCP4, TCP6 and UNKNOWN"),
    };
    let (Some(source), Some(target), Some(port), Some(target_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return malformed("its line does not have two addresses and two ports");
    };
    let address = |text: &str| text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == is_v4);
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (Some(source), Some(_)) = (address(source), address(target)) else {
        return malformed("an address is not one of the protocol that it names");
    };
    let (Some(port), Some(_)) = (number(port), number(target_port)) else {
        return malformed("a port is not a number up to 65535");
    };
    Ok(Some(Header { source: Some(SocketAddr::new(source, port)), length }))
}

fn version_2(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let malformed = |wrong| Err(BadHeader::Malformed(wrong));
    let Some(fixed) = bytes.get(VERSION_2.len()..FIXED) else { return Ok(None) };
    let (command, family) = (fixed[0], fixed[1]);
    if command >> 4 != 2 {
        return malformed("its version is not 2");
    }
    // The lower half is the transport: none, stream or datagram. The format of the addresses does not depend on it.
    if family & 15 > 2 {
        return malformed("its transport is unknown");
    }
    let is_local = match command & 15 {
        0 => true,
        1 => false,
        _ => return malformed("its command is neither LOCAL nor PROXY"),
    };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if length > limits::PROXY_HEADER {
        return Err(BadHeader::TooLong(length));
    }
    let Some(rest) = bytes.get(FIXED..length) else { return Ok(None) };
    // After the addresses there are fields of type, length and value (TLS, names, checksums). The broker does not need them.
    let source = match family >> 4 {
        // The specification demands to skip the addresses of LOCAL.
        _ if is_local => None,
        0 => None,
        1 => match rest {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                let address = Ipv4Addr::new(*a, *b, *c, *d);
                Some(SocketAddr::new(address.into(), u16::from_be_bytes([*high, *low])))
            }
            _ => return malformed("it is too short for its addresses"),
        },
        2 => match (rest.first_chunk::<16>(), rest.get(32..36)) {
            (Some(address), Some(ports)) => {
                Some(SocketAddr::new(Ipv6Addr::from(*address).into(), u16::from_be_bytes([ports[0], ports[1]])))
            }
            _ => return malformed("it is too short for its addresses"),
        },
        3 => None,
        _ => return malformed("its address family is unknown"),
    };
    Ok(Some(Header { source, length }))
}
