//! The example of `docs/webhooks.md`, executed with the installed PHP.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::broker::Setup;
use crate::http::publish;

const PAGE: &str = include_str!("../../../docs/webhooks.md");

/// The first code block of the page in this language.
#[track_caller]
fn block(language: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("the end of the block").0
}

/// PHP's server; killed when dropped.
struct Php(Child);

impl Drop for Php {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_script_of_the_page_gets_the_first_call_and_refuses_a_forged_one() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("hook.php"), block("php")).expect("a script");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    let php = Command::new("php")
        .args(["-d", "error_reporting=-1", "-S", &free.to_string(), "hook.php"])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("php; `cargo xtask test` installs it");
    let mut php = Php(php);
    let mut lines = BufReader::new(php.0.stderr.take().expect("a pipe")).lines();
    let mut until = |text: &str| loop {
        let line = lines.next().expect("a line").expect("text");
        assert!(!line.contains("Warning") && !line.contains("Fatal"), "{line}");
        if line.contains(text) {
            return;
        }
    };
    until("started");
    let webhook = block("toml").replace("[[webhook]]\n", "").replace("127.0.0.1:9000", &free.to_string());
    let broker = Setup::default().webhook(&webhook).start();
    let response = publish(&broker, "sms", "?wait=20s", r#"{"text":"hello"}"#);
    assert_eq!(response.json()["outcome"], "delivered", "{response:?}\n{}", broker.log().tail());
    until(r#"sms: {"text":"hello"}"#);
    // With another secret.
    broker.reconfigure(|text| text.replace("whsec_MfKQ9r8", "whsec_MfKQ9r9"));
    broker.wait_for_log("reloaded");
    publish(&broker, "sms", "", "1");
    broker.wait_for_log("the answer is 401");
}
