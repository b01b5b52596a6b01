//! Endpoints that fail: each message arrives in the end, or becomes a dead letter.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::json;

use super::endpoint::{Endpoint, Reply};
use super::{broker, lines};
use crate::broker::Setup;
use crate::http::publish;

/// An endpoint whose first request gets `reply`, and all others 200.
fn first(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Endpoint {
    Endpoint::start(move |call| if call.number == 0 { reply() } else { Reply::Status(200) })
}

/// Publishes a message whose first attempt fails, and checks that the second is the same message. `cause`: what the log says.
#[track_caller]
fn fails_once(endpoint: &Endpoint, more: &str, cause: &str) {
    let broker = broker(endpoint, more);
    let response = publish(&broker, "sms", "?wait=30s", "1");
    let [failed, again] = [endpoint.next(&broker), endpoint.next(&broker)];
    assert_eq!((failed.data(), again.data()), (json!(1), json!(1)));
    assert_eq!(failed.header("webhook-id"), again.header("webhook-id"));
    assert_eq!((&failed.json()["attempt"], &again.json()["attempt"]), (&json!(1), &json!(2)));
    assert!(again.at - failed.at >= Duration::from_millis(900), "the first pause is a second");
    assert_eq!(response.json()["outcome"], json!("delivered"), "{response:?}");
    broker.wait_for_log("a webhook fails; its messages wait");
    broker.wait_for_log(cause);
    broker.wait_for_log("a webhook delivers again");
    let log = broker.log().text();
    assert!(!log.contains("whsec_") && !log.contains("key=1"), "no secret in the log:\n{log}");
}

#[test]
fn a_500_is_tried_again() {
    fails_once(&first(|| Reply::Status(500)), "", "the answer is 500");
}

#[test]
fn a_reset_is_tried_again() {
    fails_once(&first(|| Reply::Reset), "", "there is no valid answer");
}

#[test]
fn an_answer_that_is_not_http_is_tried_again() {
    fails_once(&first(|| Reply::Raw(b"SSH-2.0-x\r\n".to_vec())), "", "there is no valid answer");
}

#[test]
fn a_slow_endpoint_is_tried_again() {
    fails_once(&first(|| Reply::Silence), "timeout = \"1s\"", "no answer within 1s");
}

#[test]
fn a_redirect_is_not_followed() {
    let inside = Endpoint::with_status(200);
    let location = format!("HTTP/1.1 307 X\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", inside.address);
    let endpoint = first(move || Reply::Raw(location.clone().into_bytes()));
    fails_once(&endpoint, "", "redirects are not followed");
    inside.expect_nothing(Duration::ZERO);
}

#[test]
fn a_refused_connection_is_tried_again_until_somebody_listens() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let endpoint = Endpoint::with_status(200);
    let port = listener.local_addr().expect("an address");
    drop(listener);
    let lines = lines(&endpoint, "").replace(&endpoint.address.to_string(), &port.to_string());
    let broker = Setup::default().webhook(&lines).start();
    publish(&broker, "sms", "", "1");
    broker.wait_for_log("cannot connect");
    let listener = TcpListener::bind(port).expect("the same port");
    let late = Endpoint::on(listener, |_| Reply::Status(200));
    assert_eq!(late.next(&broker).data(), json!(1));
}

#[test]
fn a_message_that_fails_waits_aside_while_others_pass() {
    let endpoint = Endpoint::start(|call| {
        let json = call.json();
        Reply::Status(if json["data"] == json!(0) && json["attempt"] == json!(1) { 400 } else { 200 })
    });
    let broker = Setup::default().start();
    for number in 0..4 {
        publish(&broker, "sms", "", &number.to_string());
    }
    let webhook = lines(&endpoint, "");
    broker.reconfigure(|text| format!("{text}\n[[webhook]]\n{webhook}\n"));
    assert_eq!(endpoint.data(&broker, 5), [json!(0), json!(1), json!(2), json!(3), json!(0)]);
}

#[test]
fn an_outage_does_not_try_a_backlog_message_by_message() {
    let endpoint = Endpoint::with_status(503);
    let broker = Setup::default().start();
    for number in 0..100 {
        publish(&broker, "sms", "", &number.to_string());
    }
    let webhook = lines(&endpoint, "");
    broker.reconfigure(|text| format!("{text}\n[[webhook]]\n{webhook}\n"));
    let [first, second, third] = [endpoint.next(&broker), endpoint.next(&broker), endpoint.next(&broker)];
    assert!(second.at - first.at < Duration::from_millis(900), "one failure may be the fault of its message");
    assert!(third.at - second.at >= Duration::from_millis(900), "the channel rests");
    // The next rest is of two seconds.
    endpoint.expect_nothing(Duration::from_millis(1_500));
}

