//! Receivers over HTTP: events, lines and batches, and their acknowledgements.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Http, Response, publish, request};
use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::Client;
use crate::raw::basic;

/// A stream of deliveries.
struct Stream {
    http: Http,
    /// Decoded text that was not read yet.
    text: String,
}

/// One delivery of a stream.
#[derive(Debug)]
struct Delivery {
    id: Option<String>,
    value: Value,
}

impl Delivery {
    fn name(&self) -> &str {
        self.value["delivery"].as_str().unwrap_or_default()
    }

    fn data(&self) -> &Value {
        &self.value["data"]
    }
}

impl Stream {
    #[track_caller]
    fn open(broker: &Broker, accept: &str, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut http = Http::connect(broker);
        let headers = [&[("Accept", accept)], headers].concat();
        http.send(&format!("GET {target}"), &headers, "");
        let head = http.read_head().expect("a response");
        assert_eq!(head.status, 200, "{head:?}");
        assert!(head.header("content-type").is_some_and(|found| found == accept), "{head:?}");
        assert_eq!(head.header("x-accel-buffering"), Some("no"), "for nginx");
        Self { http, text: String::new() }
    }

    #[track_caller]
    fn events(broker: &Broker, query: &str) -> Self {
        Self::open(broker, "text/event-stream", &format!("/api/v1/channels/sms/messages{query}"), &[])
    }

    /// The text up to `end`, without it; `None` at the end of the stream.
    fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some((before, after)) = self.text.split_once(end) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.text = after;
                return Some(before);
            }
            self.text.push_str(&self.http.read_chunk()?);
        }
    }

    /// The next event with data; comments are skipped.
    fn try_event(&mut self) -> Option<Delivery> {
        loop {
            let event = self.until("\n\n")?;
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            if let Some(data) = field("data: ") {
                let value = serde_json::from_str(data).expect("JSON");
                return Some(Delivery { id: field("id: ").map(str::to_owned), value });
            }
        }
    }

    #[track_caller]
    fn event(&mut self) -> Delivery {
        self.try_event().expect("an event")
    }

    /// The next comment that contains `text`.
    #[track_caller]
    fn comment(&mut self, text: &str) {
        while !self.until("\n\n").expect("a comment").contains(text) {}
    }

    #[track_caller]
    fn line(&mut self) -> Delivery {
        loop {
            let line = self.until("\n").expect("a line");
            if !line.is_empty() {
                return Delivery { id: None, value: serde_json::from_str(&line).expect("JSON") };
            }
        }
    }
}

#[track_caller]
fn answer(broker: &Broker, body: &Value) -> Value {
    let response = request(broker, "POST /api/v1/acks", &[("Content-Type", "application/json")], body.to_string());
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// Polls for a batch.
#[track_caller]
fn poll(broker: &Broker, query: &str) -> Response {
    let response = request(broker, &format!("GET /api/v1/channels/sms/messages{query}"), &[], "");
    assert_eq!(response.status, 200, "{response:?}");
    response
}

fn deliveries(response: &Response) -> Vec<Value> {
    response.json()["deliveries"].as_array().expect("a list").clone()
}

fn data(response: &Response) -> Vec<Value> {
    deliveries(response).iter().map(|delivery| delivery["data"][0].clone()).collect()
}

#[test]
fn events_carry_deliveries_that_acks_settle() {
    let broker = Broker::start();
    assert_eq!(publish(&broker, "sms", "", "1").status, 202);
    let mut stream = Stream::events(&broker, "");
    let first = stream.event();
    assert_eq!((first.data(), first.id.as_deref()), (&json!([1]), Some(first.name())));
    assert_eq!(first.value["command"], json!("send-message"), "the same object as over a WebSocket");
    // Live, pretty-printed, over a WebSocket.
    Client::envelope(&broker)
        .raw()
        .send_text("{\"command\":\"send-message\",\n \"channel\":\"sms\",\r\n\"data\":[{\"a\": \"x\\ny\"}]}");
    let second = stream.event();
    assert_eq!(second.data(), &json!([{"a": "x\ny"}]));
    assert_eq!(answer(&broker, &json!({"ack": [first.name(), second.name()]})), json!({"answered": 2, "unknown": []}));
    assert_eq!(
        answer(&broker, &json!({"ack": [first.name(), "f-1", "nonsense"]}))["unknown"],
        json!([first.name(), "f-1", "nonsense"])
    );
    drop(stream);
    let mut receiver = Client::receiver(&broker, "sms");
    receiver.expect_nothing_yet();
}

#[test]
fn a_sender_that_waits_learns_of_the_ack_of_an_event() {
    let broker = Broker::start();
    let mut stream = Stream::events(&broker, "");
    stream.comment("connected");
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| publish(&broker, "sms", "?wait=20s", "1"));
        let delivery = stream.event();
        answer(&broker, &json!({"up_to": delivery.name()}));
        let response = sender.join().expect("a response");
        assert_eq!((response.status, &response.json()["outcome"]), (200, &json!("delivered")), "{response:?}");
    });
}

