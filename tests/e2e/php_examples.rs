//! Runs the PHP examples of `examples/`.
//!
//! The examples are written for PHP 7.4 to 8.x. The tests run them with the installed PHP, and search their text for features newer than 7.4.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::json;

use crate::broker::{Broker, PASSWORD, Setup, USER};
use crate::client::Client;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

/// The command that runs a script with the right user and password.
fn script(folder: &Path, name: &str) -> Command {
    let mut command = Command::new("php");
    command.args(["-d", "display_errors=stderr", "-d", "error_reporting=-1"]);
    command.arg(folder.join(name)).envs([("WSMB_USER", USER), ("WSMB_PASSWORD", PASSWORD)]);
    command
}

fn address(broker: &Broker) -> String {
    format!("ws://{}", broker.address())
}

/// Runs `send.php`. Returns its exit code, standard output and standard error.
fn send(
    address: &str,
    arguments: &[&str],
    more: impl FnOnce(&mut Command) -> &mut Command,
) -> (Option<i32>, String, String) {
    let mut command = script(Path::new(EXAMPLES), "send.php");
    command.arg(address).args(arguments);
    more(&mut command);
    let output = command.output().expect("php; `cargo xtask test` installs it");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn sent(broker: &Broker, arguments: &[&str]) -> String {
    let (code, said, errors) = send(&address(broker), arguments, |command| command);
    assert_eq!((code, &*errors), (Some(0), ""), "{said}\n{}", broker.log().tail());
    said
}

/// A running `receive.php`, and its output.
struct Receiver {
    child: Child,
    printed: BufReader<ChildStdout>,
}

impl Receiver {
    fn start(folder: &Path, broker: &Broker, arguments: &[&str]) -> Self {
        let mut command = script(folder, "receive.php");
        command.arg(address(broker)).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("php");
        let printed = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, printed }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.printed.read_line(&mut line).expect("a line");
        line.trim_end_matches('\n').to_owned()
    }

    /// Waits for the end. Returns the exit code and standard error.
    fn end(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().expect("its end");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    }
}

#[test]
fn the_sender_waits_until_its_message_is_safe() {
    let broker = Setup::default().channel("live", "keep = false").start();
    let long = json!({"text": "é".repeat(40_000)}).to_string();
    assert_eq!(sent(&broker, &["sms", &long]), "accepted: it waits for a receiver\n");
    let mut receiver = Client::topic(&broker, "sms");
    assert!(receiver.next_text() == long);
    assert_eq!(sent(&broker, &["sms", "1"]), "accepted: a receiver has it\n");
    assert_eq!(receiver.next_text(), "1");

    let refused = |address: &str, arguments: &[&str], password: &str| {
        let (code, said, errors) = send(address, arguments, |command| command.env("WSMB_PASSWORD", password));
        assert_eq!(said, "");
        (code, errors)
    };
    let (code, errors) = refused(&address(&broker), &["", "1"], PASSWORD);
    assert!(code == Some(1) && errors.starts_with("not accepted: 02 "), "{errors}");
    let (code, errors) = refused(&address(&broker), &["live", "1"], PASSWORD);
    assert_eq!((code, &*errors), (Some(3), "sent to nobody: the channel keeps nothing, and has no receiver\n"));
    let (code, errors) = refused(&address(&broker), &["sms", "1"], "wrong");
    assert_eq!((code, &*errors), (Some(1), "refused: HTTP/1.1 401 Unauthorized\n"));
    let (code, errors) = refused("http://127.0.0.1", &["sms", "1"], PASSWORD);
    assert!(code == Some(1) && errors.contains("write ws://"), "{errors}");
    let (code, errors) = refused(&address(&broker), &["sms", "{\"text\": \"half"], PASSWORD);
    assert!(code == Some(1) && errors.starts_with("the message begins like JSON, but is invalid: "), "{errors}");
}

#[test]
fn the_sender_changes_no_numbers_and_letters() {
    let broker = Broker::start();
    let mut receiver = Client::topic(&broker, "sms");
    let numbers = r#"{"iccid": 89620012345678901234, "price": 1.10, "huge": 1e400, "text": "gr\u00fc\u00df / \/"}"#;
    sent(&broker, &["sms", numbers]);
    assert_eq!(receiver.next_text(), numbers);
    sent(&broker, &["sms", "89620012345678901234"]);
    assert_eq!(receiver.next_text(), "89620012345678901234");
    sent(&broker, &["sms", "Grüße: 5 €"]);
    assert_eq!(serde_json::from_str::<String>(&receiver.next_text()).unwrap(), "Grüße: 5 €");
    for (bytes, wanted) in
        [(&b"Gr\xfc\xdfe"[..], json!("Grüße")), (b"{\"text\":\"Gr\xfc\xdfe\"}", json!({"text": "Grüße"}))]
    {
        let (code, ..) = send(&address(&broker), &["sms"], |command| command.arg(OsStr::from_bytes(bytes)));
        assert_eq!(code, Some(0));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&receiver.next_text()).unwrap(), wanted);
    }
}

