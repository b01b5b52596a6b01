//! The other side of a webhook: an HTTP server whose answers a test decides, and which can also misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::{Broker, PATIENCE};

/// A request that has arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// The number of this request at the endpoint, from 0.
    pub number: usize,
    /// The number of the connection on which it came, from 0.
    pub connection: usize,
    pub at: Instant,
    pub line: String,
    /// The names are in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Call {
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name}: {self:?}"), |(_, value)| value)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn data(&self) -> Value {
        self.json()["data"].clone()
    }
}

/// What the endpoint does with a request.
pub enum Reply {
    /// Answers with this status and a short body.
    Status(u16),
    /// Writes these bytes.
    Raw(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Answers nothing, and keeps the connection open.
    Silence,
}

/// An HTTP server on a port of its own.
pub struct Endpoint {
    pub address: SocketAddr,
    calls: Receiver<Call>,
}

impl Endpoint {
    /// Starts an endpoint that answers each request with what `decide` returns.
    pub fn start(decide: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"), decide)
    }

    /// Starts an endpoint that answers every request with this status.
    pub fn with_status(status: u16) -> Self {
        Self::start(move |_| Reply::Status(status))
    }

    /// Like [`Self::start`], on this socket.
    pub fn on(listener: TcpListener, decide: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(listener, None, decide)
    }

    /// Starts an endpoint that speaks TLS, and answers every request with 200.
    pub fn secure(config: Arc<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        Self::with(listener, Some(config), |_| Reply::Status(200))
    }

    fn with(
        listener: TcpListener,
        secured: Option<Arc<rustls::ServerConfig>>,
        decide: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let (sender, calls) = channel();
        let (decide, numbers) = (Arc::new(decide), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let (sender, decide, numbers) = (sender.clone(), decide.clone(), numbers.clone());
                let secured = secured.clone();
                std::thread::spawn(move || {
                    let socket = stream.try_clone().expect("a second handle of the socket");
                    match secured {
                        None => serve(stream, &socket, connection, &sender, &*decide, &numbers),
                        Some(config) => {
                            let tls = rustls::ServerConnection::new(config).expect("a connection");
                            let stream = rustls::StreamOwned::new(tls, stream);
                            serve(stream, &socket, connection, &sender, &*decide, &numbers);
                        }
                    }
                });
            }
        });
        Self { address, calls }
    }

    /// The next request.
    #[track_caller]
    pub fn next(&self, broker: &Broker) -> Call {
        let next = self.calls.recv_timeout(PATIENCE);
        next.unwrap_or_else(|_| panic!("no request; log:\n{}", broker.log().tail()))
    }

    /// The data of the next requests.
    #[track_caller]
    pub fn data(&self, broker: &Broker, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.next(broker).data()).collect()
    }

    /// Fails if a request arrives within this time.
    #[track_caller]
    pub fn expect_nothing(&self, time: Duration) {
        if let Ok(call) = self.calls.recv_timeout(time) {
            panic!("an unexpected request: {call:?}");
        }
    }
}

/// `socket`: the socket of `stream`.
fn serve(
    stream: impl Read + Write,
    socket: &TcpStream,
    connection: usize,
    sender: &Sender<Call>,
    decide: &(impl Fn(&Call) -> Reply + ?Sized),
    numbers: &AtomicUsize,
) {
    let mut reader = BufReader::new(stream);
    while let Some(call) = read(&mut reader) {
        let call = Call { number: numbers.fetch_add(1, Ordering::Relaxed), connection, ..call };
        let reply = decide(&call);
        // The test may have ended.
        let _ = sender.send(call);
        let bytes = match reply {
            Reply::Status(status) => format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok").into_bytes(),
            Reply::Raw(bytes) => bytes,
            Reply::Reset => {
                let socket = socket2::SockRef::from(socket);
                socket.set_linger(Some(Duration::ZERO)).expect("a socket");
                return;
            }
            Reply::Silence => {
                // Until the client closes the connection.
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        // The client may have had enough.
        if reader.get_mut().write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Reads a request, without its numbers; `None` at the end of the connection.
fn read(reader: &mut impl BufRead) -> Option<Call> {
    let mut next_line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        Some(line.trim_end().to_owned())
    };
    let line = next_line()?;
    let mut headers = Vec::new();
    loop {
        let line = next_line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    Some(Call { number: 0, connection: 0, at: Instant::now(), line, headers, body })
}
