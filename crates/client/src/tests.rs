//! Tests of the client with the WebSocket server of another library (tungstenite).

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message as Theirs;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;

/// A server of another library: a wrong reading of the RFC in our code would not show with our own server.
type Server = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn listen() -> (TcpListener, Url) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    (listener, Url::parse(&format!("ws://app:pass%3Aword@{address}/ws?topic=sms")).unwrap())
}

/// Returns a connected client and server, and the request that the server has received.
async fn pair(options: Options) -> (Client, Server, Request) {
    let (listener, url) = listen().await;
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut seen = None;
        #[allow(clippy::result_large_err, reason = "the signature is the library's")]
        let keep = |request: &Request, mut response: Response| {
            seen = Some(request.clone());
            response.headers_mut().insert("Sec-WebSocket-Protocol", "wsmb.v1".parse().unwrap());
            Ok(response)
        };
        let server = accept_hdr_async(stream, keep).await.unwrap();
        (server, seen.unwrap())
    };
    let (client, (server, request)) = tokio::join!(Client::connect(&url, &options), accept);
    (client.unwrap(), server, request)
}

#[tokio::test]
async fn the_request_names_user_target_and_subprotocol() {
    let (_client, _server, request) = pair(Options::default()).await;
    let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(header("authorization"), format!("Basic {}", BASE64.encode("app:pass:word")));
    assert_eq!(header("sec-websocket-protocol"), "wsmb.v1");
    assert_eq!(request.uri().to_string(), "/ws?topic=sms");
}

#[tokio::test]
async fn messages_are_sent_both_ways_and_the_close_frame_is_answered() {
    let (mut client, mut server, _) = pair(Options::default()).await;
    client.send_text("hello").await.unwrap();
    client.send_binary(&[0, 255]).await.unwrap();
    assert_eq!(server.next().await.unwrap().unwrap(), Theirs::text("hello"));
    assert_eq!(server.next().await.unwrap().unwrap(), Theirs::binary(vec![0, 255]));
    let large = "x".repeat(200_000);
    server.send(Theirs::text(large.clone())).await.unwrap();
    server.send(Theirs::binary(vec![1])).await.unwrap();
    assert_eq!(client.next().await.unwrap().as_text(), Some(large.as_str()));
    let message = client.next().await.unwrap();
    assert_eq!((message.kind, &message.payload[..]), (Kind::Binary, &[1][..]));
    let theirs = async {
        let close = server.next().await;
        // The library writes its answer only during this call.
        assert!(server.next().await.is_none());
        close
    };
    let (closed, close) = tokio::join!(client.close(), theirs);
    closed.unwrap();
    assert!(matches!(close, Some(Ok(Theirs::Close(Some(frame)))) if u16::from(frame.code) == 1000));
}

#[tokio::test]
async fn a_ping_is_answered_while_the_caller_waits() {
    let (mut client, mut server, _) = pair(Options::default()).await;
    server.send(Theirs::Ping("abc".into())).await.unwrap();
    server.send(Theirs::text("after")).await.unwrap();
    assert_eq!(client.next().await.unwrap().as_text(), Some("after"));
    client.send_text("x").await.unwrap();
    assert_eq!(server.next().await.unwrap().unwrap(), Theirs::Pong("abc".into()));
}

#[tokio::test]
async fn both_sides_may_write_more_than_the_socket_buffers_hold() {
    let (mut client, mut server, _) = pair(Options::default()).await;
    let large = "y".repeat(16 << 20);
    let copy = large.clone();
    let theirs = async {
        server.send(Theirs::text(copy)).await.unwrap();
        server.next().await.unwrap().unwrap()
    };
    let ours = async {
        client.send_text(&large).await.unwrap();
        client.next().await.unwrap()
    };
    let (got, sent) = tokio::join!(ours, theirs);
    assert_eq!(got.payload.len(), large.len());
    assert_eq!(sent.len(), large.len());
}

#[tokio::test]
async fn a_close_frame_ends_the_connection_after_the_messages_before_it() {
    let (mut client, mut server, _) = pair(Options::default()).await;
    server.send(Theirs::text("last")).await.unwrap();
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 1008.into(), reason: "replaced".into() };
    server.close(Some(frame)).await.unwrap();
    assert_eq!(client.next().await.unwrap().as_text(), Some("last"));
    let error = client.next().await.unwrap_err();
    assert!(matches!(&error, Error::Closed { code: Some(1008), reason } if reason == "replaced"), "{error}");
    assert!(matches!(client.next().await, Err(Error::Lost { .. })));
}

