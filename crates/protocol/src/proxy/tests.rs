//! Tests of the headers of proxies byte for byte, of refused headers, and that a client cannot forge the address from a trusted proxy.

use proptest::prelude::*;

use super::header::{is_header, parse};
use super::*;
use crate::limits;
use wsmb_core::network::{Network, Networks};

fn socket(text: &str) -> std::net::SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("no address: {text}"))
}

fn trusted(networks: &[&str]) -> Networks {
    networks.iter().map(|text| Network::parse(text).unwrap()).collect()
}

/// Returns a header of version 2.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    [&address("2001:db8::1")[..], &address("2001:db8::2"), &[0xdc, 0x04, 0x01, 0xbb]].concat()
}

/// Returns headers, each with the client that it names.
fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    vec![
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n".to_vec(), Some("192.0.2.1:56324")),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n".to_vec(), Some("[2001:db8::1]:56324")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff:f...f ffff:f...f 65535 65535\r\n".to_vec(), None),
        (version_2(0x21, 0x11, V4), Some("192.0.2.1:56324")),
        (version_2(0x21, 0x12, V4), Some("192.0.2.1:56324")),
        (version_2(0x21, 0x21, &v6()), Some("[2001:db8::1]:56324")),
        (version_2(0x21, 0x11, &[V4, &[0x04, 0, 2, 7, 7][..]].concat()), Some("192.0.2.1:56324")),
        (version_2(0x21, 0x31, &[b'/'; 216]), None),
        (version_2(0x21, 0x00, b""), None),
        (version_2(0x20, 0x00, b""), None),
        (version_2(0x20, 0x11, V4), None),
        (version_2(0x20, 0x11, b"short"), None),
    ]
}

#[test]
fn a_header_gives_the_client_and_its_own_length() {
    for (bytes, client) in headers() {
        let expected = Header { source: client.map(socket), length: bytes.len() };
        assert_eq!(parse(&bytes), Ok(Some(expected)), "{}", bytes.escape_ascii());
        assert_eq!(parse(&[&bytes[..], b"GET / HTTP/1.1\r\n"].concat()), Ok(Some(expected)));
        assert!(is_header(&bytes));
    }
}

#[test]
fn a_header_may_arrive_in_any_pieces() {
    for (bytes, _) in headers() {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{}", bytes[..end].escape_ascii());
        }
    }
}

