//! Measures how long a reconnect storm takes: clients, each with its own bcrypt password, log in, lose all connections at once, and log in again.
//!
//! `cargo run --release --example reconnect -- target/release/wsmb [CLIENTS]` starts this program with its own directory, on a free port. The limit of
//! open files (`ulimit -n`) must be larger than the number of clients. Only measures: no figure is a failure.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The number of clients, if the command line has none.
const CLIENTS: usize = 10_000;
/// The number of clients that log in at the same time.
const AT_ONCE: usize = 50;
/// The password of all users, and its hash (bcrypt, cost 5, as `htpasswd -B` makes it; from crypt_blowfish's test vectors). The broker still verifies
/// each user, because its cache has an entry for each pair of user and password.
const PASSWORD: &str = "U*U";
const HASH: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// A running broker. Dropping the value kills it.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(address: &str, user: usize) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let authorization = base64::engine::general_purpose::STANDARD.encode(format!("u{user}:{PASSWORD}"));
    let request = format!(
        "GET /?topic=idle HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: wsmb.v1\r\nAuthorization: Basic {authorization}\r\n\r\n"
    );
    socket.write_all(request.as_bytes())?;
    let (mut head, mut part) = (Vec::new(), [0; 512]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match socket.read(&mut part)? {
            0 => return Err(String::from_utf8_lossy(&head).into()),
            count => head.extend_from_slice(&part[..count]),
        }
    }
    if head.starts_with(b"HTTP/1.1 101 ") { Ok(socket) } else { Err(String::from_utf8_lossy(&head).into()) }
}

/// Connects all clients, [`AT_ONCE`] at a time. Returns their sockets and the time that it took.
fn connect_all(address: &str, clients: usize) -> Result<(Vec<TcpStream>, Duration)> {
    let began = Instant::now();
    let share = |first: usize| move || (first..clients).step_by(AT_ONCE).map(|user| connect(address, user)).collect();
    let sockets: Vec<Result<Vec<TcpStream>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|first| scope.spawn(share(first))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread of clients has panicked")?).collect()
    });
    let sockets: Result<Vec<Vec<TcpStream>>> = sockets.into_iter().collect();
    Ok((sockets?.into_iter().flatten().collect(), began.elapsed()))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().ok_or("usage: cargo run --example reconnect -- PROGRAM [CLIENTS]")?;
    let clients = arguments.next().map_or(Ok(CLIENTS), |number| number.parse())?;
    let directory = tempfile::tempdir()?;
    let mut users = String::new();
    (0..clients).try_for_each(|user| writeln!(users, "u{user}:{HASH}"))?;
    std::fs::create_dir_all(directory.path())?;
    std::fs::write(directory.path().join(".htpasswd"), users)?;
    let mut broker = Broker(
        Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--set", "log.level=error", "--data-dir"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|cause| format!("{program} cannot be started: {cause}"))?,
    );
    let mut line = String::new();
    BufReader::new(broker.0.stdout.take().ok_or("the broker has no output")?).read_line(&mut line)?;
    let address =
        line.trim().strip_prefix("wsmb is listening on ws://").ok_or_else(|| format!("the broker said {line:?}"))?;
    for round in ["the first time, each password hashed", "again, each password cached"] {
        let (sockets, took) = connect_all(address, clients)?;
        println!("{} clients logged in, {round}: {:.2} s", sockets.len(), took.as_secs_f64());
    }
    Ok(())
}
