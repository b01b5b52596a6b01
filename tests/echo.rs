//! The handshake and the frame codec over real sockets, with the kinds of cases of Autobahn's suite. `examples/echo.rs` is the server,
//! and this file is the client, which encodes and decodes frames with code of its own.
//!
//! Each stream is sent in one write and, if it is short, byte by byte; the replies must be the same. The server must end the connection,
//! because the client does not close its half. So a violation that the server notices too late fails a test, even if the answer is right.

#[allow(dead_code, reason = "its main function and the echo through a broker are not used here")]
#[path = "../examples/echo.rs"]
mod echo;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

/// The timeout of every read.
const PATIENCE: Duration = Duration::from_secs(20);
/// Streams up to this length are sent byte by byte as well.
const SHORT: usize = 2_000;
/// The number of failures after which a test stops.
const FAILURES: usize = 4;

/// First bytes of whole frames.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// First bytes of fragments.
const TEXT_BEGINS: u8 = 0x01;
const BINARY_BEGINS: u8 = 0x02;
const CONTINUES: u8 = 0x00;
const ENDS: u8 = 0x80;

/// A reply: the first byte of its frame, and its payload.
type Reply = (u8, Vec<u8>);

/// The bytes that the client sends, and the replies that must come before the server ends the connection.
struct Case {
    name: String,
    stream: Vec<u8>,
    replies: Vec<Reply>,
}

fn case(name: impl Into<String>, stream: impl Into<Vec<u8>>, replies: impl Into<Vec<Reply>>) -> Case {
    Case { name: name.into(), stream: stream.into(), replies: replies.into() }
}

/// A case that the client ends with a close frame.
fn good(name: impl Into<String>, stream: &[u8], replies: &[Reply]) -> Case {
    let stream = [stream, &close(1000)].concat();
    case(name, stream, [replies, &[closed(1000)]].concat())
}

/// A violation after a message, which must be echoed, and before a ping, which must not be answered.
fn bad(name: impl Into<String>, violation: &[u8], code: u16) -> Case {
    let stream = [&frame(TEXT, b"before"), violation, &frame(PING, b"behind")].concat();
    case(name, stream, [(TEXT, b"before".to_vec()), closed(code)])
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A message in fragments of `size` bytes.
fn fragments(first: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let last = payload.len().div_ceil(size) - 1;
    let parts = payload.chunks(size).enumerate();
    parts
        .flat_map(|(at, part)| frame(if at == 0 { first } else { 0 } | if at == last { 0x80 } else { 0 }, part))
        .collect()
}

fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes())
}

fn closed(code: u16) -> Reply {
    (CLOSE, code.to_be_bytes().to_vec())
}

/// The address of the server that all tests share.
fn server() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the address");
        std::thread::spawn(move || echo::serve(&listener));
        address
    })
}

/// Sends `pieces`, one write each, and reads until the server ends the connection.
fn exchange<'a>(pieces: impl Iterator<Item = &'a [u8]> + Send) -> Result<Vec<u8>, String> {
    let mut socket = TcpStream::connect(server()).map_err(|error| error.to_string())?;
    socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(PATIENCE))).expect("options");
    let mut writer = socket.try_clone().expect("a second handle");
    std::thread::scope(|scope| {
        // A thread writes, because an echo may fill the buffers of both sockets.
        scope.spawn(move || {
            for piece in pieces {
                if writer.write_all(piece).is_err() {
                    break;
                }
            }
        });
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Ok(_) => Ok(answer),
            Err(error) => Err(format!("after {} bytes: {error}", answer.len())),
        }
    })
}

