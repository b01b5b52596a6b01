//! Tests of the request heads of old clients (SPEC section 12), the replies that they need, and refused heads with their messages.

use proptest::prelude::*;

use super::*;
use crate::limits;
use crate::proxy::Forwarding;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn parsed(head: &str) -> Request {
    let (request, len) = parse_request(head.as_bytes()).unwrap().expect("a complete head");
    assert_eq!(len, head.len());
    request
}

/// Returns a request for a WebSocket at `target`, with additional header lines.
fn upgrade_of(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

fn refused(head: &str) -> (u16, String) {
    let error = parse_request(head.as_bytes()).expect_err(head);
    (error.status(), error.to_string())
}

#[test]
fn the_request_of_the_php_scripts() {
    let request = parsed(&format!(
        "GET / HTTP/1.1\r\nHost: broker.example\r\npragma: no-cache\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Basic dXNlcjpwYXNz\r\n\
         Content-type: application/json\r\n\r\n"
    ));
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/"));
    let credentials = basic_credentials(&request.authorization.unwrap());
    assert_eq!(credentials, Some(("user".to_owned(), "pass".to_owned())));
    let upgrade = request.upgrade.unwrap();
    assert_eq!(
        *upgrade,
        Upgrade { key: KEY.to_owned(), modern: false, topic: None, receiver: None, token: None, ticket: None }
    );
}

#[test]
fn the_request_of_java_websocket() {
    let request = parsed(&format!(
        "GET /ws?topic=my+sms HTTP/1.1\r\nAuthorization: Basic dXNlcjpwYXNz\r\nConnection: Upgrade\r\nHost: h:8888\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n"
    ));
    assert_eq!(request.path, "/ws");
    let upgrade = request.upgrade.unwrap();
    assert_eq!((upgrade.topic.unwrap().as_str(), upgrade.modern), ("my sms", false));
}

#[test]
fn the_request_of_the_esp32_library() {
    let request = parsed(&format!(
        "GET /ws?topic=sms HTTP/1.1\r\nHost: h:8888\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: arduino\r\n\
         Origin: file://\r\nUser-Agent: arduino-WebSocket-Client\r\nAuthorization: Basic dXNlcjpwYXNz\r\n\r\n"
    ));
    let upgrade = request.upgrade.unwrap();
    assert!(!upgrade.modern);
    let reply = String::from_utf8(upgrade_reply(&upgrade)).unwrap();
    assert!(!reply.contains("Sec-WebSocket-Protocol"), "{reply}");
}

#[test]
fn the_request_of_a_browser_behind_a_proxy() {
    let request = parsed(&format!(
        "GET /prefix/mq HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         origin: https://app.example\r\nsec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\
         sec-websocket-key: {KEY}\r\nsec-websocket-version: 13\r\n\
         sec-websocket-protocol: other, wsmb.v1\r\n\r\n"
    ));
    assert!(request.upgrade.unwrap().modern);
}

#[test]
fn requests_without_an_upgrade() {
    for head in [
        "GET /healthz HTTP/1.1\r\n\r\n".to_owned(),
        upgrade_of("/", "").replace("HTTP/1.1", "HTTP/1.0"),
        upgrade_of("/", "").replace("GET", "POST"),
        upgrade_of("/", "").replace("Connection: Upgrade", "Connection: close"),
        upgrade_of("/?topic=", "").replace("Upgrade: websocket", "Upgrade: h2c"),
    ] {
        assert_eq!(parsed(&head).upgrade, None, "{head}");
    }
    let request = parsed("GET /api/queue?x=1&topic= HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((request.path.as_str(), request.query.as_str()), ("/api/queue", "x=1&topic="));
    assert_eq!(parsed("GET http://h:1/a?b HTTP/1.1\r\n\r\n").path, "/a");
    assert_eq!(parsed("GET http://h?b HTTP/1.1\r\n\r\n").query, "b");
    assert_eq!(parsed("GET /a?u=http://h/ HTTP/1.1\r\n\r\n").path, "/a");
}

#[test]
fn a_request_that_a_proxy_has_damaged_is_recognised() {
    let good = upgrade_of("/", "");
    let without = |line: &str| good.replace(line, "");
    let (upgrade, connection) = ("Upgrade: websocket\r\n", "Connection: Upgrade\r\n");
    for (head, broken_upgrade) in [
        (good.replace("HTTP/1.1", "HTTP/1.0"), BrokenUpgrade::Version),
        (without(upgrade).replace("HTTP/1.1", "HTTP/1.0").replace("n: Upgrade", "n: close"), BrokenUpgrade::Version),
        (without(upgrade), BrokenUpgrade::Upgrade),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), BrokenUpgrade::Upgrade),
        (without(connection), BrokenUpgrade::Connection),
        (good.replace("Connection: Upgrade", "Connection: close"), BrokenUpgrade::Connection),
    ] {
        let request = parsed(&head);
        assert_eq!((request.broken_upgrade, request.upgrade), (Some(broken_upgrade), None), "{head}");
        let sentence = broken_upgrade.to_string();
        for setting in
            ["proxy_http_version 1.1", "Upgrade $http_upgrade", "Connection \"upgrade\"", "upgrade=websocket"]
        {
            assert!(sentence.contains(setting), "{sentence}");
        }
    }
    for head in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: Upgrade\r\n\r\n",
        &good,
        &good.replace("GET", "POST"),
    ] {
        assert_eq!(parsed(head).broken_upgrade, None, "{head}");
    }
}

