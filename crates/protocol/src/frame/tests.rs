//! Tests of the codec: each rule of RFC 6455, and streams in pieces of every size.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

/// An owned [`Incoming`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Incoming<'_>> for Item {
    fn from(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Message { kind, frame } => {
                let payload = frame[payload_start(&frame)..].to_vec();
                match kind {
                    Kind::Text => Self::Text(String::from_utf8(payload).unwrap()),
                    Kind::Binary => Self::Binary(payload),
                }
            }
            Incoming::Ping(payload) => Self::Ping(payload.to_vec()),
            Incoming::Pong(payload) => Self::Pong(payload.to_vec()),
            Incoming::Close { code, reason } => Self::Close(code, reason),
        }
    }
}

pub(super) fn text(text: &str) -> Item {
    Item::Text(text.to_owned())
}

/// Decodes `pieces` one after the other, up to a close frame or an error.
pub(super) fn decode<'a>(
    decoder: &mut Decoder,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Item>, Result<(), ProtocolError>) {
    let mut items = Vec::new();
    for piece in pieces {
        let result = decoder.feed(&mut piece.to_vec(), |incoming| {
            let closed = matches!(incoming, Incoming::Close { .. });
            items.push(incoming.into());
            if closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if result.is_err() || matches!(items.last(), Some(Item::Close(..))) {
            return (items, result);
        }
    }
    (items, Ok(()))
}

fn server(stream: &[u8]) -> (Vec<Item>, Result<(), ProtocolError>) {
    decode(&mut Decoder::new(Role::Server, 1 << 20), [stream])
}

fn client(stream: &[u8]) -> (Vec<Item>, Result<(), ProtocolError>) {
    decode(&mut Decoder::new(Role::Client, 1 << 20), [stream])
}

/// Returns a masked frame with this first byte, and the length in one of the three encodings.
pub(super) fn frame(first: u8, payload: &[u8], length_bytes: usize) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let wide = (payload.len() as u64).to_be_bytes();
    let mut out = vec![first];
    match length_bytes {
        8 => out.extend([&[0xff], &wide[..]].concat()),
        2 => out.extend([&[0xfe], &wide[6..]].concat()),
        _ => out.push(0x80 | wide[7]),
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// Returns a masked frame with a short length encoding.
fn short(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, if payload.len() < 126 { 0 } else { 8 })
}

#[test]
fn the_examples_of_rfc_6455_section_5_7() {
    assert_eq!(client(&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]), (vec![text("Hello")], Ok(())));
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(server(&masked), (vec![text("Hello")], Ok(())));
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(client(&fragmented), (vec![text("Hello")], Ok(())));
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(client(&ping), (vec![Item::Ping(b"Hello".to_vec())], Ok(())));
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(server(&pong), (vec![Item::Pong(b"Hello".to_vec())], Ok(())));
    for (header, len) in [(&[0x82, 0x7e, 0x01, 0x00][..], 256), (&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], 65_536)] {
        let stream = [header, &vec![7; len]].concat();
        assert_eq!(client(&stream), (vec![Item::Binary(vec![7; len])], Ok(())));
    }
}

