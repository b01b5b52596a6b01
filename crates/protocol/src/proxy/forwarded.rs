//! Parses `X-Forwarded-For` and `Forwarded` (RFC 7239), and finds the address of the client.
//!
//! Each proxy appends the address of its own client. So the last address is the nearest. Never uses an address that no trusted proxy has appended.

use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;

use crate::limits;
use wsmb_core::network::Networks;

/// An address that a proxy has appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// An address. The port is 0 if the proxy wrote none. An IPv4-mapped IPv6 address is converted to IPv4.
    Address(SocketAddr),
    /// The proxy hides the address (`unknown`, `_hidden`), or wrote no valid address.
    Hidden,
}

/// The addresses that proxies have added to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Whether the request has `Forwarded`, `X-Forwarded-For` or `Via`: a trusted or untrusted proxy has forwarded it.
    pub is_forwarded: bool,
    /// The last [`limits::FORWARDED_HOPS`] addresses of `X-Forwarded-For`, the nearest first; `None` without this header.
    x_forwarded_for: Option<Vec<Hop>>,
    /// The last [`limits::FORWARDED_HOPS`] addresses of `Forwarded`, the nearest first; `None` without this header.
    forwarded: Option<Vec<Hop>>,
}

/// The address of the client, according to trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address of the client, or of the peer if no trusted proxy names a client.
    pub address: SocketAddr,
    /// Whether `X-Forwarded-For` and `Forwarded` name different clients. The proxy then writes one header and forwards the other one, which a client can
    /// forge, so neither is used.
    pub is_contradictory: bool,
}

impl Forwarding {
    /// Parses the headers of a request. `headers`: names and values in their order.
    pub fn of<'a>(headers: impl DoubleEndedIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut forwarding = Self::default();
        // From the last header to the first: several headers of one name form one list.
        for (name, value) in headers.rev() {
            let (list, read): (_, fn(&str, &mut Vec<Hop>)) = if name.eq_ignore_ascii_case("X-Forwarded-For") {
                (&mut forwarding.x_forwarded_for, x_forwarded_for)
            } else if name.eq_ignore_ascii_case("Forwarded") {
                (&mut forwarding.forwarded, forwarded)
            } else {
                forwarding.is_forwarded |= name.eq_ignore_ascii_case("Via");
                continue;
            };
            forwarding.is_forwarded = true;
            let hops = list.get_or_insert_default();
            match std::str::from_utf8(value) {
                Ok(text) => read(text, hops),
                Err(_) => hops.push(Hop::Hidden),
            }
            hops.truncate(limits::FORWARDED_HOPS);
        }
        forwarding
    }

    /// Whether the request has a header that can name a client.
    #[must_use]
    pub fn names_client(&self) -> bool {
        self.x_forwarded_for.is_some() || self.forwarded.is_some()
    }

    /// Returns the client behind `peer`: the nearest address that is not trusted, or the farthest address that a trusted proxy has appended.
    #[must_use]
    pub fn client(&self, peer: SocketAddr, trusted: &Networks) -> Claim {
        let nearest = |hops: &Option<Vec<Hop>>| hops.as_deref().map(|hops| nearest_untrusted(peer, hops, trusted));
        match (nearest(&self.x_forwarded_for), nearest(&self.forwarded)) {
            (Some(one), Some(other)) if one.ip() != other.ip() => Claim { address: peer, is_contradictory: true },
            (one, other) => Claim { address: one.or(other).unwrap_or(peer), is_contradictory: false },
        }
    }
}

fn nearest_untrusted(peer: SocketAddr, hops: &[Hop], trusted: &Networks) -> SocketAddr {
    let mut client = peer;
    for hop in hops {
        if !trusted.contain(client.ip()) {
            break;
        }
        match hop {
            Hop::Address(address) => client = *address,
            Hop::Hidden => break,
        }
    }
    client
}

/// Appends the addresses of an `X-Forwarded-For` list, the last one first. Empty elements are skipped (RFC 9110 section 5.6.1).
fn x_forwarded_for(list: &str, hops: &mut Vec<Hop>) {
    let elements = list.rsplit(',').map(str::trim).filter(|element| !element.is_empty());
    hops.extend(elements.take(limits::FORWARDED_HOPS).map(node));
}

/// Appends the addresses of a `Forwarded` list, the last one first. An element is for example `for="[2001:db8::17]:4711";proto=https`.
fn forwarded(list: &str, hops: &mut Vec<Hop>) {
    let Some(elements) = split(list, ',') else {
        // A quoted string is unterminated, so the ends of the elements are unknown.
        hops.push(Hop::Hidden);
        return;
    };
    let elements = elements.into_iter().rev().map(str::trim).filter(|element| !element.is_empty());
    hops.extend(elements.take(limits::FORWARDED_HOPS).map(|element| sender(element).unwrap_or(Hop::Hidden)));
}

/// Returns the address in the `for=` of an element; `None` if the element has no `for=` or several.
fn sender(element: &str) -> Option<Hop> {
    let mut found = None;
    for pair in split(element, ';')? {
        let Some((name, value)) = pair.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("for") && found.replace(value.trim()).is_some() {
            return None;
        }
    }
    found.and_then(unquoted).map(|value| node(&value))
}

/// Splits a text at separators outside of quoted strings. Returns `None` if a quoted string is unterminated.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if character == separator && !is_quoted => {
                parts.push(&text[start..at]);
                start = at + separator.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!is_quoted).then_some(parts)
}

/// Returns a value without its quotes and escapes (RFC 9110 section 5.6.4).
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(rest) = value.strip_prefix('"') else { return Some(Cow::Borrowed(value)) };
    let inner = rest.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let (mut plain, mut is_escaped) = (String::with_capacity(inner.len()), false);
    for character in inner.chars() {
        is_escaped = character == '\\' && !is_escaped;
        if !is_escaped {
            plain.push(character);
        }
    }
    Some(Cow::Owned(plain))
}

/// Parses a node (RFC 7239 section 6), also in the forms that proxies use: `192.0.2.7`, `192.0.2.7:4711`, `[2001:db8::17]:4711`, `2001:db8::17`.
fn node(text: &str) -> Hop {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    let found = if let Some(rest) = text.strip_prefix('[') {
        rest.split_once(']').and_then(|(inner, rest)| {
            let port = if rest.is_empty() { Some(0) } else { rest.strip_prefix(':').and_then(port) };
            address(inner).filter(IpAddr::is_ipv6).zip(port)
        })
    } else if let Some(whole) = address(text) {
        Some((whole, 0))
    } else {
        text.split_once(':').and_then(|(host, rest)| address(host).zip(port(rest)))
    };
    found.map_or(Hop::Hidden, |(address, port)| Hop::Address(SocketAddr::new(address.to_canonical(), port)))
}

/// Parses a port. A hidden port (`_x7`) is 0.
fn port(text: &str) -> Option<u16> {
    if text.starts_with('_') {
        return Some(0);
    }
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
