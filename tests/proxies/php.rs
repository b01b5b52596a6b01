//! A real PHP receiver behind each proxy.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::client::Client;
use crate::routes::{Proxy, Route};

/// A PHP receiver is killed while it processes the third of thirty messages.
fn killed_after_three(route: Route) {
    let mut broker = route.setup().start();
    let proxy = Proxy::start(route, &broker);
    let mut sender = Client::envelope(&broker);
    for number in 0..30 {
        sender.publish_safely("sms", &json!(number), &number.to_string());
    }
    let port = proxy.as_ref().map_or(broker.address(), Proxy::address).port();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/e2e/php/slow_receiver.php");
    let mut receiver = Command::new("php")
        .args([script, &port.to_string(), "sms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("php; `cargo xtask test` installs it");
    let mut printed = BufReader::new(receiver.stdout.take().expect("its output"));
    let mut commands = receiver.stdin.take().expect("its input");
    for number in 0..3 {
        let mut line = String::new();
        printed.read_line(&mut line).expect("a message");
        assert_eq!(line.trim(), number.to_string(), "{route:?}\n{}", broker.log().tail());
        if number < 2 {
            commands.write_all(b"done\n").expect("a command");
        }
    }
    receiver.kill().expect("killed");
    receiver.wait().expect("its end");
    broker.wait_for_log(" disconnected connection=");
    // The store commits in order, so all removals that the broker has requested are done.
    sender.publish_safely("other", &json!(0), "behind");
    broker.set_proxy(None);
    let mut next = Client::receiver(&broker, "sms");
    let mut seen = std::collections::BTreeSet::new();
    while (3..30).any(|number| !seen.contains(&number)) {
        let delivery = next.next_delivery();
        seen.extend(
            delivery["data"].as_array().expect("messages").iter().map(|number| number.as_u64().expect("a number")),
        );
    }
}

#[test]
fn a_php_receiver_that_is_killed_after_three_of_thirty_loses_none() {
    killed_after_three(Route::Direct);
    Route::PROXIES.into_iter().for_each(killed_after_three);
}