#[test]
fn retry_after_stops_the_channel_for_so_long() {
    let endpoint = first(|| Reply::Raw(b"HTTP/1.1 429 X\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let broker = broker(&endpoint, "");
    publish(&broker, "sms", "", "1");
    let busy = endpoint.next(&broker);
    publish(&broker, "sms", "", "2");
    let next = endpoint.next(&broker);
    assert!(next.at - busy.at >= Duration::from_millis(2_900), "{:?}", next.at - busy.at);
    let mut both = vec![next.data(), endpoint.next(&broker).data()];
    both.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(both, [json!(1), json!(2)]);
}

#[test]
fn a_410_disables_the_webhook_until_a_reload() {
    let endpoint = first(|| Reply::Status(410));
    let broker = broker(&endpoint, "name = \"shop\"");
    publish(&broker, "sms", "", "1");
    let gone = endpoint.next(&broker);
    broker.wait_for_log("has answered 410 Gone");
    publish(&broker, "sms", "", "2");
    endpoint.expect_nothing(Duration::from_millis(1_500));
    assert_eq!(broker.log().text().matches("410 Gone").count(), 1);
    broker.reconfigure(|text| text);
    let again = endpoint.next(&broker);
    assert_eq!((again.data(), again.header("webhook-id")), (json!(1), gone.header("webhook-id")));
    assert_eq!(endpoint.next(&broker).data(), json!(2));
}

#[test]
fn a_huge_answer_counts_by_its_status_and_is_not_read() {
    let endpoint = Endpoint::start(|_| {
        let mut answer = b"HTTP/1.1 200 X\r\nContent-Length: 100000000\r\n\r\n".to_vec();
        answer.resize(10_000_000, b'x');
        Reply::Raw(answer)
    });
    let broker = broker(&endpoint, "");
    for number in 0..3 {
        let response = publish(&broker, "sms", "?wait=20s", &number.to_string());
        assert_eq!(response.json()["outcome"], json!("delivered"), "{response:?}");
        assert_eq!(endpoint.next(&broker).connection, number);
    }
    assert!(!broker.log().text().contains("a webhook fails"));
}

#[test]
fn a_connection_that_the_endpoint_closes_between_two_requests_is_no_failure() {
    // The endpoint's keep-alive time is over: it resets the connection instead of the second answer.
    let endpoint = Endpoint::start(|call| if call.number == 1 { Reply::Reset } else { Reply::Status(200) });
    let broker = broker(&endpoint, "");
    for number in ["1", "2"] {
        assert_eq!(publish(&broker, "sms", "?wait=20s", number).json()["outcome"], json!("delivered"));
    }
    let [one, lost, two] = [endpoint.next(&broker), endpoint.next(&broker), endpoint.next(&broker)];
    assert_eq!([one.connection, lost.connection, two.connection], [0, 0, 1]);
    assert_eq!(lost.header("webhook-id"), two.header("webhook-id"));
    assert!(!broker.log().text().contains("a webhook fails"));
}

#[test]
fn a_message_that_always_fails_becomes_a_dead_letter_that_another_webhook_gets() {
    let (failing, dead) = (Endpoint::with_status(422), Endpoint::with_status(200));
    let other = lines(&dead, "name = \"dead\"").replace("\"sms\"", "\"dead\"");
    let broker = Setup::default()
        .channel("sms", "max_deliveries = 2\ndead_letter = \"dead\"")
        .webhook(&lines(&failing, "name = \"shop\""))
        .webhook(&other)
        .start();
    publish(&broker, "sms", "", "1");
    assert_eq!(failing.data(&broker, 2), [json!(1), json!(1)]);
    let letter = dead.next(&broker).json();
    assert_eq!((&letter["data"], &letter["dead_letter"]["channel"]), (&json!(1), &json!("sms")), "{letter}");
    assert_eq!(letter["dead_letter"]["reason"], json!("webhook shop: the answer is 422"));
    failing.expect_nothing(Duration::ZERO);
}

#[test]
fn a_crash_between_two_attempts_loses_nothing() {
    let endpoint = first(|| Reply::Status(500));
    let broker = broker(&endpoint, "");
    publish(&broker, "sms", "", "1");
    let failed = endpoint.next(&broker);
    broker.wait_for_log("a webhook fails");
    let broker = broker.kill_and_restart();
    let again = endpoint.next(&broker);
    assert_eq!((again.data(), again.header("webhook-id")), (json!(1), failed.header("webhook-id")));
    assert_eq!(publish(&broker, "sms", "?wait=20s", "2").json()["outcome"], json!("delivered"));
}

#[test]
fn a_stop_gives_back_the_message_of_a_running_request() {
    let endpoint = first(|| Reply::Silence);
    let broker = broker(&endpoint, "timeout = \"60s\"");
    publish(&broker, "sms", "", "1");
    let cut = endpoint.next(&broker);
    let began = std::time::Instant::now();
    let broker = broker.stop_and_restart();
    assert!(began.elapsed() < Duration::from_secs(10), "the stop took {:?}", began.elapsed());
    let again = endpoint.next(&broker);
    assert_eq!((again.data(), again.header("webhook-id")), (json!(1), cut.header("webhook-id")));
}