const HEAD: &[u8] =
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The replies to a stream after a handshake.
fn replies<'a>(pieces: impl Iterator<Item = &'a [u8]> + Send) -> Result<Vec<Reply>, String> {
    let answer = exchange(std::iter::once(HEAD).chain(pieces))?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no head")? + 4;
    let head = String::from_utf8_lossy(&answer[..end]);
    // The example of RFC 6455 section 1.3.
    if !head.starts_with("HTTP/1.1 101 ")
        || !head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
    {
        return Err(format!("refused: {head}"));
    }
    let mut rest = &answer[end..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (length, start) = match rest {
            [_, 126, a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            [_, 127, long @ ..] if long.len() >= 8 => {
                (u64::from_be_bytes(long[..8].try_into().expect("eight bytes")) as usize, 10)
            }
            [_, length @ 0..=125, ..] => (usize::from(*length), 2),
            _ => return Err(format!("no frame: {rest:?}")),
        };
        let payload = rest.get(start..start + length).ok_or_else(|| format!("half a frame: {rest:?}"))?;
        found.push((rest[0], payload.to_vec()));
        rest = &rest[start + length..];
    }
    Ok(found)
}

/// Runs every case, and fails with the first failures.
#[track_caller]
fn check(cases: &[Case]) {
    let mut wrong = Vec::new();
    for Case { name, stream, replies: wanted } in cases {
        // Each case without an answer costs a timeout.
        if wrong.len() >= FAILURES {
            break;
        }
        let mut judge = |how: &str, got: Result<Vec<Reply>, String>| match got {
            Ok(got) if got == *wanted => {}
            Ok(got) => wrong.push(format!("{name}, {how}: {}, not {}", summary(&got), summary(wanted))),
            Err(error) => wrong.push(format!("{name}, {how}: {error}")),
        };
        judge("in one write", replies(std::iter::once(&stream[..])));
        if stream.len() <= SHORT {
            judge("byte by byte", replies(stream.chunks(1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A short text of the replies, for a message.
fn summary(replies: &[Reply]) -> String {
    let texts = replies.iter().map(|(first, payload)| {
        let start = &payload[..payload.len().min(12)];
        format!("{first:02x} {} bytes {start:02x?}", payload.len())
    });
    format!("[{}]", texts.collect::<Vec<_>>().join("; "))
}

#[test]
fn messages_of_every_size_come_back() {
    let mut cases = Vec::new();
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
        for (first, byte) in [(TEXT, b'*'), (BINARY, 0xfe)] {
            let payload = vec![byte; length];
            cases.push(good(format!("{first:02x}, {length} bytes"), &frame(first, &payload), &[(first, payload)]));
        }
    }
    let row: Vec<u8> = (0..100).flat_map(|number| frame(TEXT, format!("{number}").as_bytes())).collect();
    let echoes: Vec<Reply> = (0..100).map(|number| (TEXT, format!("{number}").into_bytes())).collect();
    cases.push(good("a hundred at once", &row, &echoes));
    check(&cases);
}

#[test]
fn pings_are_answered_with_their_payload_and_pongs_are_not_answered() {
    let ping = |payload: &[u8]| good("a ping", &frame(PING, payload), &[(PONG, payload.to_vec())]);
    let row: Vec<u8> = (0..10).flat_map(|number| frame(PING, &[number])).collect();
    let pongs: Vec<Reply> = (0..10).map(|number| (PONG, vec![number])).collect();
    check(&[
        ping(b""),
        ping(b"Hello, world!"),
        ping(&[0x00, 0xff, 0xfe, 0xc3]),
        ping(&[0xfe; 125]),
        good("ten pings", &row, &pongs),
        bad("a ping of 126 bytes", &frame(PING, &[0xfe; 126]), 1002),
        good("pongs", &[frame(PONG, b""), frame(PONG, b"unasked")].concat(), &[]),
        good("a pong and a ping", &[frame(PONG, b"one"), frame(PING, b"two")].concat(), &[(PONG, b"two".to_vec())]),
    ]);
}

#[test]
fn reserved_bits_and_opcodes_and_unmasked_frames_are_refused() {
    let mut cases = Vec::new();
    for bits in 1..8_u8 {
        for first in [TEXT, BINARY, PING, CLOSE] {
            cases.push(bad(format!("reserved bits {bits}, {first:02x}"), &frame(first | bits << 4, b"x"), 1002));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"x"] {
            cases.push(bad(format!("opcode {opcode}, {payload:?}"), &frame(0x80 | opcode, payload), 1002));
        }
    }
    cases.push(bad("no mask", &[TEXT, 1, b'x'], 1002));
    check(&cases);
}

#[test]
fn fragments_are_joined_and_control_frames_may_come_between() {
    let echo = |text: &str| (TEXT, text.as_bytes().to_vec());
    let (begin, middle, end) = (frame(TEXT_BEGINS, b"one"), frame(CONTINUES, b"two"), frame(ENDS, b"three"));
    let (ping, pong) = (frame(PING, b"?"), (PONG, b"?".to_vec()));
    check(&[
        good("two", &[&begin[..], &end].concat(), &[echo("onethree")]),
        good(
            "three with pings",
            &[&begin[..], &ping, &middle, &ping, &end].concat(),
            &[pong.clone(), pong.clone(), echo("onetwothree")],
        ),
        good(
            "three, all empty",
            &[frame(TEXT_BEGINS, b""), frame(CONTINUES, b""), frame(ENDS, b"")].concat(),
            &[echo("")],
        ),
        good(
            "an empty start and end",
            &[frame(TEXT_BEGINS, b""), middle.clone(), frame(ENDS, b"")].concat(),
            &[echo("two")],
        ),
        good("binary", &[frame(BINARY_BEGINS, &[0xff]), frame(ENDS, &[0xc3])].concat(), &[(BINARY, vec![0xff, 0xc3])]),
        good(
            "two messages",
            &[&begin[..], &end, &begin, &middle, &end].concat(),
            &[echo("onethree"), echo("onetwothree")],
        ),
        good(
            "a large frame in small fragments",
            &fragments(TEXT_BEGINS, &[b'*'; 65_536], 1_300),
            &[(TEXT, vec![b'*'; 65_536])],
        ),
        bad("a ping in fragments", &frame(0x09, b"x"), 1002),
        bad("a pong in fragments", &frame(0x0a, b"x"), 1002),
        bad("a close frame in fragments", &frame(0x08, b""), 1002),
        bad("a continuation of nothing", &end, 1002),
        bad("a first part of nothing", &middle, 1002),
        case(
            "a continuation behind a whole message",
            [&begin[..], &end, &middle].concat(),
            [echo("onethree"), closed(1002)],
        ),
        bad("a message within a message", &[&begin[..], &frame(TEXT, b"x")].concat(), 1002),
        bad("a binary start within a text", &[&begin[..], &frame(BINARY_BEGINS, b"x")].concat(), 1002),
    ]);
}

/// Beginnings of texts, and a next byte that is not valid UTF-8.
const BROKEN: &[(&[u8], u8)] = &[
    (b"", 0x80),
    (b"", 0xbf),
    (b"", 0xc0),
    (b"", 0xc1),
    (b"", 0xf5),
    (b"", 0xfe),
    (b"", 0xff),
    (b"\xc3", b'('),
    (b"\xc3", 0xc3),
    (b"\xe0", 0x9f),
    (b"\xe2\x82", b'!'),
    (b"\xed", 0xa0),
    (b"\xed", 0xbf),
    (b"\xf0", 0x8f),
    (b"\xf0\x90\x80", b'!'),
    (b"\xf4", 0x90),
    ("κόσμε".as_bytes(), 0xff),
    ("κόσμε\u{10ffff}".as_bytes(), 0xfc),
];

#[test]
fn text_is_refused_at_the_first_invalid_byte() {
    let mut cases = Vec::new();
    for (right, wrong) in BROKEN {
        let whole = [*right, &[*wrong], b"edited"].concat();
        cases.push(bad(format!("{whole:02x?}"), &frame(TEXT, &whole), 1007));
        cases.push(bad(format!("{whole:02x?} in fragments of 1"), &fragments(TEXT_BEGINS, &whole, 1), 1007));
        cases.push(good(format!("{whole:02x?} as binary"), &frame(BINARY, &whole), &[(BINARY, whole.clone())]));
        // The wrong byte is refused at once, though its frame is incomplete.
        let begun = frame(CONTINUES, &[*wrong, b'a', b'b']);
        let stream = [&frame(TEXT_BEGINS, right), &frame(PING, b"yet"), &begun[..begun.len() - 2]].concat();
        cases.push(case(format!("{whole:02x?} at once"), stream, [(PONG, b"yet".to_vec()), closed(1007)]));
        if !right.is_empty() && std::str::from_utf8(right).is_err() {
            cases.push(bad(format!("{right:02x?} and no more"), &frame(TEXT, right), 1007));
        }
    }
    check(&cases);
}

#[test]
fn valid_utf_8_comes_back_in_fragments_of_any_size() {
    let texts = [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{d7ff}\u{e000}\u{fffd}\u{fffe}\u{1fffe}",
        "\u{feff}x",
    ];
    let mut cases = Vec::new();
    for text in texts {
        let echo = (TEXT, text.as_bytes().to_vec());
        cases.push(good(text, &frame(TEXT, text.as_bytes()), std::slice::from_ref(&echo)));
        cases.push(good(format!("{text} in fragments of 1"), &fragments(TEXT_BEGINS, text.as_bytes(), 1), &[echo]));
    }
    check(&cases);
}

#[test]
fn a_close_frame_is_answered_and_ends_the_connection() {
    let reasoned = |reason: &[u8]| frame(CLOSE, &[&1000_u16.to_be_bytes()[..], reason].concat());
    let mut cases = vec![
        case("without a code", frame(CLOSE, b""), [closed(1000)]),
        case("with a reason", reasoned("grüß dich".as_bytes()), [closed(1000)]),
        case("with the longest reason", reasoned(&[b'*'; 123]), [closed(1000)]),
        bad("with half a code", &frame(CLOSE, b"\x03"), 1002),
        bad("with a reason that is too long", &reasoned(&[b'*'; 124]), 1002),
        bad(
            "with a reason that is not UTF-8",
            &reasoned("κόσμε\u{10ffff}".as_bytes().split_last().expect("text").1),
            1007,
        ),
        good("twice", &close(1000), &[]),
        case("a ping behind", [close(1000), frame(PING, b"x")].concat(), [closed(1000)]),
        case("a message behind", [close(1000), frame(TEXT, b"x")].concat(), [closed(1000)]),
        case("a violation behind", [close(1001), frame(0xff, b"x")].concat(), [closed(1001)]),
        case("within a message", [frame(TEXT_BEGINS, b"x"), close(1000), frame(ENDS, b"y")].concat(), [closed(1000)]),
        case(
            "behind 256 KiB",
            [frame(TEXT, &[b'*'; 256 << 10]), close(1000)].concat(),
            [(TEXT, vec![b'*'; 256 << 10]), closed(1000)],
        ),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        cases.push(case(format!("code {code}"), close(code), [closed(code)]));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(case(format!("code {code}"), close(code), [closed(1002)]));
    }
    check(&cases);
}

#[test]
fn large_messages_come_back_and_larger_ones_are_refused_by_their_header() {
    let large = vec![b'*'; echo::MAX_MESSAGE];
    let mebibyte = &large[..1 << 20];
    let claim = &frame(BINARY, &vec![0; echo::MAX_MESSAGE + 1])[..14];
    check(&[
        good("16 MiB", &frame(BINARY, &large), &[(BINARY, large.clone())]),
        good("1 MiB in fragments of 64 bytes", &fragments(TEXT_BEGINS, mebibyte, 64), &[(TEXT, mebibyte.to_vec())]),
        case("a claim of one byte more", [&frame(TEXT, b"x"), claim].concat(), [(TEXT, b"x".to_vec()), closed(1009)]),
    ]);
}

#[test]
fn a_large_message_comes_back_in_pieces_of_any_size() {
    let payload = vec![b'*'; 1 << 20];
    let stream = [frame(TEXT, &payload), close(1000)].concat();
    for size in [64, 256, 1_024, 65_536] {
        let got = replies(stream.chunks(size)).unwrap_or_else(|error| panic!("pieces of {size}: {error}"));
        assert!(got == [(TEXT, payload.clone()), closed(1000)], "pieces of {size}: {}", summary(&got));
    }
}

#[test]
fn a_handshake_may_come_in_pieces_and_a_bad_one_is_refused_with_a_status() {
    let stream = [HEAD, &frame(TEXT, b"right behind"), &close(1000)].concat();
    for size in [1, stream.len()] {
        let answer = exchange(stream.chunks(size)).expect("an answer");
        assert!(answer.ends_with(&[&[TEXT, 12][..], b"right behind", &[CLOSE, 2, 0x03, 0xe8]].concat()), "{answer:?}");
    }
    let head = String::from_utf8_lossy(HEAD).into_owned();
    for (status, request) in [
        (426, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()),
        (426, head.replace("Version: 13", "Version: 7")),
        (400, head.replace("Sec-WebSocket-Key", "X-Key")),
        (400, "\u{1}\u{2}\u{3}\r\n\r\n".to_owned()),
        (431, head.replace("localhost", &"x".repeat(20_000))),
    ] {
        let answer = exchange(std::iter::once(request.as_bytes())).expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
}