#[test]
fn each_violation_gets_its_close_code() {
    let mut unmasked = short(0x81, b"x");
    unmasked[1] &= 0x7f;
    let mut top_bit = frame(0x82, b"", 8);
    top_bit[2] = 0x80;
    let lone_surrogate = [0xed, 0xa0, 0x80];
    let table: Vec<(&str, Vec<u8>, ProtocolError, u16)> = vec![
        ("rsv1", short(0xc1, b"x"), ProtocolError::ReservedBits, 1002),
        ("rsv2", short(0xa1, b"x"), ProtocolError::ReservedBits, 1002),
        ("rsv3", short(0x91, b"x"), ProtocolError::ReservedBits, 1002),
        ("opcode 3", short(0x83, b"x"), ProtocolError::ReservedOpcode(3), 1002),
        ("opcode 7", short(0x87, b"x"), ProtocolError::ReservedOpcode(7), 1002),
        ("opcode 11", short(0x8b, b"x"), ProtocolError::ReservedOpcode(11), 1002),
        ("opcode 15", short(0x8f, b"x"), ProtocolError::ReservedOpcode(15), 1002),
        ("unmasked", unmasked, ProtocolError::Unmasked, 1002),
        ("fragmented ping", short(0x09, b"x"), ProtocolError::FragmentedControl, 1002),
        ("fragmented close", short(0x08, b""), ProtocolError::FragmentedControl, 1002),
        ("long ping", frame(0x89, &[0; 126], 2), ProtocolError::LongControl, 1002),
        ("long close", frame(0x88, &[0; 126], 8), ProtocolError::LongControl, 1002),
        ("64-bit length, top bit", top_bit, ProtocolError::LengthOutOfRange, 1002),
        ("lone continuation", short(0x80, b"x"), ProtocolError::UnexpectedContinuation, 1002),
        ("lone first continuation", short(0x00, b""), ProtocolError::UnexpectedContinuation, 1002),
        (
            "text within text",
            [short(0x01, b"x"), short(0x81, b"x")].concat(),
            ProtocolError::ExpectedContinuation,
            1002,
        ),
        (
            "binary within binary",
            [short(0x02, b""), short(0x02, b"")].concat(),
            ProtocolError::ExpectedContinuation,
            1002,
        ),
        ("half a close code", short(0x88, &[3]), ProtocolError::HalfCloseCode, 1002),
        ("close reason not UTF-8", short(0x88, &[3, 232, 0xff]), ProtocolError::BadUtf8, 1007),
        ("text not UTF-8", short(0x81, &[b'a', 0xff]), ProtocolError::BadUtf8, 1007),
        ("text with a surrogate", short(0x81, &lone_surrogate), ProtocolError::BadUtf8, 1007),
        ("text that ends within a character", short(0x81, &[0xc3]), ProtocolError::BadUtf8, 1007),
        (
            "fragments that end within a character",
            [short(0x01, b"a"), short(0x80, &[0xc3])].concat(),
            ProtocolError::BadUtf8,
            1007,
        ),
        (
            "an empty last fragment after half a character",
            [short(0x01, &[0xc3]), short(0x80, b"")].concat(),
            ProtocolError::BadUtf8,
            1007,
        ),
        ("a first fragment that is wrong already", short(0x01, &[0xc3, b'a']), ProtocolError::BadUtf8, 1007),
    ];
    for (name, stream, error, code) in table {
        assert_eq!(server(&stream), (vec![], Err(error)), "{name}");
        assert_eq!(error.close_code(), code, "{name}");
        assert!(!error.to_string().is_empty());
        let (items, result) = server(&[short(0x81, b"before"), short(0x89, b"too"), stream].concat());
        assert_eq!((items.len(), result), (2, Err(error)), "{name}: the items before the violation are returned");
    }
    assert_eq!(client(&short(0x81, b"x")), (vec![], Err(ProtocolError::Masked)));
}

#[test]
fn only_valid_close_codes_are_accepted() {
    for code in 0..=u16::MAX {
        let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let (items, result) = server(&short(0x88, &[&code.to_be_bytes()[..], b"bye"].concat()));
        if allowed {
            assert_eq!((items, result), (vec![Item::Close(Some(code), "bye".to_owned())], Ok(())));
        } else {
            assert_eq!((items, result), (vec![], Err(ProtocolError::BadCloseCode(code))));
        }
    }
    assert_eq!(server(&short(0x88, b"")), (vec![Item::Close(None, String::new())], Ok(())));
}

#[test]
fn lengths_with_more_bytes_than_necessary_are_accepted() {
    for length_bytes in [2, 8] {
        for len in [0, 1, 125] {
            let stream = frame(0x82, &vec![9; len], length_bytes);
            assert_eq!(server(&stream), (vec![Item::Binary(vec![9; len])], Ok(())));
            let stream = frame(0x89, &vec![9; len], length_bytes);
            assert_eq!(server(&stream), (vec![Item::Ping(vec![9; len])], Ok(())));
        }
    }
    let php = frame(0x82, &vec![1; 65_535], 8);
    assert_eq!(server(&php).0, [Item::Binary(vec![1; 65_535])]);
}

#[test]
fn control_frames_may_come_between_fragments() {
    let stream = [
        short(0x01, "gr\u{fc}".as_bytes().split_last().unwrap().1),
        short(0x89, b"1"),
        short(0x00, &"\u{fc}".as_bytes()[1..]),
        short(0x8a, b"2"),
        short(0x00, b""),
        short(0x80, b"n"),
        short(0x81, b"next"),
    ]
    .concat();
    let expected = vec![Item::Ping(b"1".to_vec()), Item::Pong(b"2".to_vec()), text("grün"), text("next")];
    assert_eq!(server(&stream), (expected, Ok(())));
}