#[test]
fn what_a_stream_has_not_acknowledged_goes_to_the_next_receiver_at_once() {
    let broker = Setup::default().defaults("receivers = 1").start();
    for number in 0..3 {
        publish(&broker, "sms", "", &number.to_string());
    }
    let mut lines = Stream::open(&broker, "application/x-ndjson", "/api/v1/channels/sms/messages?prefetch=2", &[]);
    let [first, second] = [lines.line(), lines.line()];
    answer(&broker, &json!({"ack": [first.name()]}));
    assert_eq!(lines.line().data(), &json!([2]));
    let began = Instant::now();
    drop(lines);
    let mut next = Client::envelope(&broker);
    next.subscribe_with("sms", &json!({"ack": "manual"}));
    let again = next.next_delivery();
    assert_eq!((&again["data"], &again["redelivered"]), (second.data(), &json!(true)));
    assert_eq!(next.next_delivery()["data"], json!([2]));
    assert!(
        began.elapsed() < PATIENCE / 2,
        "the broker noticed only after {:?} that the client had gone",
        began.elapsed()
    );
}

#[test]
fn a_full_window_is_told_and_nacks_give_back() {
    let broker = Setup::default().channel("sms", "receivers = 1\ndead_letter = \"dead\"").start();
    let mut stream = Stream::events(&broker, "?prefetch=2");
    for number in 0..4 {
        publish(&broker, "sms", "", &number.to_string());
    }
    let [first, second] = [stream.event(), stream.event()];
    stream.comment("window is full");
    let body =
        json!({"nack": [{"delivery": first.name(), "reject": true, "reason": "no SIM"}], "extend": [second.name()]});
    assert_eq!(answer(&broker, &body), json!({"answered": 2, "unknown": []}));
    assert_eq!(stream.event().data(), &json!([2]));
    let mut dead = Stream::open(&broker, "text/event-stream", "/api/v1/messages?channel=dead", &[]);
    assert_eq!(dead.event().value["dead_letter"]["reason"], json!("no SIM"));
    // Given back for a while.
    answer(&broker, &json!({"nack": [{"delivery": second.name(), "retry_after": 0.2}]}));
    assert_eq!(stream.event().data(), &json!([3]));
    let third = stream.text.clone();
    assert!(!third.contains("\"data\":[1]"), "held back for 200 ms");
    for body in
        [json!({"ack": 1}), json!({"akc": []}), json!([]), json!({"nack": [{"delivery": "a-1", "retry_after": -1}]})]
    {
        let response = request(&broker, "POST /api/v1/acks", &[], body.to_string());
        assert_eq!(response.status, 400, "{response:?}");
    }
}

#[test]
fn a_channel_that_keeps_nothing_streams_what_is_sent_now() {
    let broker = Setup::default().defaults("keep = false").start();
    let mut stream = Stream::open(&broker, "text/event-stream", "/api/v1/messages?channel=a&channel=b", &[]);
    stream.comment("connected");
    assert_eq!(publish(&broker, "a", "", "1").json()["receivers"], json!(1));
    assert_eq!(publish(&broker, "b", "", "2").json()["receivers"], json!(1));
    for (channel, number) in [("a", 1), ("b", 2)] {
        let event = stream.event();
        assert_eq!((&event.value["channel"], event.data(), &event.id), (&json!(channel), &json!([number]), &None));
    }
}

