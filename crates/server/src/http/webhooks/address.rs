//! Name resolution for webhooks, and the addresses that are refused: a URL in the configuration, or the name server of its host, must not lead the broker into
//! the local network.
//!
//! The address that is checked is the address that is connected to. So a name whose address changes between two look-ups gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::limits;

/// Returns the addresses of a host to which the broker may connect. `private`: all of them. `lookups` bounds the look-ups at the same time: a look-up cannot be
/// cancelled, and takes a thread until it ends.
pub(super) async fn resolve(
    (host, port): (&str, u16),
    private: bool,
    lookups: &Arc<Semaphore>,
) -> Result<Vec<SocketAddr>, Problem> {
    let found = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => look_up((host.to_owned(), port), lookups).await?,
    };
    let allowed: Vec<_> = found
        .iter()
        .filter(|address| private || is_public(address.ip()))
        .take(limits::WEBHOOK_ADDRESSES)
        .copied()
        .collect();
    match found.first() {
        Some(first) if allowed.is_empty() => Err(Problem::Private(first.ip())),
        Some(_) => Ok(allowed),
        None => Err(Problem::Unknown),
    }
}

async fn look_up(target: (String, u16), lookups: &Arc<Semaphore>) -> Result<Vec<SocketAddr>, Problem> {
    // The semaphore is never closed.
    let permit = lookups.clone().acquire_owned().await.map_err(|_| Problem::Unknown)?;
    let found = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        target.to_socket_addrs().map(Iterator::collect)
    });
    // An error of the task is a panic, which has written its own message.
    found.await.map_err(|_| Problem::Unknown)?.map_err(|_| Problem::Unknown)
}

/// Whether an address is reachable from the internet (the registries of RFC 6890, and the addresses that contain another one).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_refused = match (a, b, c) {
        // This network, private, loopback; multicast and reserved.
        (0 | 10 | 127 | 224.., ..) => true,
        // Shared address space of carriers; link-local; private.
        (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // IETF protocols, documentation, 6to4 relays, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !is_refused
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64: the IPv4 address at the end.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        // IETF protocols (also Teredo) and documentation; 6to4.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for text in [
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.3.1",
            "223.255.255.1",
            "2606:4700::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_refused_unless_it_is_allowed() {
        let lookups = Arc::new(Semaphore::new(1));
        for host in ["localhost", "127.0.0.1", "::1", "169.254.169.254"] {
            assert!(matches!(resolve((host, 80), false, &lookups).await, Err(Problem::Private(_))), "{host}");
            assert!(!resolve((host, 80), true, &lookups).await.unwrap().is_empty(), "{host}");
        }
        assert!(matches!(resolve(("name.invalid", 80), true, &lookups).await, Err(Problem::Unknown)));
    }
}