#[test]
fn a_too_large_message_is_refused_after_its_header() {
    let limit = 100;
    let too_large = Err(ProtocolError::MessageTooLarge(limit));
    let header = |first: u8, len: u64| [&[first, 0xff], &len.to_be_bytes()[..], &[0; 4]].concat();
    let table = [
        (header(0x82, 101), 0),
        (header(0x02, 101), 0),
        (header(0x82, u64::MAX >> 1), 0),
        ([short(0x82, &[0; 100]), header(0x81, 101)].concat(), 1),
        ([short(0x02, &[0; 60]), header(0x00, 41)].concat(), 0),
        ([short(0x02, &[0; 60]), short(0x00, &[0; 40]), short(0x89, b""), header(0x80, 1)].concat(), 1),
    ];
    for (stream, before) in table {
        let (items, result) = decode(&mut Decoder::new(Role::Server, limit), [&stream[..]]);
        assert_eq!((items.len(), result), (before, too_large));
        let (items, result) = decode(&mut Decoder::new(Role::Server, limit), stream.chunks(1));
        assert_eq!((items.len(), result), (before, too_large));
    }
    assert_eq!(ProtocolError::MessageTooLarge(limit).close_code(), 1009);
    let (items, result) =
        decode(&mut Decoder::new(Role::Server, 0), [&[short(0x81, b""), short(0x89, b"p")].concat()[..]]);
    assert_eq!((items.len(), result), (2, Ok(())));
}

#[test]
fn the_number_of_empty_fragments_is_limited() {
    let mut stream = short(0x01, b"");
    for _ in 2..limits::FRAGMENTS {
        stream.extend(short(0x00, b""));
    }
    let whole = [&stream[..], &short(0x80, b"end")].concat();
    assert_eq!(server(&whole), (vec![text("end")], Ok(())));
    let endless = [&stream[..], &short(0x00, b""), &short(0x00, b"")].concat();
    assert_eq!(server(&endless), (vec![], Err(ProtocolError::TooManyFragments)));
    assert_eq!(ProtocolError::TooManyFragments.close_code(), 1009);
}

/// Returns a text message of `bytes` bytes in fragments of `size` bytes.
fn in_fragments(bytes: usize, size: usize) -> Vec<u8> {
    let payload = vec![b'x'; bytes];
    let mut stream = Vec::new();
    let last = bytes.div_ceil(size) - 1;
    for (number, part) in payload.chunks(size).enumerate() {
        let first = u8::from(number == 0) | if number == last { 0x80 } else { 0 };
        stream.extend(short(first, part));
    }
    stream
}

#[test]
fn a_message_of_any_size_may_arrive_in_fragments_of_64_bytes() {
    for bytes in [limits::MAX_MESSAGE, limits::MAX_MESSAGE - 1, limits::MAX_MESSAGE - 63, 8 * limits::MAX_MESSAGE] {
        let stream = in_fragments(bytes, limits::FRAGMENT_BYTES);
        let mut decoder = Decoder::new(Role::Server, bytes);
        let mut most = 0;
        let mut found = 0;
        for piece in stream.chunks(16 << 10) {
            let (items, result) = decode(&mut decoder, [piece]);
            assert_eq!(result, Ok(()));
            found += items.len();
            most = most.max(decoder.unfinished_capacity());
        }
        assert_eq!(found, 1, "{bytes} bytes");
        assert!(most <= 2 * bytes + 64, "{most} bytes are held for {bytes}");
    }
}

#[test]
fn the_number_of_fragments_below_64_bytes_is_limited_by_their_bytes() {
    // The base number of fragments, and one more for each 64 bytes.
    let (size, allowed) = (32, 2 * limits::FRAGMENTS);
    let fits = in_fragments(size * (allowed - 1), size);
    assert_eq!(server(&fits).1, Ok(()));
    let beyond = in_fragments(size * (allowed + 2), size);
    assert_eq!(server(&beyond), (vec![], Err(ProtocolError::TooManyFragments)));
}

