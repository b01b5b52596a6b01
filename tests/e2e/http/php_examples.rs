//! The PHP examples that use HTTP: a page that sends a code, and a receiver. `php_examples` checks that they need PHP 7.4 only.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::publish;
use crate::broker::{Broker, PASSWORD, PATIENCE, Setup, USER};
use crate::client::Client;

/// PHP with the user of the test.
fn php() -> Command {
    let mut command = Command::new("php");
    command.args(["-d", "display_errors=stderr", "-d", "error_reporting=-1"]);
    command.envs([("WSMB_USER", USER), ("WSMB_PASSWORD", PASSWORD), ("no_proxy", "*")]);
    command
}

fn example(name: &str) -> std::path::PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples")).join(name)
}

/// PHP's own server with the page `otp.php`. It ends when dropped.
struct Page {
    child: Child,
    url: String,
}

impl Page {
    fn start(broker: &Broker) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let mut command = php();
        command.args(["-S", &address.to_string()]).arg(example("otp.php"));
        command.env("WSMB_HTTP", format!("http://{}", broker.address()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("php");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "PHP's server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, url: format!("http://{address}/") }
    }

    /// Fills in the form with `receiver`. Returns the page.
    fn post(&self, receiver: &str) -> String {
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--data-urlencode", &format!("receiver={receiver}"), &self.url]);
        String::from_utf8(command.output().expect("curl").stdout).expect("text")
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `poll.php` for this number of messages.
fn poll(broker: &Broker, channel: &str, count: &str) -> Output {
    let mut command = php();
    command.arg(example("poll.php")).arg(format!("http://{}", broker.address())).args([channel, count]);
    command.output().expect("php")
}

#[test]
fn the_page_tells_the_outcome_of_its_code() {
    let broker = Broker::start();
    let page = Page::start(&broker);
    // The gateway comes back while the page waits.
    let said = std::thread::scope(|scope| {
        let said = scope.spawn(|| page.post("0812 \"<b>"));
        let output = poll(&broker, "sms", "1");
        let message: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a message");
        assert_eq!(message["receiver"], json!("0812 \"<b>"));
        assert!(message["message"].as_str().is_some_and(|text| text.starts_with("Your code is ")), "{message}");
        said.join().expect("a page")
    });
    assert!(said.contains("The code is on its way."), "{said}");
    let broker = Setup::default().defaults("keep = false").start();
    let said = Page::start(&broker).post("0812");
    assert!(said.contains("The code was not sent. Please try again."), "{said}");
}

#[test]
fn the_poll_receives_in_batches_and_confirms_them() {
    let broker = Broker::start();
    for number in 0..12 {
        publish(&broker, "sms", "", &format!(r#"{{"n":{number},"iccid":89620012345678901234}}"#));
    }
    for numbers in [0..11, 11..12] {
        let output = poll(&broker, "sms", &numbers.len().to_string());
        let wanted: String =
            numbers.map(|number| format!("{{\"n\":{number},\"iccid\":\"89620012345678901234\"}}\n")).collect();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()),
            (Some(0), wanted),
            "{output:?}"
        );
    }
    let mut other = Client::receiver(&broker, "sms");
    other.expect_nothing_yet();
    let output = poll(&broker, "", "1");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "400 the channel name is empty\n");
}