#[test]
fn the_headers_of_proxies_are_collected() {
    let request = parsed(&upgrade_of("/", "X-Forwarded-For: 192.0.2.1\r\nVia: 1.1 x\r\n"));
    assert!(request.forwarding.is_forwarded && request.forwarding.names_client());
    assert_eq!(parsed(&upgrade_of("/", "")).forwarding, Forwarding::default());
}

#[test]
fn an_unexpected_proxy_header_has_its_own_error() {
    for head in ["PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n", "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let (status, text) = refused(head);
        assert_eq!(status, 400);
        assert!(text.contains("PROXY protocol header") && text.contains("proxy_protocol = true"), "{text}");
    }
}

#[test]
fn a_head_is_incomplete_until_its_last_byte() {
    let head = upgrade_of("/?topic=sms", "");
    for end in 0..head.len() {
        assert_eq!(parse_request(&head.as_bytes()[..end]), Ok(None));
    }
    let behind = [head.as_bytes(), &[0x81, 0x80]].concat();
    assert_eq!(parse_request(&behind).unwrap().unwrap().1, head.len());
}

#[test]
fn topics_are_decoded() {
    for (query, topic) in [
        ("topic=sms", "sms"),
        ("channel=sms", "sms"),
        ("a=b&topic=sms&c", "sms"),
        ("topic=my%20sms", "my sms"),
        ("topic=my+sms", "my sms"),
        ("topic=a%2Bb%26c%3d%25", "a+b&c=%"),
        ("topic=a=b", "a=b"),
        ("topic=gr%C3%BCn", "grün"),
        ("%74opic=sms", "sms"),
        ("key=100%&topic=sms", "sms"),
    ] {
        let upgrade = parsed(&upgrade_of(&format!("/ws?{query}"), "")).upgrade.unwrap();
        assert_eq!(upgrade.topic.map(|topic| topic.to_string()).as_deref(), Some(topic), "{query}");
    }
    for target in ["/", "/?", "/?x=topic", "/topic=sms", "/?Topic=sms"] {
        assert_eq!(parsed(&upgrade_of(target, "")).upgrade.unwrap().topic, None, "{target}");
    }
    let upgrade = parsed(&upgrade_of("/?receiver=gate%20way&topic=sms", "")).upgrade.unwrap();
    assert_eq!(upgrade.receiver.as_deref(), Some("gate way"));
}

