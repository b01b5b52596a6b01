//! Tests of the server over real sockets, each with its own server on a free port. `tests/e2e` tests the protocol in detail; these tests check the
//! server's counters, and that its parts work together.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

mod settings;
mod tokens;

use super::*;
use crate::limits;
use settings::settings;
use wsmb_auth::Permissions;
use wsmb_protocol::frame::{Opcode, encode_masked_into};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Longer than any step of a test takes, so that a failing test ends.
const TIMEOUT: Duration = Duration::from_secs(10);

async fn start(change: impl FnOnce(&mut Settings)) -> RunningServer {
    let mut settings = settings();
    change(&mut settings);
    Server::start(settings).await.expect("the server starts")
}

async fn connect(server: &RunningServer, target: &str, modern: bool) -> Client {
    let url = format!("ws://{}{target}", server.local_addrs()[0]);
    let mut request = url.into_client_request().expect("a request");
    if modern {
        request.headers_mut().insert("Sec-WebSocket-Protocol", "wsmb.v1".parse().expect("a value"));
    }
    in_time(connect_async(request)).await.expect("connected").0
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, future).await.expect("in time")
}

async fn send(client: &mut Client, text: &str) {
    client.send(Message::text(text)).await.expect("sent");
}

/// Returns the next text or binary message. The library answers pings while it reads.
async fn receive(client: &mut Client) -> String {
    loop {
        match in_time(client.next()).await.expect("not ended").expect("a message") {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message.into_text().expect("text").to_string(),
        }
    }
}

