//! What a broker costs while nothing happens: how soon it listens, its memory, and the memory of an idle connection.
//!
//! `cargo run --example idle -- target/release/wsmb [CONNECTIONS]` starts that program with a directory of its own, and on a port of its
//! own. Linux only (it reads `/proc`); `docs/measurements.md` says how to read the figures. It must measure and never judge: it has no limits.

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Connections a case, if the command line does not say it.
const CONNECTIONS: usize = 10_000;
/// Starts whose median is told.
const STARTS: usize = 7;
/// Memory counts when it has not changed for this long.
const STEADY: Duration = Duration::from_secs(2);
/// How long a broker is left alone before its memory counts: what runs every second or two has run once.
const START: Duration = Duration::from_secs(4);
/// What a client waits for at most: longer than the broker's default heartbeat.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that runs; it is killed when this is dropped.
struct Broker {
    child: Child,
    address: String,
    /// What a first start showed.
    password: Option<String>,
    /// From the start of the program to its line "wsmb is listening".
    took: Duration,
}

impl Broker {
    fn start(program: &str, directory: &Path) -> Result<Self> {
        let before = Instant::now();
        let child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--set", "log.level=error", "--data-dir"])
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|cause| format!("{program} cannot be started: {cause}"))?;
        let mut broker = Self { child, address: String::new(), password: None, took: Duration::ZERO };
        let mut output = BufReader::new(broker.child.stdout.take().ok_or("the broker has no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        broker.took = before.elapsed();
        let address = line.trim().strip_prefix("wsmb is listening on ws://");
        address.ok_or_else(|| format!("the broker said {line:?}"))?.clone_into(&mut broker.address);
        // A first start goes on with the user that it made, and ends with the example of a sender. (The log goes to standard error.)
        while !directory.join("known").exists() {
            line.clear();
            if output.read_line(&mut line)? == 0 || line.contains(" send sms ") {
                break;
            }
            if let Some(rest) = line.trim_start().strip_prefix("password") {
                broker.password = rest.split_whitespace().next().map(str::to_owned);
            }
        }
        Ok(broker)
    }

    /// A line of `/proc/PID/status`, in bytes: resident memory, or the anonymous part of it.
    fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kilobytes =
            line.and_then(|line| line.split_whitespace().next()).ok_or("no such line in /proc/PID/status")?;
        Ok(kilobytes.parse::<u64>()? * 1024)
    }

    /// Its resident memory when that has come to rest.
    fn at_rest(&self) -> Result<u64> {
        let mut last = self.memory("VmRSS")?;
        let mut since = Instant::now();
        while since.elapsed() < STEADY {
            std::thread::sleep(STEADY / 10);
            let now = self.memory("VmRSS")?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    /// A modern connection whose handshake is over.
    fn connect(&self, target: &str, authorization: &str) -> Result<TcpStream> {
        let mut socket = TcpStream::connect(&self.address)
            .map_err(|cause| format!("no further connection can be opened ({cause}); `ulimit -n` may be too low"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: wsmb.v1\r\n\
             Authorization: Basic {authorization}\r\n\r\n",
            self.address
        );
        socket.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if head.starts_with(b"HTTP/1.1 101 ") { Ok(socket) } else { Err(String::from_utf8_lossy(&head).into()) }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to be done about either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the next ping, the connect reply passed over, and answers it, as every client does.
fn answer_ping(mut socket: &TcpStream) -> Result<()> {
    loop {
        let mut head = [0; 2];
        socket.read_exact(&mut head)?;
        let mut length = [0, head[1]];
        if head[1] == 126 {
            socket.read_exact(&mut length)?;
        }
        let mut payload = vec![0; usize::from(u16::from_be_bytes(length))];
        socket.read_exact(&mut payload)?;
        if head[0] == 0x89 {
            let mut pong = vec![0x8A, 0x80 | head[1], 0, 0, 0, 0];
            pong.extend_from_slice(&payload);
            return Ok(socket.write_all(&pong)?);
        }
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().ok_or("usage: cargo run --example idle -- PROGRAM [CONNECTIONS]")?;
    let connections = arguments.next().map_or(Ok(CONNECTIONS), |number| number.parse())?;
    let directory = tempfile::tempdir()?;

    // The first start makes a user, which takes time on purpose; it is not measured.
    let mut first = Broker::start(&program, directory.path())?;
    let password = first.password.take().ok_or("the first start showed no password")?;
    drop(first);
    let authorization = base64::engine::general_purpose::STANDARD.encode(format!("wsmb:{password}"));
    fs::write(directory.path().join("known"), "")?;

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(Broker::start(&program, directory.path())?.took);
    }
    starts.sort_unstable();
    println!("start to the line \"wsmb is listening\": {:.1?}, the median of {STARTS}", starts[STARTS / 2]);

    let idle = Broker::start(&program, directory.path())?;
    std::thread::sleep(START);
    let (resident, anonymous) = (idle.at_rest()?, idle.memory("RssAnon")?);
    println!("idle memory: {} KiB resident, {} KiB of it anonymous", resident / 1024, anonymous / 1024);
    drop(idle);

    println!("{connections} idle connections, bytes of resident memory each:");
    for (name, target) in [
        ("envelope", "/"),
        ("topic, all on one channel", "/ws?topic=idle"),
        ("topic, each on a channel of its own", "/ws?topic=idle-#"),
    ] {
        let broker = Broker::start(&program, directory.path())?;
        std::thread::sleep(START);
        // The first login is hashed; what that leaves behind is not the connections'.
        drop(broker.connect("/", &authorization)?);
        let before = broker.at_rest()?;
        let sockets = (0..connections)
            .map(|at| broker.connect(&target.replace('#', &at.to_string()), &authorization))
            .collect::<Result<Vec<_>>>()?;
        let opened = broker.at_rest()?.saturating_sub(before) / connections as u64;
        sockets.iter().try_for_each(answer_ping)?;
        let pinged = broker.at_rest()?.saturating_sub(before) / connections as u64;
        println!("  {name}: {opened} when opened, {pinged} after the first heartbeat");
    }
    Ok(())
}
