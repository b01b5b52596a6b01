//! The HTTP interface behind nginx, with nginx's default buffering.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::broker::{PASSWORD, USER};
use crate::client::Client;
use crate::routes::{self, Proxy, Route};

const PATH: &str = "/api/v1/channels/sms/messages";

fn curl(address: SocketAddr, arguments: &[&str], path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "60", "--noproxy", "*"]);
    command.args(["--user", &format!("{USER}:{PASSWORD}")]).args(arguments).arg(format!("http://{address}{path}"));
    command
}

#[track_caller]
fn answer(address: SocketAddr, arguments: &[&str], path: &str) -> String {
    let output = curl(address, arguments, path).output().expect("curl; `cargo xtask test` installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A stream of deliveries that curl reads. It ends when dropped.
struct Stream {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Stream {
    fn open(address: SocketAddr, accept: &str) -> Self {
        let mut command = curl(address, &["--no-buffer", "--header", &format!("Accept: {accept}")], PATH);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("curl");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, lines }
    }

    /// The next line that contains `text`. curl ends after a minute.
    #[track_caller]
    fn line(&mut self, text: &str) -> String {
        let found = self.lines.by_ref().map(|line| line.expect("a line")).find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("the stream ended without {text:?}"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_delivery_of_a_stream_passes_nginx_at_once() {
    let broker = Route::Nginx.setup().start();
    let proxy = Proxy::start(Route::Nginx, &broker).expect("nginx");
    let mut events = Stream::open(proxy.address(), "text/event-stream");
    events.line(": connected");
    let mut lines = Stream::open(proxy.address(), "application/x-ndjson");
    lines.line("");
    for number in 0..3 {
        let sent = answer(proxy.address(), &["--data", &number.to_string()], PATH);
        assert!(sent.contains(r#""outcome":"stored","receivers":2"#), "{sent}");
        // The stream is open, and short.
        let delivery = events.line("data: ");
        assert!(delivery.contains(&format!("\"data\":[{number}]")), "{delivery}");
        lines.line(&format!("\"data\":[{number}]"));
    }
}

/// Passes connections on to the broker, and counts them.
fn counting(target: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, count) = (listener.local_addr().expect("its address"), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let server = TcpStream::connect(target).expect("the broker");
            let (mut from, mut to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut &server, &mut &client));
        }
    });
    (address, count)
}

#[test]
fn a_websocket_follows_requests_on_the_same_connection_of_nginx() {
    let mut broker = Route::Nginx.setup().start();
    let (between, connections) = counting(broker.address());
    let documented = routes::example("nginx", "upstream wsmb");
    let upstream = format!("http {{\n{}", documented.replace("127.0.0.1:8888", &between.to_string()));
    let pass = format!("proxy_pass http://{};", broker.address());
    let edits = [("http {\n", &*upstream), (&*pass, "proxy_pass http://wsmb;"), ("\"upgrade\"", "$kept")];
    let proxy = Proxy::start_edited(Route::Nginx, &broker, &edits).expect("nginx");
    for number in 0..3 {
        answer(proxy.address(), &["--data", &number.to_string()], PATH);
    }
    broker.set_proxy(Some(proxy.address()));
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(3), [0, 1, 2]);
    assert_eq!(connections.load(Ordering::Relaxed), 1, "connections from nginx to the broker");
    // The next request needs a connection of its own.
    let sent = answer(proxy.address(), &["--data", "3"], PATH);
    assert!(sent.contains(r#""receivers":1"#), "{sent}");
    assert_eq!((receiver.numbers(1), connections.load(Ordering::Relaxed)), (vec![3], 2));
}