async fn wait_until(mut condition: impl FnMut() -> bool) {
    in_time(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A request of a legacy client, as bytes.
fn head(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let byte = in_time(stream.read_u8()).await.expect("a head");
        bytes.push(byte);
    }
    String::from_utf8(bytes).expect("text")
}

async fn request(server: &RunningServer, head: &str) -> String {
    let mut stream = TcpStream::connect(server.local_addrs()[0]).await.expect("connected");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    in_time(stream.read_to_string(&mut answer)).await.expect("an answer");
    answer
}

#[tokio::test]
async fn a_message_travels_between_envelope_connections_verbatim_and_is_accepted_when_confirmed() {
    let server = start(|_| {}).await;
    let mut receiver = connect(&server, "/", true).await;
    assert!(receive(&mut receiver).await.starts_with(r#"{"command":"connect","response_code":"00""#));
    send(&mut receiver, r#"{"command":"receive-message","channel":"sms","data":[]}"#).await;
    send(&mut receiver, r#"{"command":"ping","channel":"sms"}"#).await;
    receive(&mut receiver).await;

    let mut sender = connect(&server, "/", true).await;
    receive(&mut sender).await;
    let sent = r#"{ "command":"send-message", "channel":"sms", "id":"a", "more":1, "data":[{"x":1}] }"#;
    send(&mut sender, sent).await;
    assert_eq!(receive(&mut receiver).await, sent);
    // The receiver must read on: its pong confirms the message, and then the sender gets its answer.
    let answer = tokio::select! {
        answer = receive(&mut sender) => answer,
        other = receive(&mut receiver) => panic!("nothing more is delivered: {other}"),
    };
    assert!(answer.contains(r#""response_code":"00""#) && answer.contains(r#""id":"a""#), "{answer}");
    drop((sender, receiver));
    in_time(server.shutdown()).await.expect("stopped");
}

#[tokio::test]
async fn a_pong_confirms_a_message_and_none_is_kept() {
    let server = start(|_| {}).await;
    let mut receiver = connect(&server, "/?topic=sms", false).await;
    let mut sender = connect(&server, "/?topic=sms", true).await;
    send(&mut sender, "hello").await;
    assert_eq!(receive(&mut receiver).await, "hello");
    // The library answers pings only while it reads.
    let reading = tokio::spawn(async move { while receiver.next().await.is_some() {} });
    wait_until(|| server.broker_counters().confirmed == 1).await;
    assert_eq!(server.unsettled(), 0);
    reading.abort();
}

#[tokio::test]
async fn an_empty_pong_confirms_a_message() {
    let server = start(|_| {}).await;
    let mut receiver = TcpStream::connect(server.local_addrs()[0]).await.expect("connected");
    receiver.write_all(head("/?topic=sms").as_bytes()).await.expect("sent");
    read_head(&mut receiver).await;
    let mut sender = connect(&server, "/?topic=sms", true).await;
    send(&mut sender, "hello").await;
    let mut delivery = [0; 7];
    in_time(receiver.read_exact(&mut delivery)).await.expect("a frame");
    assert_eq!(&delivery, b"\x81\x05hello");
    let mut ping = [0; 3];
    in_time(receiver.read_exact(&mut ping)).await.expect("a ping");
    assert_eq!(&ping, b"\x89\x011");
    assert_eq!(server.broker_counters().confirmed, 0);
    receiver.write_all(b"\x8a\x80\0\0\0\0").await.expect("sent");
    wait_until(|| server.broker_counters().confirmed == 1).await;
}

#[tokio::test]
async fn a_publication_reaches_the_other_dialect_even_if_its_sender_disconnects_at_once() {
    let server = start(|_| {}).await;
    let mut receiver = connect(&server, "/", true).await;
    receive(&mut receiver).await;
    send(&mut receiver, r#"{"command":"receive-message","channel":"a b","data":[]}"#).await;
    send(&mut receiver, r#"{"command":"ping"}"#).await;
    receive(&mut receiver).await;

    let mut publisher = TcpStream::connect(server.local_addrs()[0]).await.expect("connected");
    publisher.write_all(head("/ws?topic=a+b").as_bytes()).await.expect("sent");
    read_head(&mut publisher).await;
    let mut frame = Vec::new();
    encode_masked_into(&mut frame, Opcode::Text, br#"{"id":71}"#, [1, 2, 3, 4]);
    publisher.write_all(&frame).await.expect("sent");
    drop(publisher);

    assert_eq!(receive(&mut receiver).await, r#"{"command":"send-message","channel":"a b","data":[{"id":71}]}"#);
}

#[tokio::test]
async fn messages_without_a_receiver_are_kept_and_a_one_shot_reader_confirms_its_only_message() {
    let server = start(|_| {}).await;
    let mut sender = connect(&server, "/", true).await;
    receive(&mut sender).await;
    for number in 0..3 {
        let text = format!(r#"{{"command":"send-message","channel":"sms","id":"{number}","data":[{number}]}}"#);
        send(&mut sender, &text).await;
        assert!(receive(&mut sender).await.contains(r#""stored":true"#));
    }
    assert_eq!(server.unsettled(), 3);

    // On a busy machine a reader may be so slow that the broker's first ping goes before its end; then its end proves nothing.
    for _ in 0..50 {
        let mut reader = connect(&server, "/?topic=sms", false).await;
        assert_eq!(receive(&mut reader).await, "0");
        // The reader leaves without a pong; its TCP has acknowledged the frame.
        reader.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await.expect("closing");
        wait_until(|| server.counters().open() == 1).await;
        if server.unsettled() == 2 || !cfg!(target_os = "linux") {
            return;
        }
    }
    panic!("no end of a one-shot reader confirms its message");
}

#[tokio::test]
async fn a_legacy_ping_that_comes_first_is_answered_by_one_frame() {
    let server = start(|_| {}).await;
    let mut client = connect(&server, "/", false).await;
    send(&mut client, r#"{"command":"ping","channel":"sms"}"#).await;
    send(&mut client, r#"{"command":"nonsense"}"#).await;
    assert!(receive(&mut client).await.contains(r#""command":"connect""#));
    assert!(receive(&mut client).await.contains(r#""response_code":"07""#), "there is no second connect reply");
}

#[tokio::test]
async fn a_legacy_client_gets_no_frame_in_the_head_s_shadow() {
    let server = start(|_| {}).await;
    let mut client = TcpStream::connect(server.local_addrs()[0]).await.expect("connected");
    client.write_all(head("/").as_bytes()).await.expect("sent");
    let answered = std::time::Instant::now();
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && head.len() < 1_024, "{head}");
    let first = in_time(client.read_u8()).await.expect("a frame");
    assert!(answered.elapsed() >= limits::HEAD_SHADOW, "after {:?}", answered.elapsed());
    assert_eq!(first, 0x81);
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older_one_of_its_name() {
    let server = start(|_| {}).await;
    let mut modern = connect(&server, "/?topic=sms&receiver=gw", true).await;
    let mut legacy = connect(&server, "/?topic=sms&receiver=gw", false).await;
    match in_time(modern.next()).await {
        Some(Ok(Message::Close(Some(close)))) => {
            assert_eq!((close.code, close.reason.as_str()), (CloseCode::Policy, "replaced"));
        }
        other => panic!("{other:?}"),
    }
    let _newest = connect(&server, "/?topic=sms&receiver=gw", false).await;
    match in_time(legacy.next()).await {
        // The library's error for a FIN without a close frame.
        Some(Err(Error::Protocol(_) | Error::Io(_))) | None => {}
        other => panic!("a legacy connection gets no close frame: {other:?}"),
    }
}

#[tokio::test]
async fn a_receiver_that_never_reads_is_ended_as_slow_and_delays_no_other() {
    let server = start(|settings| {
        settings.limits.max_queue = 256 << 10;
        settings.broker.policies.default.keep = false;
    })
    .await;
    let _stuck = connect(&server, "/?topic=sms", false).await;
    let mut healthy = connect(&server, "/?topic=sms", true).await;
    let mut sender = connect(&server, "/?topic=sms", true).await;
    let large = "x".repeat(512 << 10);
    let (mut sent, mut heard) = (0, 0);
    while Counters::get(&server.counters().slow) == 0 {
        send(&mut sender, &large).await;
        sent += 1;
        assert_eq!(receive(&mut healthy).await.len(), large.len());
        heard += 1;
        assert!(sent < 200, "the kernel's buffers are not that large");
    }
    send(&mut sender, "done").await;
    assert_eq!(receive(&mut healthy).await, "done");
    assert_eq!((sent, Counters::get(&server.counters().slow)), (heard, 1));
}

#[tokio::test]
async fn plain_requests_and_bad_credentials_get_plain_answers() {
    let server = start(|settings| settings.access.anonymous = false).await;
    let authorized = head("/").replace("Host: x", "Host: x\r\nAuthorization: Basic eDp5");
    let table = [
        ("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), "200", "ok"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426", "WebSocket"),
        ("GET /api/channels HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), "404", ""),
        ("GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), "404", ""),
        (head("/dashboard").replace("Connection: Upgrade", "Connection: Upgrade, close"), "404", ""),
        (head("/"), "401", "WWW-Authenticate: Basic realm=\"wsmb\""),
        (authorized, "401", r#""response_code":"01""#),
        ("nonsense\r\n\r\n".to_owned(), "400", ""),
    ];
    for (sent, status, part) in table {
        let answer = request(&server, &sent).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:?}: {answer}");
        assert!(answer.contains(part) && answer.contains("Connection: close"), "{sent:?}: {answer}");
    }
    assert_eq!(server.counters().open(), 0);
}

#[tokio::test]
async fn a_connection_above_the_limit_is_refused_with_503() {
    let server = start(|settings| settings.limits.max_connections = 1).await;
    let first = connect(&server, "/", true).await;
    let answer = request(&server, &head("/")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("server.max_connections"), "{answer}");
    drop(first);
    wait_until(|| server.counters().open() == 0).await;
    connect(&server, "/", true).await;
}

#[tokio::test]
async fn a_violation_of_the_protocol_is_answered_by_its_close_code_even_to_legacy_clients() {
    let server = start(|_| {}).await;
    let mut client = TcpStream::connect(server.local_addrs()[0]).await.expect("connected");
    client.write_all(head("/?topic=sms").as_bytes()).await.expect("sent");
    read_head(&mut client).await;
    // An unmasked frame.
    client.write_all(&[0x81, 1, b'x']).await.expect("sent");
    let mut answer = Vec::new();
    in_time(client.read_to_end(&mut answer)).await.expect("an end");
    assert_eq!(answer[..4], [0x88, 2, 0x03, 0xea]);
    drop(client);
    wait_until(|| server.counters().open() == 0).await;
}

#[tokio::test]
async fn a_stop_sends_close_frames_to_modern_clients_and_keeps_unconfirmed_messages() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}", directory.path().join("wsmb.db").display());
    let server = start(|settings| settings.store.settings.url = url.clone()).await;
    let mut modern = connect(&server, "/", true).await;
    receive(&mut modern).await;
    let legacy = connect(&server, "/?topic=sms", false).await;
    wait_until(|| server.counters().open() == 2).await;
    // The legacy client never reads, so it confirms no message; its drop resets the connection.
    send(&mut modern, r#"{"command":"send-message","channel":"sms","data":["kept"]}"#).await;
    wait_until(|| server.broker_counters().deliveries == 1).await;
    let stopping = tokio::spawn(server.shutdown());
    match in_time(modern.next()).await {
        Some(Ok(Message::Close(Some(close)))) => assert_eq!(close.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    drop((modern, legacy));
    in_time(stopping).await.expect("no panic").expect("stopped");

    let server = start(|settings| settings.store.settings.url = url.clone()).await;
    let mut reader = connect(&server, "/?topic=sms", true).await;
    assert_eq!(receive(&mut reader).await, r#""kept""#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_several_threads_every_receiver_gets_all_messages_in_order() {
    everybody_gets_everything_in_order(start(|settings| settings.broker.policies.default.keep = false).await).await;
}

#[tokio::test]
async fn with_several_loops_every_receiver_gets_all_messages_in_order() {
    let server = start(|settings| {
        settings.threads = 3;
        settings.broker.policies.default.keep = false;
    })
    .await;
    everybody_gets_everything_in_order(server).await;
}

/// Uses three senders and eight receivers, so that several loops serve them.
async fn everybody_gets_everything_in_order(server: RunningServer) {
    let mut receivers = Vec::new();
    for _ in 0..8 {
        receivers.push(connect(&server, "/?topic=sms", true).await);
    }
    let mut senders = Vec::new();
    for name in ["a", "b", "c"] {
        let mut sender = connect(&server, "/?topic=sms", true).await;
        senders.push(tokio::spawn(async move {
            for number in 0..500 {
                sender.feed(Message::text(format!("{name} {number}"))).await.expect("sent");
            }
            sender.flush().await.expect("sent");
            sender
        }));
    }
    for receiver in &mut receivers {
        let mut next = [0; 3];
        for _ in 0..1_500 {
            let text = receive(receiver).await;
            let (name, number) = text.split_once(' ').expect("two words");
            let count = &mut next[usize::from(name.as_bytes()[0] - b'a')];
            assert_eq!(number, count.to_string(), "from {name}");
            *count += 1;
        }
    }
    drop((receivers, senders));
    in_time(server.shutdown()).await.expect("stopped");
}

#[tokio::test]
async fn permissions_forbid_commands_and_connections_and_a_reload_changes_them() {
    let allow = |send: &[&str], receive: &[&str]| {
        let list = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        Permissions::default().with(&["*"], &list(send), &list(receive))
    };
    let server = start(|settings| settings.access.permissions = allow(&["a"], &["b"])).await;
    let mut client = connect(&server, "/", true).await;
    receive(&mut client).await;
    send(&mut client, r#"{"command":"send-message","channel":"b","id":"1","data":[1]}"#).await;
    let answer = receive(&mut client).await;
    assert!(answer.contains(r#""response_code":"03""#) && answer.contains(r#""id":"1""#), "{answer}");
    send(&mut client, r#"{"command":"receive-message","channel":["b","a"],"data":[]}"#).await;
    let answer = receive(&mut client).await;
    assert!(answer.contains(r#""command":"receive-message","response_code":"03""#), "{answer}");
    assert!(request(&server, &head("/?topic=c")).await.starts_with("HTTP/1.1 403 "));

    // A topic connection that may only receive is ended when it sends.
    let mut topic = connect(&server, "/?topic=b", true).await;
    send(&mut topic, "x").await;
    match in_time(topic.next()).await {
        Some(Ok(Message::Close(Some(close)))) => assert_eq!(close.code, CloseCode::Policy),
        other => panic!("{other:?}"),
    }

    let Settings { broker, access, .. } = settings();
    let access = AccessSettings { permissions: allow(&["b"], &["a"]), ..access };
    server
        .reload(Reload { policies: broker.policies, access, tls: None, webhooks: vec![], needs_restart: vec![] })
        .await;
    send(&mut client, r#"{"command":"send-message","channel":"b","id":"1","data":[1]}"#).await;
    assert!(receive(&mut client).await.contains(r#""response_code":"00""#));
}

#[tokio::test]
async fn a_close_frame_is_answered_with_the_same_code() {
    let server = start(|_| {}).await;
    for (sent, code) in [(&b"\x88\x82\0\0\0\0\x0f\xa1"[..], 4001u16), (b"\x88\x80\0\0\0\0", 1000)] {
        let mut client = TcpStream::connect(server.local_addrs()[0]).await.expect("connected");
        client.write_all(head("/?topic=sms").as_bytes()).await.expect("sent");
        read_head(&mut client).await;
        client.write_all(sent).await.expect("sent");
        let mut answer = Vec::new();
        in_time(client.read_to_end(&mut answer)).await.expect("an end");
        assert_eq!(answer, [&[0x88, 2][..], &code.to_be_bytes()].concat());
    }
}

#[tokio::test]
async fn a_refusal_names_the_channel_and_its_bound() {
    let server = start(|settings| settings.broker.policies.default.max_backlog = 1).await;
    let mut client = connect(&server, "/", true).await;
    receive(&mut client).await;
    for id in ["1", "2"] {
        send(&mut client, &format!(r#"{{"command":"send-message","channel":"sms","id":"{id}","data":[1]}}"#)).await;
    }
    let (first, second) = (receive(&mut client).await, receive(&mut client).await);
    let refused = if first.contains(r#""id":"2""#) { first } else { second };
    assert!(refused.contains(r#""response_code":"06""#), "{refused}");
    assert!(refused.contains("max_backlog") && refused.contains("sms") && refused.contains(" 1 "), "{refused}");
}

#[tokio::test]
async fn a_refused_topic_message_ends_its_sender() {
    let server = start(|settings| settings.broker.policies.default.max_backlog = 1).await;
    let mut sender = connect(&server, "/?topic=sms", true).await;
    send(&mut sender, "1").await;
    send(&mut sender, "2").await;
    match in_time(sender.next()).await {
        Some(Ok(Message::Close(Some(close)))) => assert_eq!(close.code, CloseCode::Again),
        other => panic!("{other:?}"),
    }
    assert_eq!(Counters::get(&server.counters().refused), 1);
}

#[tokio::test]
async fn the_error_for_a_port_in_use_names_the_cause() {
    let server = start(|_| {}).await;
    let mut settings = settings();
    settings.listeners[0].address = server.local_addrs()[0].to_string();
    let error = Server::start(settings).await.expect_err("the port is taken").to_string();
    assert!(error.contains("in use by another program"), "{error}");
}