#[test]
fn text_fails_at_the_first_invalid_byte() {
    let mut decoder = Decoder::new(Role::Server, 1 << 20);
    let stream = short(0x81, &[&b"ok"[..], &[0xff; 60]].concat());
    assert_eq!(decode(&mut decoder, [&stream[..8]]), (vec![], Ok(())));
    assert_eq!(decode(&mut decoder, [&stream[8..9]]), (vec![], Err(ProtocolError::BadUtf8)));
}

#[test]
fn an_idle_decoder_is_small_and_has_no_heap() {
    assert!(size_of::<Decoder>() <= 64);
    let mut decoder = Decoder::new(Role::Server, 1 << 20);
    assert!(decoder.is_idle());
    let streams = [
        short(0x81, b"x"),
        short(0x89, &[1; 125]),
        [short(0x01, b"x"), short(0x89, b"p"), short(0x80, b"y")].concat(),
        frame(0x82, &[5; 300], 8),
        short(0x82, b""),
    ];
    for stream in &streams {
        decode(&mut decoder, [&stream[..]]).1.unwrap();
        assert!(decoder.is_idle(), "after a whole read");
        decode(&mut decoder, stream[..stream.len() - 1].chunks(1)).1.unwrap();
        assert!(!decoder.is_idle(), "within a frame");
        decode(&mut decoder, [&stream[stream.len() - 1..]]).1.unwrap();
        assert!(decoder.is_idle(), "after the last byte");
    }
}

#[test]
fn the_length_in_a_header_reserves_no_memory() {
    let mut decoder = Decoder::new(Role::Server, 1 << 30);
    let claim = [&[0x82, 0xff], &(1_u64 << 30).to_be_bytes()[..], &[0; 4], b"x"].concat();
    decode(&mut decoder, [&claim[..]]).1.unwrap();
    assert!(decoder.unfinished_capacity() < 64);
}

#[test]
fn a_large_message_in_one_frame_is_copied_rarely_and_holds_little_unused_memory() {
    let (mut decoder, mut stream, mut capacities) = (Decoder::new(Role::Server, 1 << 20), Vec::new(), Vec::new());
    encode_masked_into(&mut stream, Opcode::Binary, &[1; limits::MAX_MESSAGE], [1, 2, 3, 4]);
    for piece in stream[..limits::MAX_MESSAGE].chunks(limits::READ_BUFFER) {
        decode(&mut decoder, [piece]).1.unwrap();
        capacities.push(decoder.unfinished_capacity());
    }
    capacities.dedup();
    assert!(capacities.len() <= 3 && capacities.last() <= Some(&(limits::MAX_MESSAGE + HEADER)), "{capacities:?}");
}

#[test]
fn after_a_break_the_rest_is_dropped() {
    let mut decoder = Decoder::new(Role::Server, 100);
    let mut stream = [short(0x01, b"open"), short(0x89, b""), short(0x80, b"never seen")].concat();
    let mut seen = 0;
    let result = decoder.feed(&mut stream, |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert_eq!((seen, result), (1, Ok(())));
    assert!(decoder.is_idle());
}

#[test]
fn masking_twice_restores_the_bytes_for_every_length() {
    for len in 0..40 {
        let plain: Vec<u8> = (0..len).collect();
        let expected: Vec<u8> = plain.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(a, b)| a ^ b).collect();
        let mut bytes = plain.clone();
        encode::apply_mask(&mut bytes, [1, 2, 3, 4]);
        assert_eq!(bytes, expected);
        encode::apply_mask(&mut bytes, [1, 2, 3, 4]);
        assert_eq!(bytes, plain);
    }
}

#[test]
fn unmasking_detects_bytes_beyond_ascii() {
    for len in 0..40 {
        let mut bytes = vec![0x7f; len];
        encode::apply_mask(&mut bytes, [0xff, 0x80, 1, 0x7f]);
        assert!(encode::apply_mask(&mut bytes, [0xff, 0x80, 1, 0x7f]), "{len}");
        for odd in 0..len {
            let mut bytes = vec![0x7f; len];
            bytes[odd] = 0x80;
            assert!(!encode::apply_mask(&mut bytes, [0; 4]), "{odd} of {len}");
        }
    }
}