/// A proxy that drops the answers to messages on the first `lost` connections. The broker has the messages, but the sender gets no answer.
fn lossy_proxy(broker: &Broker, lost: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, target) = (listener.local_addr().expect("its address"), broker.address());
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            let server = TcpStream::connect(target).expect("the broker");
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            std::thread::spawn(move || pass_answers(server, client, number < lost));
        }
    });
    address
}

/// Passes the broker's bytes on; if `is_lost`, only up to the answer to a message.
fn pass_answers(mut server: TcpStream, mut client: TcpStream, is_lost: bool) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while matches!(server.read(&mut byte), Ok(1)) {
        seen.push(byte[0]);
        if is_lost && seen.ends_with(b"send-message") {
            break;
        }
        if client.write_all(&byte).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

#[test]
fn the_sender_tries_again_with_the_same_id() {
    let broker = Broker::start();
    let url = format!("ws://{}", lossy_proxy(&broker, 1));
    let (code, said, errors) = send(&url, &["sms", "\"first\""], |command| command);
    assert_eq!((code, &*said), (Some(0), "accepted: the broker had accepted it before\n"), "{errors}");
    assert_eq!(errors, "the connection broke; trying again\n");

    // A run that gives up prints the id. Another run with this id sends no duplicate.
    let url = format!("ws://{}", lossy_proxy(&broker, 100));
    let (code, said, errors) = send(&url, &["sms", "\"second\""], |command| command.env("WSMB_TIMEOUT", "0.5"));
    assert_eq!((code, &*said), (Some(1), ""), "{errors}");
    let (_, id) = errors.trim().rsplit_once("send it again with this id: ").expect(&errors);
    assert_eq!(sent(&broker, &["sms", "\"second\"", id]), "accepted: the broker had accepted it before\n");
    sent(&broker, &["sms", "\"third\""]);
    let mut receiver = Client::topic(&broker, "sms");
    let got = [receiver.next_text(), receiver.next_text(), receiver.next_text()];
    assert_eq!(got, ["\"first\"", "\"second\"", "\"third\""], "each message once");
}

#[test]
fn the_sender_tries_again_until_the_broker_listens() {
    let mut broker = Broker::start();
    let (setup, dir, port) = (broker.setup(), broker.shared_dir(), broker.address().port());
    broker.stop();
    let mut command = script(Path::new(EXAMPLES), "send.php");
    let url = format!("ws://127.0.0.1:{port}");
    let mut sender = command.args([&url, "sms", "1"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut errors = String::new();
    BufReader::new(sender.stderr.take().unwrap()).read_line(&mut errors).unwrap();
    assert!(errors.starts_with("cannot reach ") && errors.ends_with("; trying again\n"), "{errors}");
    let broker = Broker::start_in(setup, dir, port).expect("the same port");
    let output = sender.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "accepted: it waits for a receiver\n", "{}", broker.log().tail());
}

#[test]
fn the_receiver_prints_each_message_verbatim_and_acknowledges_it() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    sender.command(&json!({"command": "send-message", "channel": "sms", "data": [{"n": 1}, "two, [2]"], "id": "a"}));
    sender.next_reply();
    sender.raw().send_text(
        "{\"command\":\"send-message\",\"id\":\"b\",\"channel\":\"sms\",\"data\":[{\"iccid\": 89620012345678901234,\n \"price\": 1.10, \
         \"text\": \"a \\\"]},{\\\\\", \"half\": \"\\ud83d\"}]}",
    );
    sender.next_reply();
    let mut receiver = Receiver::start(Path::new(EXAMPLES), &broker, &["sms"]);
    let got = [receiver.line(), receiver.line(), receiver.line()];
    let third = r#"{"iccid": 89620012345678901234,  "price": 1.10, "text": "a \"]},{\\", "half": "\ud83d"}"#;
    assert_eq!(got, [r#"{"n":1}"#, r#""two, [2]""#, third]);
    // The receiver gets live messages, also after a restart of the broker.
    sender.publish_safely("sms", &json!({"n": 4}), "d");
    assert_eq!(receiver.line(), r#"{"n":4}"#);
    let broker = broker.stop_and_restart();
    Client::envelope(&broker).publish_safely("sms", &json!({"n": 5}), "e");
    assert_eq!(receiver.line(), r#"{"n":5}"#);
    // The next message comes only when the previous one has been acknowledged.
    Client::envelope(&broker).publish_safely("sms", &json!({"n": 6}), "f");
    assert_eq!(receiver.line(), r#"{"n":6}"#);
    receiver.child.kill().unwrap();
    let (_, errors) = receiver.end();
    assert!(errors.contains("; reconnecting\n"), "{errors}");
}

#[test]
fn the_receiver_ends_after_the_given_number_of_deliveries() {
    let broker = Broker::start();
    for number in 0..4 {
        sent(&broker, &["sms", &number.to_string()]);
    }
    let mut receiver = Receiver::start(Path::new(EXAMPLES), &broker, &["sms", "2"]);
    assert_eq!([receiver.line(), receiver.line()], ["0", "1"]);
    assert_eq!(receiver.end(), (Some(0), String::new()));
    let mut next = Client::topic(&broker, "sms");
    assert_eq!([next.next_text(), next.next_text()], ["2", "3"]);
}

#[test]
fn a_message_that_the_receiver_cannot_handle_is_redelivered_with_a_mark() {
    let broker = Broker::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(Path::new(EXAMPLES).join("wsmb.php"), folder.path().join("wsmb.php")).unwrap();
    let text = std::fs::read_to_string(Path::new(EXAMPLES).join("receive.php")).unwrap();
    let own = text.replace("    echo strtr(", "    if (!$again) throw new Exception('no modem');\n    echo strtr(");
    assert_ne!(own, text, "handle() has another body");
    std::fs::write(folder.path().join("receive.php"), own).unwrap();
    sent(&broker, &["sms", "1"]);
    let mut receiver = Receiver::start(folder.path(), &broker, &["sms", "2"]);
    assert_eq!(receiver.line(), "1");
    assert_eq!(receiver.end(), (Some(0), "a message is given back: no modem\n".to_owned()));
}

#[test]
fn the_receiver_ends_if_it_is_refused() {
    let broker = Setup::default()
        .auth(
            "htpasswd = []\nusers = [\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\n[[permission]]\nuser = \"app\"\n\
             send = [\"*\"]\nreceive = [\"mine\"]",
        )
        .start();
    let (code, errors) = Receiver::start(Path::new(EXAMPLES), &broker, &["sms"]).end();
    assert!(code == Some(1) && errors.starts_with("refused: 03 "), "{errors}");
}

/// Words that must not be in the examples, with the PHP version or extension that they need.
const NEWER: &[(&str, &str)] = &[
    ("str_contains(", "8.0"),
    ("str_starts_with(", "8.0"),
    ("str_ends_with(", "8.0"),
    ("get_debug_type(", "8.0"),
    ("array_is_list(", "8.1"),
    ("json_validate(", "8.3"),
    ("array_find(", "8.4"),
    ("array_any(", "8.4"),
    (": never", "8.1"),
    (": mixed", "8.0"),
    (": static", "8.0"),
    ("match (", "8.0"),
    ("?->", "8.0"),
    ("readonly ", "8.1"),
    ("enum ", "8.1"),
    ("#[", "8.0"),
    ("?? throw", "8.0"),
    ("(...)", "8.1"),
    ("|>", "8.5"),
    ("catch (Lost)", "8.0"),
    ("catch (Refused)", "8.0"),
    ("catch (Throwable)", "8.0"),
    ("__construct(private", "8.0"),
    ("__construct(public", "8.0"),
    // Removed or deprecated in 8.x.
    ("utf8_encode(", "deprecated in 8.2"),
    ("each(", "gone in 8.0"),
    ("${", "deprecated in 8.2"),
    // Parts of extensions that a shared host may not have.
    ("mb_", "of mbstring"),
    ("curl_", "of curl"),
    ("pcntl_", "of pcntl"),
    ("iconv", "of iconv"),
];

#[test]
fn the_examples_need_php_7_4_only() {
    for name in ["wsmb.php", "send.php", "receive.php", "otp.php", "poll.php"] {
        let text = std::fs::read_to_string(Path::new(EXAMPLES).join(name)).unwrap();
        // The examples that use HTTP need the extension curl, and say so.
        let uses_curl = text.contains("with the extension curl");
        for (word, what) in NEWER.iter().filter(|(word, _)| !(uses_curl && *word == "curl_")) {
            let found = text.match_indices(word).find(|(at, _)| !text[..*at].ends_with(['r', '_']));
            assert!(found.is_none(), "{name}: `{word}` ({what})");
        }
        let output = Command::new("php").arg("-l").arg(Path::new(EXAMPLES).join(name)).output().expect("php");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