#[tokio::test]
async fn an_aborted_connection_is_reset() {
    let (client, mut server, _) = pair(Options::default()).await;
    client.abort();
    let end = server.next().await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_connection() {
    let (mut client, mut server, _) = pair(Options { max_message: 10, ..Options::default() }).await;
    server.send(Theirs::text("x".repeat(11))).await.unwrap();
    assert!(matches!(client.next().await, Err(Error::Protocol(error)) if error.close_code() == 1009));
}

#[tokio::test]
async fn a_silent_broker_is_pinged_and_then_counts_as_lost() {
    let keepalive = Duration::from_millis(20);
    let (mut client, mut server, _) = pair(Options { keepalive: Some(keepalive), ..Options::default() }).await;
    let start = Instant::now();
    let error = client.next().await.unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    assert!(start.elapsed() >= 2 * keepalive);
    assert!(matches!(server.next().await, Some(Ok(Theirs::Ping(_)))));
}

#[tokio::test]
async fn a_broker_that_answers_pings_does_not_count_as_lost() {
    // Long enough for a busy computer.
    let keepalive = Duration::from_millis(250);
    let (mut client, mut server, _) = pair(Options { keepalive: Some(keepalive), ..Options::default() }).await;
    let theirs = tokio::spawn(async move {
        for _ in 0..5 {
            assert!(matches!(server.next().await, Some(Ok(Theirs::Ping(_)))));
        }
        server.send(Theirs::text("alive")).await.unwrap();
        server
    });
    assert_eq!(client.next().await.unwrap().as_text(), Some("alive"));
    theirs.await.unwrap();
}

#[tokio::test]
async fn a_frame_in_the_same_packet_as_the_head_is_not_lost() {
    let (listener, url) = listen().await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap().trim();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        let mut reply = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        reply.extend_from_slice(b"\x81\x05first");
        stream.write_all(&reply).await.unwrap();
        stream
    };
    let options = Options::default();
    let (client, _stream) = tokio::join!(Client::connect(&url, &options), serve);
    assert_eq!(client.unwrap().next().await.unwrap().as_text(), Some("first"));
}

#[tokio::test]
async fn the_error_for_a_refused_password_names_the_user_and_not_the_password() {
    let (listener, url) = listen().await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        let reply = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        stream.write_all(reply.as_bytes()).await.unwrap();
    };
    let options = Options { credentials: Some(Credentials::new("app", "secret")), ..Options::default() };
    let (client, ()) = tokio::join!(Client::connect(&url, &options), serve);
    let error = client.unwrap_err();
    assert!(error.is_refusal());
    let said = error.to_string();
    assert!(said.contains(" refused the user app or the password (401): ") && !said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_token_is_sent_instead_of_a_password_and_its_refusal_says_why() {
    let (listener, url) = listen().await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        let body =
            r#"{"command":"connect","response_code":"01","response_text":"Rejected: the token has expired (\"exp\")"}"#;
        let length = body.len();
        let reply = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        stream.write_all(reply.as_bytes()).await.unwrap();
        request
    };
    let credentials = Some(Credentials::new("app", "secret"));
    let options = Options { credentials, token: Token::new("a.b.c"), ..Options::default() };
    let (client, request) = tokio::join!(Client::connect(&url, &options), serve);
    assert!(request.contains("\r\nAuthorization: Bearer a.b.c\r\n") && !request.contains("Basic"), "{request}");
    let said = client.unwrap_err().to_string();
    assert!(said.ends_with(" refused the token (401): the token has expired (\"exp\")"), "{said}");
    assert!(!format!("{options:?}").contains("a.b.c"));
    assert!([Token::new(""), Token::new("a b"), Token::new("a\r\nX: y")].iter().all(Option::is_none));
}

#[tokio::test]
async fn the_error_for_another_server_suggests_a_wrong_port() {
    for (answer, expected) in [("SSH-2.0-OpenSSH\r\n\r\n", "is this the broker's port?"), ("", "ended the connection")]
    {
        let (listener, url) = listen().await;
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let options = Options::default();
        let (client, ()) = tokio::join!(Client::connect(&url, &options), serve);
        let error = client.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn the_error_for_a_closed_port_suggests_to_start_the_broker() {
    let (listener, url) = listen().await;
    drop(listener);
    let error = Client::connect(&url, &Options::default()).await.unwrap_err().to_string();
    assert!(error.contains("connection refused - is the broker running? start it with `wsmb serve`"), "{error}");
}

#[tokio::test]
async fn a_peer_that_never_answers_causes_a_timeout() {
    let (_listener, url) = listen().await;
    let options = Options { connect_timeout: Duration::from_millis(20), ..Options::default() };
    let error = Client::connect(&url, &options).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
    String::from_utf8(request).unwrap()
}