#[test]
fn an_invalid_header_is_refused_at_the_first_invalid_byte() {
    for start in ["G", "GET / HTTP/1.1\r\n\r\n", "P0", "PROXX", "\r\n\r\nX", "\x16\x03\x01", "\r\n\r\n\0\r\nQUIT "] {
        assert_eq!(parse(start.as_bytes()), Err(BadHeader::Missing), "{start:?}");
        assert!(!is_header(start.as_bytes()));
    }
    for line in [
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 2001:db8::1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY \r\n",
    ] {
        assert!(matches!(parse(line.as_bytes()), Err(BadHeader::Malformed(_))), "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(&endless.as_bytes()[..106]), Ok(None));
    assert!(matches!(parse(&endless.as_bytes()[..107]), Err(BadHeader::Malformed(_))));
    for (command, family, rest) in [
        (0x11, 0x11, V4),
        (0x31, 0x11, V4),
        (0x22, 0x11, V4),
        (0x21, 0x13, V4),
        (0x21, 0x41, V4),
        (0x21, 0x11, &V4[1..]),
        (0x21, 0x21, V4),
    ] {
        let bytes = version_2(command, family, rest);
        assert!(matches!(parse(&bytes), Err(BadHeader::Malformed(_))), "{command:x} {family:x}");
    }
    let long = version_2(0x21, 0x11, &vec![0; limits::PROXY_HEADER]);
    assert_eq!(parse(&long[..16]), Err(BadHeader::TooLong(limits::PROXY_HEADER + 16)));
}

/// Returns the client for these header lines. The peer is 10.0.0.1:5; the networks 10.0.0.0/8 and 2001:db8:a::/48 are trusted.
fn claim(lines: &[(&str, &str)]) -> Claim {
    let forwarding = Forwarding::of(lines.iter().map(|(name, value)| (*name, value.as_bytes())));
    forwarding.client(socket("10.0.0.1:5"), &trusted(&["10.0.0.0/8", "2001:db8:a::/48"]))
}

#[test]
fn the_client_is_the_nearest_address_that_is_not_trusted() {
    let x = "X-Forwarded-For";
    let f = "Forwarded";
    for (lines, client) in [
        (&[][..], "10.0.0.1:5"),
        (&[(x, "192.0.2.1")], "192.0.2.1:0"),
        (&[("x-forwarded-for", "192.0.2.1")], "192.0.2.1:0"),
        (&[(x, "6.6.6.6, 192.0.2.1")], "192.0.2.1:0"),
        (&[(x, "6.6.6.6,192.0.2.1 , 10.0.0.2,10.0.0.3")], "192.0.2.1:0"),
        (&[(x, "6.6.6.6"), ("Host", "h"), (x, "192.0.2.1")], "192.0.2.1:0"),
        (&[(x, "192.0.2.1"), (x, "10.0.0.2")], "192.0.2.1:0"),
        (&[(x, "192.0.2.1:4711")], "192.0.2.1:4711"),
        (&[(x, "2001:db8::1")], "[2001:db8::1]:0"),
        (&[(x, "[2001:db8::1]")], "[2001:db8::1]:0"),
        (&[(x, "[2001:db8::1]:4711, 2001:db8:a::7")], "[2001:db8::1]:4711"),
        (&[(x, "::ffff:192.0.2.1, ::ffff:10.0.0.2")], "192.0.2.1:0"),
        (&[(x, "10.0.0.9, 10.0.0.8")], "10.0.0.9:0"),
        (&[(x, "192.0.2.1,,")], "192.0.2.1:0"),
        (&[(x, "")], "10.0.0.1:5"),
        (&[(x, "6.6.6.6, unknown")], "10.0.0.1:5"),
        (&[(x, "6.6.6.6, unknown, 10.0.0.2")], "10.0.0.2:0"),
        (&[(x, "6.6.6.6, nonsense")], "10.0.0.1:5"),
        (&[(f, "for=192.0.2.1")], "192.0.2.1:0"),
        (&[(f, "FOR=192.0.2.1;proto=https;by=10.0.0.1")], "192.0.2.1:0"),
        (&[(f, "for=6.6.6.6, by=1.1.1.1; for = \"192.0.2.1:80\", for=10.0.0.2")], "192.0.2.1:80"),
        (&[(f, "for=\"[2001:db8::1]:4711\"")], "[2001:db8::1]:4711"),
        (&[(f, "for=\"[2001:db8::1]:_x\"")], "[2001:db8::1]:0"),
        (&[(f, "for=\"192.0.2.1:_x\"")], "192.0.2.1:0"),
        (&[(f, "for=\"192.0.\\2.1\"")], "192.0.2.1:0"),
        (&[(f, "for=6.6.6.6, for=_hidden")], "10.0.0.1:5"),
        (&[(f, "for=6.6.6.6, for=unknown")], "10.0.0.1:5"),
        (&[(f, "for=6.6.6.6, proto=https")], "10.0.0.1:5"),
        (&[(f, "for=6.6.6.6;for=192.0.2.1")], "10.0.0.1:5"),
        (&[(f, "for=\"a, for=b\", for=192.0.2.1")], "192.0.2.1:0"),
        (&[(f, "x=\";for=6.6.6.6;\";for=192.0.2.1")], "192.0.2.1:0"),
        (&[(f, "for=\"6.6.6.6, for=192.0.2.1")], "10.0.0.1:5"),
        (&[(f, "for=192.0.2.1"), (x, "192.0.2.1")], "192.0.2.1:0"),
    ] {
        assert_eq!(claim(lines), Claim { address: socket(client), is_contradictory: false }, "{lines:?}");
    }
}

#[test]
fn two_headers_with_different_clients_are_both_ignored() {
    let lines = [("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "192.0.2.1")];
    assert_eq!(claim(&lines), Claim { address: socket("10.0.0.1:5"), is_contradictory: true });
}

#[test]
fn the_headers_of_an_untrusted_peer_are_ignored() {
    let x = ("X-Forwarded-For", &b"10.0.0.2"[..]);
    let f = ("Forwarded", &b"for=1.1.1.1"[..]);
    let peer = socket("192.0.2.9:5");
    for lines in [&[x][..], &[f], &[x, f]] {
        let forwarding = Forwarding::of(lines.iter().copied());
        for networks in [trusted(&["10.0.0.0/8"]), Networks::default()] {
            let claim = forwarding.client(peer, &networks);
            assert_eq!(claim, Claim { address: peer, is_contradictory: false }, "{lines:?}");
        }
        assert!(forwarding.is_forwarded && forwarding.names_client());
    }
}

#[test]
fn a_request_is_forwarded_if_it_has_one_of_three_headers() {
    for name in ["Forwarded", "X-Forwarded-For", "Via", "via", "FORWARDED"] {
        assert!(Forwarding::of([(name, &b""[..])].into_iter()).is_forwarded, "{name}");
    }
    for name in ["X-Forwarded-Proto", "Host", "Vi", "X-Real-IP"] {
        assert_eq!(Forwarding::of([(name, &b"1.1.1.1"[..])].into_iter()), Forwarding::default(), "{name}");
    }
}

#[test]
fn the_number_of_hops_is_limited() {
    let list = format!("192.0.2.1{}", ", 10.0.0.2".repeat(limits::FORWARDED_HOPS));
    assert_eq!(claim(&[("X-Forwarded-For", &list)]).address, socket("10.0.0.2:0"));
    let list = format!("192.0.2.1{}", ", 10.0.0.2".repeat(limits::FORWARDED_HOPS - 1));
    assert_eq!(claim(&[("X-Forwarded-For", &list)]).address, socket("192.0.2.1:0"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,60}") {
        let _ = parse(&bytes);
        let _ = parse(format!("PROXY {text}").as_bytes());
        let _ = parse(&version_2(0x21, bytes.first().copied().unwrap_or(0), &bytes));
        let _ = claim(&[("Forwarded", &text), ("X-Forwarded-For", &text)]);
    }

    /// A client may send any header. Only the address that the proxy appends counts.
    #[test]
    fn a_client_forges_no_address(forged in "[0-9a-f.:,;=\"\\\\for\\[\\] ]{0,60}", own_line: bool, quoted: bool) {
        let (name, honest) = if quoted {
            ("Forwarded", "for=192.0.2.1;proto=https")
        } else {
            ("X-Forwarded-For", "192.0.2.1")
        };
        let joined = format!("{forged}, {honest}");
        let claimed = if own_line { claim(&[(name, &forged), (name, honest)]) } else { claim(&[(name, &joined)]) };
        // Invalid text from the client may hide its address; then the address of the proxy counts. It never gives another address.
        let told = claimed.address;
        prop_assert!(told == socket("192.0.2.1:0") || (quoted && !own_line && told == socket("10.0.0.1:5")), "{told}");
    }

    #[test]
    fn any_header_of_version_1_is_read_back(source: std::net::SocketAddr, target: std::net::SocketAddr) {
        prop_assume!(source.is_ipv4() == target.is_ipv4());
        let kind = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {kind} {} {} {} {}\r\n", source.ip(), target.ip(), source.port(), target.port());
        let header = parse(line.as_bytes()).unwrap().unwrap();
        prop_assert_eq!((header.source.map(|s| (s.ip(), s.port())), header.length), (Some((source.ip(), source.port())), line.len()));
    }
}
