//! The HTTP client of one webhook: sends a request and reads the head of the answer; keeps connections for the next requests.
//!
//! Never here: a redirect; the meaning of an answer; more than [`limits::WEBHOOK_ANSWER`] bytes of an answer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::RETRY_AFTER;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::problem::Problem;
use super::{address, pace};
use crate::limits;
use crate::settings::Webhook;

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
}

/// A connection on which one request after another is sent.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes the socket.
    task: JoinHandle<()>,
    used: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The client of one webhook.
pub(super) struct Client {
    host: String,
    port: u16,
    private: bool,
    /// For `https://`: the file with the trusted certificates, if there is one.
    authorities: Option<Option<PathBuf>>,
    /// Made for the first connection, because the system's certificates are in many files.
    tls: OnceCell<TlsConnector>,
    timeout: Duration,
    lookups: Arc<Semaphore>,
    /// Connections without a request. At most one for each request at the same time.
    idle: Mutex<Vec<Connection>>,
}

impl Client {
    pub(super) fn new(settings: &Webhook, lookups: Arc<Semaphore>) -> Self {
        Self {
            host: settings.host.clone(),
            port: settings.port,
            private: settings.allow_private,
            authorities: settings.is_encrypted.then(|| settings.ca.clone()),
            tls: OnceCell::new(),
            timeout: settings.timeout,
            lookups,
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request. The answer's body is read within the same time and dropped, so that the connection can be used again; it decides nothing.
    pub(super) async fn send(&self, request: &Request<Full<Bytes>>) -> Result<Answer, Problem> {
        let deadline = Instant::now() + self.timeout;
        let exchange = timeout_at(deadline, self.exchange(request)).await;
        let (response, connection) = exchange.map_err(|_| Problem::Slow(self.timeout))??;
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|value| pace::retry_after(value, SystemTime::now()));
        let answer = Answer { status: response.status(), retry_after };
        if let Ok(true) = timeout_at(deadline, read_to_end(response.into_body())).await {
            self.keep(connection);
        }
        Ok(answer)
    }

    async fn exchange(&self, request: &Request<Full<Bytes>>) -> Result<(Response<Incoming>, Connection), Problem> {
        if let Some(kept) = self.kept() {
            // The server may have closed a kept connection while the request was on its way. The receiver knows the id if it has seen the request.
            if let Ok(done) = exchange_on(kept, request).await {
                return Ok(done);
            }
        }
        exchange_on(self.connect().await?, request).await
    }

    async fn connect(&self) -> Result<Connection, Problem> {
        let addresses = address::resolve((&self.host, self.port), self.private, &self.lookups).await?;
        let stream = self.connect_to(&addresses).await?;
        // An error only makes requests slower.
        let _ = stream.set_nodelay(true);
        match &self.authorities {
            None => open(stream).await,
            Some(ca) => open(self.encrypt(stream, ca).await?).await,
        }
    }

    async fn encrypt(&self, stream: TcpStream, ca: &Option<PathBuf>) -> Result<TlsStream<TcpStream>, Problem> {
        let make = || async {
            let ca = ca.clone();
            let config = tokio::task::spawn_blocking(move || wsmb_tls::client::config(ca.as_deref()));
            let config = config.await.map_err(|error| Problem::Tls(error.to_string()))?;
            config.map(|config| TlsConnector::from(Arc::new(config))).map_err(|fault| Problem::Tls(fault.to_string()))
        };
        let connector = self.tls.get_or_try_init(make).await?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| Problem::Tls(error.to_string()))?;
        connector.connect(name, stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            Problem::Tls(cause.map_or_else(|| error.to_string(), wsmb_tls::client::reason))
        })
    }

    /// Connects to the first address that answers. Each gets its share of the time.
    async fn connect_to(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Problem> {
        let share = self.timeout / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        let mut problem = Problem::Unknown;
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => problem = Problem::Connect(error),
                Err(_) => problem = Problem::Slow(share),
            }
        }
        Err(problem)
    }

    /// The connection that was used last, if it is open.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|kept| !kept.sender.is_closed() && kept.used.elapsed() < limits::WEBHOOK_IDLE);
        idle.pop()
    }

    fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        self.idle().push(connection);
    }
}

/// Begins HTTP on a stream.
async fn open(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection, Problem> {
    let builder = http1::Builder::new().max_buf_size(limits::HTTP_BUFFER).clone();
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Problem::Broken)?;
    let task = tokio::spawn(async move {
        // The request on the connection gets the error.
        let _ = connection.await;
    });
    Ok(Connection { sender, task, used: Instant::now() })
}

async fn exchange_on(
    mut connection: Connection,
    request: &Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Connection), Problem> {
    connection.sender.ready().await.map_err(Problem::Broken)?;
    let response = connection.sender.send_request(request.clone()).await.map_err(Problem::Broken)?;
    Ok((response, connection))
}

/// Reads a body and drops it. Returns whether the connection can be used again.
async fn read_to_end(mut body: Incoming) -> bool {
    let mut size = 0;
    while size <= limits::WEBHOOK_ANSWER {
        match body.frame().await {
            Some(Ok(frame)) => size += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return false,
            None => return true,
        }
    }
    body.is_end_stream()
}