#[test]
fn a_named_receiver_keeps_its_place_and_its_deliveries_between_two_streams() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let mut first = Stream::events(&broker, "?receiver=pi");
    first.comment("connected");
    for number in 0..3 {
        publish(&broker, "sms", "", &number.to_string());
    }
    let seen = [first.event(), first.event(), first.event()];
    drop(first);
    // Another receiver gets nothing, because the named one keeps its place.
    let mut other = Client::receiver(&broker, "sms");
    let last = seen[1].id.clone().expect("an id");
    let mut again = Stream::open(
        &broker,
        "text/event-stream",
        "/api/v1/channels/sms/messages?receiver=pi",
        &[("Last-Event-ID", &last)],
    );
    let event = again.event();
    assert_eq!(
        (event.data(), &event.value["redelivered"]),
        (&json!([2]), &json!(true)),
        "the last one was not acknowledged"
    );
    assert_eq!(event.id, seen[2].id);
    answer(&broker, &json!({"up_to": event.name()}));
    other.expect_nothing_yet();
    // A second stream of the same name takes the place of the first one.
    let mut third = Stream::events(&broker, "?receiver=pi");
    third.comment("connected");
    assert!(again.try_event().is_none(), "the older stream ends");
    publish(&broker, "sms", "", "3");
    assert_eq!(third.event().data(), &json!([3]));
}

#[test]
fn a_named_receiver_that_does_not_come_back_loses_its_place() {
    let broker = Setup::default().server("receiver_grace = \"1s\"").defaults("receivers = 1").start();
    publish(&broker, "sms", "", "1");
    let mut stream = Stream::events(&broker, "?receiver=pi");
    stream.event();
    drop(stream);
    let mut other = Client::receiver(&broker, "sms");
    assert_eq!(other.numbers(1), [1]);
}

#[test]
fn a_delivery_that_was_taken_back_is_not_given_again() {
    let broker = Setup::default().channel("sms", "receivers = 1\nack_timeout = \"1s\"").start();
    let mut stream = Stream::events(&broker, "?receiver=pi");
    stream.comment("connected");
    publish(&broker, "sms", "", "1");
    let delivery = stream.event();
    drop(stream);
    let mut other = Client::receiver(&broker, "sms");
    assert_eq!(other.numbers(1), [1], "it was not answered within ack_timeout");
    assert_eq!(answer(&broker, &json!({"ack": [delivery.name()]}))["unknown"], json!([delivery.name()]));
    let mut again = Stream::events(&broker, "?receiver=pi");
    again.comment("connected");
    publish(&broker, "sms", "", "2");
    assert_eq!(again.event().data(), &json!([2]));
}

#[test]
fn a_poll_waits_for_messages_and_the_next_one_acknowledges_them() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let empty = poll(&broker, "");
    let receiver = empty.json()["receiver"].as_str().expect("a name").to_owned();
    assert!(deliveries(&empty).is_empty());
    let query = format!("?receiver={receiver}&wait=20s&max=2");
    let first = std::thread::scope(|scope| {
        let poller = scope.spawn(|| poll(&broker, &query));
        publish(&broker, "sms", "", "1");
        poller.join().expect("a response")
    });
    assert_eq!(data(&first), [json!(1)]);
    for number in 2..5 {
        publish(&broker, "sms", "", &number.to_string());
    }
    // The answer was lost: everything comes again, marked.
    let again = poll(&broker, &query);
    assert_eq!(data(&again), [json!(1)]);
    assert_eq!(deliveries(&again)[0]["redelivered"], json!(true));
    let mut after = deliveries(&again)[0]["delivery"].clone();
    let mut all = Vec::new();
    while all.len() < 3 {
        let batch = poll(&broker, &format!("{query}&after={}", after.as_str().expect("a name")));
        let found = deliveries(&batch);
        assert!(found.len() <= 2, "{batch:?}");
        after = found.last().expect("a delivery")["delivery"].clone();
        all.extend(data(&batch));
    }
    assert_eq!(all, [json!(2), json!(3), json!(4)]);
    poll(&broker, &format!("?receiver={receiver}&after={}", after.as_str().expect("a name")));
    let mut other = Client::receiver(&broker, "sms");
    other.expect_nothing_yet();
}

