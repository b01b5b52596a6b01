//! IP networks, for example those of trusted peers. No sockets.
//!
//! An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) counts as the IPv4 address, because a socket that listens on `[::]` reports IPv4 peers
//! in this form.

pub mod groups;

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that begin with the same bits, for example `10.0.0.0/8`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Canonical; the bits after the prefix are zero.
    first: IpAddr,
    prefix: u32,
}

/// The reason why a text is not a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadNetwork {
    /// The text is neither an address nor an address, a slash and a number.
    Form,
    /// The number after the slash is larger than this number of bits of an address.
    Prefix(u32),
    /// The address has bits after the prefix. Holds the network with these bits cleared, which the user probably meant.
    Host(Network),
}

impl Network {
    /// [`BadNetwork`] names the mistake.
    pub fn parse(text: &str) -> Result<Self, BadNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork::Form)?;
        let bits = bits_of(address);
        let mut prefix = match prefix {
            Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok().filter(|prefix| *prefix <= bits).ok_or(BadNetwork::Prefix(bits))?
            }
            Some(_) => return Err(BadNetwork::Form),
            None => bits,
        };
        let canonical = address.to_canonical();
        let inside = bits - bits_of(canonical);
        let address = if prefix >= inside {
            prefix -= inside;
            canonical
        } else {
            address
        };
        let network = Self { first: masked(address, prefix), prefix };
        if network.first == address { Ok(network) } else { Err(BadNetwork::Host(network)) }
    }

    /// Whether the address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.prefix) == self.first
    }

    /// Whether the network contains every address of its family.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == bits_of(self.first) { self.first.fmt(f) } else { write!(f, "{}/{}", self.first, self.prefix) }
    }
}

fn bits_of(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Returns the address with all bits after the prefix cleared.
fn masked(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

/// Returns the network that counts as one client: the /64 network of an IPv6 address, because a provider assigns at least a /64 to each customer,
/// or the IPv4 address itself. An IPv4-mapped address counts as IPv4.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v6 @ IpAddr::V6(_) => masked(v6, 64),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Returns the larger network in which one party may have very many addresses: IPv6 /48, which providers and tunnel brokers assign to one site, or
/// IPv4 /16.
#[must_use]
pub fn provider_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v6 @ IpAddr::V6(_) => masked(v6, 48),
        v4 @ IpAddr::V4(_) => masked(v4, 16),
    }
}

/// A list of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether one of the networks contains the address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the networks in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.0.iter()
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap_or_else(|bad| panic!("{text}: {bad:?}"))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_networks_contain_what_begins_with_their_bits() {
        for (text, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("::1", "::1", "::2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("::ffff:0.0.0.0/96", "1.2.3.4", "::1"),
        ] {
            assert!(network(text).contains(address(inside)), "{inside} in {text}");
            assert!(!network(text).contains(address(outside)), "{outside} in {text}");
        }
    }

    #[test]
    fn an_invalid_network_is_refused_with_the_reason() {
        for text in ["", "localhost", "10.0.0", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/+8", "/8", "[::1]", "127.0.0.1:80"]
        {
            assert_eq!(Network::parse(text), Err(BadNetwork::Form), "{text}");
        }
        assert_eq!(Network::parse("10.0.0.0/33"), Err(BadNetwork::Prefix(32)));
        assert_eq!(Network::parse("::/129"), Err(BadNetwork::Prefix(128)));
        assert_eq!(Network::parse("10.1.2.3/8"), Err(BadNetwork::Host(network("10.0.0.0/8"))));
    }

    #[test]
    fn a_network_is_written_as_it_is_read() {
        for text in ["192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("::ffff:10.0.0.0/104").to_string(), "10.0.0.0/8");
        assert!(network("::/0").is_everything() && !network("::/1").is_everything());
    }

    #[test]
    fn addresses_of_one_client_have_the_same_network() {
        let of = |text| client_network(address(text));
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        let near = |text| provider_network(address(text));
        assert_eq!(near("2001:db8:1:2::1"), near("2001:db8:1:ffff::1"));
        assert_ne!(near("2001:db8:1::1"), near("2001:db8:2::1"));
        assert_eq!((near("::ffff:192.0.2.1"), near("192.0.77.7")), (address("192.0.0.0"), address("192.0.0.0")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:./]{0,30}") {
            if let Ok(network) = Network::parse(&text) {
                prop_assert_eq!(Network::parse(&network.to_string()), Ok(network));
            }
        }

        #[test]
        fn a_network_contains_exactly_the_addresses_with_its_bits(bits: u32, prefix in 0_u32..=32, other: u32) {
            let (first, other) = (Ipv4Addr::from_bits(bits), Ipv4Addr::from_bits(other));
            let network = match Network::parse(&format!("{first}/{prefix}")) {
                Ok(network) | Err(BadNetwork::Host(network)) => network,
                bad => panic!("{bad:?}"),
            };
            let same = (first.to_bits() ^ other.to_bits()).leading_zeros() >= prefix;
            prop_assert_eq!(network.contains(other.into()), same);
            prop_assert_eq!(network.contains(other.to_ipv6_mapped().into()), same);
        }
    }
}