#[test]
fn frames_have_the_shortest_encoding() {
    for (len, header) in [
        (0, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 255, 255]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let payload = vec![3; len];
        let frame = encode(Opcode::Binary, &payload);
        assert_eq!(&frame[..header.len()], header);
        assert_eq!(&frame[header.len()..], payload);
        assert_eq!((payload_start(&frame), unmasked_len(&frame)), (header.len(), frame.len()));
        assert_eq!(unmasked_len(&[&frame[..], b"more"].concat()), frame.len());
        let mut masked = Vec::new();
        encode_masked_into(&mut masked, Opcode::Binary, &payload, [1, 2, 3, 4]);
        assert_eq!(server(&masked), (vec![Item::Binary(payload)], Ok(())));
    }
    assert_eq!((payload_start(&[]), unmasked_len(&[])), (0, 0));
    assert_eq!(encode(Opcode::Ping, &[0; 200]).len(), 127);
}

#[test]
fn a_close_reason_is_truncated_at_a_character_boundary() {
    let frame = encode_close(1008, &"ü".repeat(100));
    assert_eq!(frame.len(), 2 + 2 + 122);
    assert_eq!(client(&frame), (vec![Item::Close(Some(1008), "ü".repeat(61))], Ok(())));
    assert_eq!(&encode_close(1001, "")[..], [0x88, 2, 3, 233]);
}

/// Streams that are mostly valid: frames of every kind, with a few changed, removed or inserted bytes.
pub(super) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => "[a-zü€😀]{0,12}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..12),
        1 => prop::collection::vec(any::<u8>(), 120..140),
        1 => (65_530_usize..65_540).prop_map(|len| vec![b'x'; len]),
    ];
    let first = prop_oneof![
        6 => Just(0x81_u8),
        3 => Just(0x82),
        2 => Just(0x01),
        1 => Just(0x02),
        3 => Just(0x00),
        3 => Just(0x80),
        2 => Just(0x89),
        1 => Just(0x8a),
        1 => Just(0x88),
    ];
    let frames =
        prop::collection::vec((first, payload, prop_oneof![6 => Just(0_usize), 1 => Just(2), 1 => Just(8)]), 0..8);
    let change = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..3);
    (frames, prop_oneof![Just(true), Just(false)], change).prop_map(|(frames, mutate, changes)| {
        let mut out = Vec::new();
        for (first, mut payload, length_bytes) in frames {
            if first >= 0x88 {
                payload.truncate(125);
            }
            if first == 0x88 && payload.len() >= 2 {
                payload[..2].copy_from_slice(&[3, 232]);
            }
            let needed = if payload.len() < 126 {
                0
            } else if payload.len() < 65_536 {
                2
            } else {
                8
            };
            out.extend(frame(first, &payload, length_bytes.max(needed)));
        }
        for (at, byte, what) in changes.into_iter().filter(|_| mutate) {
            if out.is_empty() {
                break;
            }
            // Mostly near the beginning of a frame, so that headers are changed.
            let at = at.index(out.len().min(64));
            match what {
                0 => out[at] = byte,
                1 => out[at] ^= 1 << (byte % 8),
                2 => drop(out.remove(at)),
                _ => out.insert(at, byte),
            }
        }
        out
    })
}

/// Two fragments of a text that is split at any byte. The other strategy seldom makes valid fragments.
fn joined() -> impl Strategy<Value = Vec<u8>> {
    ("[a-zü€😀]{1,12}", any::<prop::sample::Index>(), any::<bool>()).prop_map(|(text, at, ping)| {
        let (start, end) = text.as_bytes().split_at(at.index(text.len()));
        let between = if ping { short(0x89, b"between") } else { Vec::new() };
        [short(0x01, start), between, short(0x80, end), short(0x81, b"after")].concat()
    })
}

proptest! {
    #[test]
    fn the_items_do_not_depend_on_the_pieces_of_the_stream(
        stream in prop_oneof![stream(), joined()],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = decode(&mut Decoder::new(Role::Server, 70_000), [&stream[..]]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let mut decoder = Decoder::new(Role::Server, 70_000);
        prop_assert_eq!(&decode(&mut decoder, cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]])), &whole);
        if stream.len() < 1_000 {
            let mut decoder = Decoder::new(Role::Server, 70_000);
            prop_assert_eq!(decode(&mut decoder, stream.chunks(1)), whole);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
        for role in [Role::Server, Role::Client] {
            let _ = decode(&mut Decoder::new(role, 1_000), pieces.iter().map(|piece| &piece[..]));
        }
    }
}