#[test]
fn the_next_request_of_a_receiver_may_ask_for_more() {
    let broker = Broker::start();
    for number in 0..4 {
        publish(&broker, "sms", "", &number.to_string());
    }
    let first = poll(&broker, "?receiver=pi&max=1&wait=20s");
    assert_eq!(data(&first), [json!(0)]);
    let mut last = deliveries(&first)[0].clone();
    let (mut all, mut largest) = (Vec::new(), 0);
    while all.len() < 3 {
        let after = last["delivery"].as_str().expect("a name");
        let batch = poll(&broker, &format!("?receiver=pi&max=3&wait=20s&after={after}"));
        last = deliveries(&batch).pop().expect("a delivery");
        largest = largest.max(data(&batch).len());
        all.extend(data(&batch));
    }
    assert!(largest > 1, "each batch has one delivery, as in the first request");
    assert_eq!(all, [json!(1), json!(2), json!(3)]);
}

#[test]
fn a_stream_of_several_channels_says_that_its_window_is_one_delivery() {
    let broker = Broker::start();
    publish(&broker, "a", "", "1");
    publish(&broker, "b", "", "2");
    let mut stream = Stream::open(&broker, "text/event-stream", "/api/v1/messages?channel=a&channel=b", &[]);
    let first = stream.event();
    assert_eq!(first.data(), &json!([1]));
    stream.comment("window is full");
    answer(&broker, &json!({"ack": [first.name()]}));
    assert_eq!(stream.event().data(), &json!([2]));
}

#[test]
fn a_right_that_is_withdrawn_ends_a_stream() {
    let permissions = |receive: &str| {
        format!(
            "htpasswd = []\nusers = [\"app:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\n[[permission]]\nuser = \"app\"\nsend = [\"*\"]\nreceive = [\"{receive}\"]"
        )
    };
    let broker = Setup::default().auth(&permissions("sms")).start();
    let mut stream = Stream::events(&broker, "");
    stream.comment("connected");
    broker.reconfigure(|text| text.replace("receive = [\"sms\"]", "receive = [\"other\"]"));
    broker.signal(libc::SIGHUP);
    assert!(stream.try_event().is_none());
    let refused = request(&broker, "GET /api/v1/channels/sms/messages", &[], "");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("03")));
    let unauthorized =
        request(&broker, "GET /api/v1/channels/sms/messages", &[("Authorization", &basic("app", "x"))], "");
    assert_eq!(unauthorized.status, 401);
}

#[test]
fn answers_of_another_user_are_unknown() {
    let broker = Broker::start();
    publish(&broker, "sms", "", "1");
    let mut stream = Stream::events(&broker, "");
    let delivery = stream.event();
    let other = [("Authorization", &*basic("colon", "pass:word"))];
    let body = json!({"ack": [delivery.name()]}).to_string();
    let response = request(&broker, "POST /api/v1/acks", &other, &body);
    assert_eq!(response.json(), json!({"answered": 0, "unknown": [delivery.name()]}));
    let body = json!({"up_to": delivery.name()}).to_string();
    assert_eq!(request(&broker, "POST /api/v1/acks", &other, &body).json()["answered"], json!(0));
    assert_eq!(answer(&broker, &json!({"ack": [delivery.name()]}))["answered"], json!(1));
}

#[test]
fn a_stop_ends_streams_and_polls_and_keeps_what_was_not_acknowledged() {
    let mut broker = Broker::start();
    publish(&broker, "sms", "", "1");
    let mut stream = Stream::events(&broker, "?receiver=pi");
    assert_eq!(stream.event().data(), &json!([1]));
    let mut poller = Http::connect(&broker);
    poller.send("GET /api/v1/channels/other/messages?wait=60s", &[], "");
    // A detached receiver, too.
    poll(&broker, "?receiver=gone");
    broker.signal(libc::SIGTERM);
    assert!(stream.try_event().is_none());
    let answer = poller.read().expect("a response");
    assert!(matches!(answer.status, 200 | 503), "{answer:?}");
    let began = Instant::now();
    assert!(broker.wait().success());
    assert!(began.elapsed() < Duration::from_secs(5), "the stop took {:?}", began.elapsed());
    let broker = Broker::start_in(broker.setup(), broker.shared_dir(), 0).expect("the next broker");
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [1]);
}