#[test]
fn invalid_queries_are_refused_with_400_and_a_message() {
    let long = "x".repeat(wsmb_core::limits::CHANNEL_NAME_CHARS + 1);
    let long_receiver = "x".repeat(wsmb_core::limits::NAME_BYTES + 1);
    for (query, words) in [
        ("topic=", "the topic is empty"),
        ("topic", "the topic is empty"),
        ("channel=", "the topic is empty"),
        ("topic=a&topic=b", "given twice"),
        ("topic=a&topic=a", "given twice"),
        ("topic=a&channel=a", "given twice"),
        ("topic=a&channel=", "given twice"),
        ("topic=%", "percent-encoded"),
        ("topic=%2", "percent-encoded"),
        ("topic=%+1", "percent-encoded"),
        ("topic=%ff", "percent-encoded UTF-8"),
        ("topic=a%00", "control character"),
        (&format!("topic={long}"), "longer than 100 characters"),
        ("receiver=", "'receiver' is empty"),
        ("receiver", "'receiver' is empty"),
        ("receiver=a&receiver=b", "'receiver' is given twice"),
        ("receiver=%zz", "'receiver' is not percent-encoded"),
        (&format!("receiver={long_receiver}"), "longer than 128 bytes"),
    ] {
        let (status, text) = refused(&upgrade_of(&format!("/ws?{query}"), ""));
        assert_eq!(status, 400, "{query}");
        assert!(text.contains(words), "{query}: {text}");
    }
}

#[test]
fn invalid_heads_are_refused_with_their_status() {
    let version = upgrade_of("/", "").replace("Version: 13", "Version: 8");
    let no_version = upgrade_of("/", "").replace("Sec-WebSocket-Version: 13\r\n", "");
    let no_key = upgrade_of("/", "").replace(&format!("Sec-WebSocket-Key: {KEY}\r\n"), "");
    let empty_key = upgrade_of("/", "").replace(KEY, "");
    for (head, status) in [
        (version, 426),
        (no_version, 426),
        (no_key, 400),
        (empty_key, 400),
        (upgrade_of("/", &format!("Sec-WebSocket-Key: {KEY}\r\n")), 400),
        (upgrade_of("/", "Authorization: a\r\nAuthorization: b\r\n"), 400),
        ("\x16\x03\x01 is TLS\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 400),
        (format!("GET /{}", "x".repeat(limits::REQUEST_HEAD)), 414),
        (format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(limits::REQUEST_HEAD)), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(limits::REQUEST_HEADERS + 1)), 431),
    ] {
        let (found, text) = refused(&head);
        assert_eq!(found, status, "{text}");
    }
    assert_eq!(BadRequest::Version.headers(), [("Sec-WebSocket-Version", "13")]);
}

