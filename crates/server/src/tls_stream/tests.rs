//! An encrypted connection over a real socket with a small buffer: partial writes, the end, and the acknowledged bytes.

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use tokio::net::TcpListener;

use super::*;

type Client = StreamOwned<ClientConnection, StdStream>;

/// Returns both ends of a connection whose handshake is complete. The server's socket takes only a few thousand bytes.
async fn connection() -> (TlsStream, Client) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&listener).set_send_buffer_size(2 << 10).unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::task::spawn_blocking(move || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(2 << 10).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream: StdStream = socket.into();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut tls = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        StreamOwned::new(tls, stream)
    });
    let (stream, _) = listener.accept().await.unwrap();
    let mut state = TlsState::new(UnbufferedServerConnection::new(Arc::new(server)).unwrap());
    let mut input = Vec::new();
    loop {
        stream.readable().await.unwrap();
        let _ = stream.try_read_buf(&mut input);
        let progress = state.shake(&mut input).unwrap();
        let output = state.take_output();
        let mut written = 0;
        while written < output.len() {
            stream.writable().await.unwrap();
            written += stream.try_write(&output[written..]).unwrap_or(0);
        }
        if progress == Progress::Traffic {
            break;
        }
    }
    (TlsStream::new(stream, state), client.await.unwrap())
}

fn is_blocked(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn of_a_write_that_the_socket_does_not_take_the_last_byte_is_reported_when_all_have_left() {
    let (server, mut client) = connection().await;
    for size in [50_000, 1, 20_000, limits::TLS_WRITE + 30_000] {
        let sent: Vec<u8> = (0..size).map(|number| (number % 251) as u8).collect();
        let first = size.min(limits::TLS_WRITE);
        let count = server.try_write(&sent).unwrap();
        if size > 1 {
            assert_eq!(count, first - 1, "the socket takes less than {size} bytes");
            // Nothing is taken twice, and nothing is lost, however often the caller comes.
            assert!(is_blocked(&server.try_write(&sent[count..])) && is_blocked(&server.try_write(&sent[count..])));
            assert!(server.unacknowledged().unwrap() >= 1);
        }
        let reading = tokio::task::spawn_blocking(move || {
            let mut got = vec![0; size];
            client.read_exact(&mut got).unwrap();
            (got, client)
        });
        let mut left = &sent[count..];
        while !left.is_empty() {
            server.stream().writable().await.unwrap();
            match server.try_write(left) {
                Ok(count) => left = &left[count..],
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let got;
        (got, client) = reading.await.unwrap();
        assert!(got == sent, "{size} bytes");
        // The peer's TCP may acknowledge late.
        while server.unacknowledged() != Some(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(server.held(), 0);
    }
}

#[tokio::test]
async fn an_end_for_which_the_socket_has_no_room_is_announced_later() {
    let (server, mut client) = connection().await;
    let sent = vec![7; limits::TLS_WRITE];
    let count = server.try_write(&sent).unwrap();
    assert!(count < sent.len());
    // The queue would not end before the last byte is taken. The end must not overtake kept bytes even then.
    server.finish().unwrap();
    assert!(server.unacknowledged().unwrap() >= 1);
    let reading = tokio::task::spawn_blocking(move || {
        let mut got = Vec::new();
        // Fails if the end is not announced.
        client.read_to_end(&mut got).unwrap();
        got
    });
    // The session's task waits for input.
    let waiting = std::future::poll_fn(|cx| server.poll_read_ready(cx));
    let _ = tokio::time::timeout(Duration::from_millis(200), waiting).await;
    let got = tokio::select! {
        got = reading => got.unwrap(),
        () = async { loop {
            std::future::poll_fn(|cx| server.poll_read_ready(cx)).await;
            tokio::task::yield_now().await;
        } } => unreachable!(),
    };
    assert_eq!(got, sent);
}

#[tokio::test]
async fn records_that_arrive_in_pieces_or_do_not_fit_are_read_whole() {
    let (server, mut client) = connection().await;
    let sent: Vec<u8> = (0..60_000).map(|number| (number % 253) as u8).collect();
    let wanted = sent.clone();
    let writing = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        client
    });
    let (mut got, mut buffer) = (Vec::new(), [0; 1_000]);
    loop {
        std::future::poll_fn(|cx| server.poll_read_ready(cx)).await;
        match server.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(server.held() <= 20_000, "{}", server.held());
    }
    assert!(got == wanted);
    // The peer has ended only its own direction.
    assert_eq!(server.try_write(b"answer").unwrap(), 6);
    let mut client = writing.join().unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!((&answer, server.held()), (b"answer", 0));
    drop(server);
    assert_eq!(client.read(&mut answer).unwrap(), 0, "the end was announced");
}

/// Reads until there is an error.
async fn read_error(server: &TlsStream) -> io::ErrorKind {
    loop {
        std::future::poll_fn(|cx| server.poll_read_ready(cx)).await;
        match server.try_read(&mut [0; 10]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.unwrap_err().kind(),
        }
    }
}

#[tokio::test]
async fn an_end_without_announcement_is_an_error_and_a_changed_record_too() {
    let (server, client) = connection().await;
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_error(&server).await, io::ErrorKind::UnexpectedEof);

    let (server, mut client) = connection().await;
    // A record of application data that nobody has encrypted.
    client
        .sock
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        .unwrap();
    assert_eq!(read_error(&server).await, io::ErrorKind::InvalidData);
    assert!(server.try_write(b"x").is_err());
    assert!(client.read(&mut [0; 1]).unwrap_err().to_string().contains("BadRecordMac"), "the client gets an alert");
}
