//! A page in Chromium, with the functions of `docs/http.md`: what it may do depends on its origin. `cargo xtask test` installs Chromium.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::page::{DOCUMENTED, blocks};
use crate::broker::{Broker, PASSWORD, PATIENCE, Setup, USER};
use crate::client::Client;

/// Sends to itself with `fetch`, then connects with a WebSocket. Reports to the server of the page.
const SCRIPT: &str = r"
async function attempt() {
  const seen = { messages: [] };
  receive('sms', (message) => seen.messages.push(message)).catch((error) => { seen.stream = error.name; });
  try {
    seen.outcome = (await send('sms', { n: 1 })).outcome;
  } catch (error) {
    seen.outcome = error.name;
  }
  seen.socket = await new Promise((resolve) => {
    const socket = new WebSocket('ws://USER@ADDRESS/', ['wsmb.v1']);
    socket.onopen = () => resolve('open');
    socket.onerror = () => resolve('refused');
  });
  await fetch('/result', { method: 'POST', body: JSON.stringify(seen) });
}
attempt();
";

/// A server of one page, and the origin of the page.
struct Site {
    listener: TcpListener,
    origin: String,
}

impl Site {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let origin = format!("http://{}", listener.local_addr().expect("its address"));
        Self { listener, origin }
    }

    /// Answers requests until the page reports.
    #[track_caller]
    fn serve(&self, page: &str) -> Value {
        self.listener.set_nonblocking(true).expect("a listener");
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            match self.listener.accept() {
                // Chromium opens connections that it does not use.
                Ok((connection, _)) => {
                    if let Ok(Some(report)) = answer(&connection, page) {
                        return serde_json::from_str(&report).expect("a report");
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            assert!(Instant::now() < deadline, "the page does not report: does Chromium start?");
        }
    }
}

/// Answers one request. Returns the body of a `POST`.
fn answer(connection: &TcpStream, page: &str) -> std::io::Result<Option<String>> {
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(PATIENCE / 20))?;
    let mut reader = BufReader::new(connection);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head)? > 2 {
        let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        length = line.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap_or(0));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let head_of_page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
    write!(&*connection, "{head_of_page}Content-Length: {}\r\n\r\n{page}", page.len())?;
    Ok(head.starts_with("POST ").then(|| String::from_utf8_lossy(&body).into_owned()))
}

/// A browser, which ends with all its processes when dropped.
struct Browser(Child);

impl Browser {
    fn open(url: &str, profile: &std::path::Path) -> Self {
        let installed = |name: &&str| Command::new(name).arg("--version").output().is_ok();
        let name = ["chromium", "google-chrome"].into_iter().find(installed);
        let mut command = Command::new(name.expect("chromium; `cargo xtask test` installs it"));
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg(url).env("HOME", profile);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Self(command.spawn().expect("a browser"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = libc::pid_t::try_from(self.0.id()).expect("a process id");
        // SAFETY: `kill` touches no memory of this process; the child, which leads its group, has not been waited for.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

/// What the page of this site can do.
fn attempt(broker: &Broker, site: &Site) -> Value {
    let blocks = blocks(include_str!("../../../docs/http.md"));
    let functions = &blocks.iter().find(|block| block.language == "js").expect("the functions").text;
    let address = broker.address().to_string();
    let script = SCRIPT.replace("USER@ADDRESS", &format!("{USER}:{PASSWORD}@{address}"));
    let functions = functions.replace(DOCUMENTED, &address);
    let profile = tempfile::tempdir().expect("a directory");
    let browser = Browser::open(&site.origin, profile.path());
    let report = site.serve(&format!("<!doctype html><title>a page</title><script>{functions}{script}</script>"));
    drop(browser);
    report
}

#[test]
fn a_page_of_a_listed_origin_sends_and_receives_and_another_one_cannot() {
    let (listed, foreign) = (Site::new(), Site::new());
    let broker = Setup::default().server(&format!("origins = [\"{}\"]", listed.origin)).start();
    let refused = json!({"messages": [], "outcome": "TypeError", "stream": "TypeError", "socket": "refused"});
    assert_eq!(attempt(&broker, &foreign), refused);
    let mut receiver = Client::receiver(&broker, "sms");
    receiver.expect_nothing_yet();
    drop(receiver);
    let allowed = json!({"messages": [{"n": 1}], "outcome": "delivered", "socket": "open"});
    assert_eq!(attempt(&broker, &listed), allowed, "{}", broker.log().tail());
}