#[test]
fn the_upgrade_reply_is_byte_for_byte_as_old_clients_need_it() {
    let mut upgrade = parsed(&upgrade_of("/", "")).upgrade.unwrap();
    let reply = upgrade_reply(&upgrade);
    assert_eq!(
        String::from_utf8(reply).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    upgrade.modern = true;
    let reply = upgrade_reply(&upgrade);
    assert!(reply.len() <= limits::UPGRADE_REPLY);
    assert!(reply.ends_with(b"\r\nSec-WebSocket-Protocol: wsmb.v1\r\n\r\n"));
}

#[test]
fn a_response_is_complete_and_ends_the_connection() {
    let reply = response(401, &[("WWW-Authenticate", "Basic realm=\"wsmb\"")], "application/json", "{\"ü\":1}");
    assert_eq!(
        String::from_utf8(reply).unwrap(),
        "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nWWW-Authenticate: Basic realm=\"wsmb\"\r\n\
         Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"ü\":1}"
    );
}

#[test]
fn credentials_are_read_as_rfc_7617_says() {
    let basic = |credentials: &[u8]| format!("Basic {}", STANDARD.encode(credentials));
    for (value, expected) in [
        (basic(b"user:pass"), Some(("user", "pass"))),
        (basic(b"user:pa:ss:"), Some(("user", "pa:ss:"))),
        (basic("jürgen:grün".as_bytes()), Some(("jürgen", "grün"))),
        (basic(b"user:"), Some(("user", ""))),
        (basic(b":pass"), Some(("", "pass"))),
        (basic(b"user:pass").replace("Basic", "bAsIc "), Some(("user", "pass"))),
        ("Basic dTpw".to_owned(), Some(("u", "p"))),
        ("Basic dXNlcjpw".to_owned(), Some(("user", "p"))),
        ("Basic dTpwYQ".to_owned(), Some(("u", "pa"))),
        (basic(b"no colon"), None),
        (basic(&[0xff, b':', b'x']), None),
        ("Basic".to_owned(), None),
        ("Basic !!!".to_owned(), None),
        ("Bearer dXNlcjpwYXNz".to_owned(), None),
        (String::new(), None),
    ] {
        let expected = expected.map(|(user, password)| (user.to_owned(), password.to_owned()));
        assert_eq!(basic_credentials(&value), expected, "{value}");
    }
}

#[test]
fn our_client_and_our_server_parse_each_other() {
    let head = client_request("h:8888", "/ws?topic=sms", KEY, Some(SUBPROTOCOL), Some("Basic dXNlcjpwYXNz"));
    let request = parsed(std::str::from_utf8(&head).unwrap());
    assert_eq!(request.authorization.as_deref(), Some("Basic dXNlcjpwYXNz"));
    let upgrade = request.upgrade.unwrap();
    assert!(upgrade.modern);
    let reply = upgrade_reply(&upgrade);
    for end in 0..reply.len() {
        assert_eq!(parse_reply(&reply[..end], KEY, Some(SUBPROTOCOL)), Ok(None));
    }
    assert_eq!(parse_reply(&[&reply[..], &[0x81, 0]].concat(), KEY, Some(SUBPROTOCOL)), Ok(Some(reply.len())));
    assert!(matches!(parse_reply(&reply, "another key", Some(SUBPROTOCOL)), Err(BadReply::NotWebSocket(_))));
    assert!(matches!(parse_reply(&reply, KEY, Some("mqtt")), Err(BadReply::NotWebSocket(_))));
}

#[test]
fn a_refusal_is_read_with_its_body() {
    let reply = response(400, &[], "text/plain", "the topic is empty");
    assert_eq!(parse_reply(&reply[..reply.len() - 1], KEY, Some(SUBPROTOCOL)), Ok(None));
    let refusal = parse_reply(&reply, KEY, Some(SUBPROTOCOL)).unwrap_err();
    let expected = "the server refused the connection with 400 Bad Request: the topic is empty";
    assert_eq!(refusal.to_string(), expected);
    let unauthorized = parse_reply(&response(401, &[], "application/json", "{}"), KEY, Some(SUBPROTOCOL)).unwrap_err();
    assert!(matches!(unauthorized, BadReply::Refused { status: 401, .. }));
    assert!(unauthorized.to_string().contains("user or password"));
    assert!(matches!(parse_reply(b"SSH-2.0-OpenSSH\r\n\r\n", KEY, Some(SUBPROTOCOL)), Err(BadReply::NotHttp(_))));
    let extended = String::from_utf8(upgrade_reply(&parsed(&upgrade_of("/", "")).upgrade.unwrap())).unwrap();
    let extended = extended.replace("Connection", "Sec-WebSocket-Extensions: permessage-deflate\r\nConnection");
    assert!(matches!(parse_reply(extended.as_bytes(), KEY, Some(SUBPROTOCOL)), Err(BadReply::NotWebSocket(_))));
}

proptest! {
    #[test]
    fn arbitrary_heads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), query in "\\PC{0,60}") {
        let _ = parse_request(&bytes);
        let _ = parse_reply(&bytes, KEY, Some(SUBPROTOCOL));
        let _ = parse_request(upgrade_of(&format!("/?{query}"), "").as_bytes());
        let _ = basic_credentials(&query);
    }
}

/// The token `a.b.c` as a subprotocol.
const TOKEN_PROTOCOL: &str = "wsmb.token.YS5iLmM";

#[test]
fn a_token_comes_in_a_subprotocol_and_is_never_sent_back() {
    for header in [
        format!("Sec-WebSocket-Protocol: wsmb.v1, {TOKEN_PROTOCOL}\r\n"),
        format!("Sec-WebSocket-Protocol: {TOKEN_PROTOCOL},wsmb.v1\r\n"),
        format!("Sec-WebSocket-Protocol: {TOKEN_PROTOCOL}\r\nsec-websocket-protocol: x, wsmb.v1\r\n"),
    ] {
        let upgrade = parsed(&upgrade_of("/", &header)).upgrade.unwrap();
        assert_eq!((upgrade.token.as_deref(), upgrade.modern), (Some("a.b.c"), true), "{header}");
        let reply = String::from_utf8(upgrade_reply(&upgrade)).unwrap();
        assert!(reply.contains("\r\nSec-WebSocket-Protocol: wsmb.v1\r\n"), "{reply}");
        assert!(!reply.contains("token") && !reply.contains("YS5"), "{reply}");
    }
}

#[test]
fn an_unusable_token_in_a_subprotocol_is_refused_without_repeating_it() {
    let twice = format!("{TOKEN_PROTOCOL}, {TOKEN_PROTOCOL}");
    for (protocols, words) in [
        (format!("wsmb.v1, {TOKEN_PROTOCOL}="), "without padding"),
        (format!("wsmb.v1, {TOKEN_PROTOCOL}/x"), "in base64url"),
        ("wsmb.v1, wsmb.token._w".to_owned(), "in base64url"),
        (format!("wsmb.v1, {twice}"), "given once"),
        (TOKEN_PROTOCOL.to_owned(), "offer the subprotocol wsmb.v1 beside"),
        (format!("WSMB.V1, {TOKEN_PROTOCOL}"), "offer the subprotocol wsmb.v1 beside"),
    ] {
        let (status, text) = refused(&upgrade_of("/", &format!("Sec-WebSocket-Protocol: {protocols}\r\n")));
        assert_eq!(status, 400, "{protocols}");
        assert!(text.contains(words) && !text.contains("YS5"), "{protocols}: {text}");
    }
    // Other subprotocols are none of the broker's business.
    assert_eq!(parsed(&upgrade_of("/", "Sec-WebSocket-Protocol: wsmb.tokens.x\r\n")).upgrade.unwrap().token, None);
}

#[test]
fn a_ticket_may_be_in_the_address_and_a_token_may_not() {
    let ticket = |target: &str| parsed(&upgrade_of(target, "")).upgrade.unwrap().ticket;
    assert_eq!(ticket("/?ticket=a%2Db_c&topic=sms").as_deref(), Some("a-b_c"));
    assert_eq!((ticket("/?tickets=x"), ticket("/")), (None, None));
    assert_eq!(ticket("/?ticket").as_deref(), Some(""), "an empty ticket is a wrong one, not a missing one");
    assert!(refused(&upgrade_of("/?ticket=a&ticket=b", "")).1.contains("given twice"));
    for target in ["/?token=geheim", "/ws?topic=sms&access_token=geheim", "/?%74oken=geheim", "/?token"] {
        let (status, text) = refused(&upgrade_of(target, ""));
        assert_eq!(status, 400, "{target}");
        assert!(text.contains("must not be in the address") && !text.contains("geheim"), "{text}");
    }
}

#[test]
fn a_bearer_token_is_found_in_the_header() {
    for (value, token) in [
        ("Bearer a.b.c", Some("a.b.c")),
        (" bearer  a.b.c ", Some("a.b.c")),
        ("BEARER x", Some("x")),
        ("Basic YTpi", None),
        ("Bearer", None),
        ("a.b.c", None),
    ] {
        assert_eq!(bearer_token(value), token, "{value:?}");
    }
}
