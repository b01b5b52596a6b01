//! Tests of the frames that a client sends and reads.

use super::*;

fn delivery(frame: &str) -> Delivery<'_> {
    match parse(frame.as_bytes()).unwrap() {
        Frame::Delivery(delivery) => delivery,
        Frame::Reply(reply) => panic!("{reply:?}"),
    }
}

fn texts(delivery: &Delivery<'_>) -> Vec<String> {
    delivery.messages.iter().map(|message| message.get().to_owned()).collect()
}

#[test]
fn the_messages_of_a_delivery_are_unchanged() {
    let found = delivery(
        r#"{"delivery":"17","message_id":"5","redelivered":true,"attempt":3,"command":"send-message","channel":"sms","data":[{"a" : 1}, "x",[2]]}"#,
    );
    assert_eq!(found.channel, "sms");
    assert_eq!(found.delivery.as_deref(), Some("17"));
    assert!(found.redelivered);
    assert_eq!((found.message_id, found.attempt), (Some(5), 3));
    assert_eq!(texts(&found), [r#"{"a" : 1}"#, r#""x""#, "[2]"]);
}

#[test]
fn data_that_is_not_a_list_is_one_message() {
    assert_eq!(texts(&delivery(r#"{"command":"send-message","channel":"c","data":{"a":1}}"#)), [r#"{"a":1}"#]);
    assert_eq!(texts(&delivery(r#"{"command":"send-message","channel":"c","data":5}"#)), ["5"]);
}

#[test]
fn a_sender_cannot_forge_the_members_of_the_broker() {
    let found = delivery(
        r#"{"delivery":"17","command":"send-message","message_id":"9","delivery":"3","redelivered":true,"attempt":9,"channel":"c","data":[1]}"#,
    );
    assert_eq!(found.delivery.as_deref(), Some("17"));
    assert!(!found.redelivered);
    assert_eq!((found.message_id, found.attempt), (None, 1));
    assert_eq!(delivery(r#"{"command":"send-message","delivery":"3","channel":"c","data":[1]}"#).delivery, None);
}

#[test]
fn repeated_and_unknown_members_of_any_type_are_accepted() {
    let found = delivery(
        r#"{"command":5,"command":"send-message","id":{},"receivers":"x","channel":"a","channel":"b","data":1,"data":[2],"response_code":"00"}"#,
    );
    assert_eq!(found.channel, "b");
    assert_eq!(texts(&found), ["2"]);
}

#[test]
fn a_reply_is_parsed() {
    let frame = br#"{"command":"send-message","response_code":"00","response_text":"Accepted","id":"x","receivers":2,"stored":true,"duplicate":true}"#;
    let Frame::Reply(reply) = parse(frame).unwrap() else { panic!("a reply") };
    assert!(reply.is_accepted() && reply.stored && reply.duplicate);
    assert_eq!((reply.id.as_deref(), reply.receivers), (Some("x"), 2));
    let frame = br#"{"command":"connect","response_code":"01","response_text":"Rejected","data":[{"time_stamp":"2026-11-22T10:00:00.000Z"}]}"#;
    let Frame::Reply(reply) = parse(frame).unwrap() else { panic!("a reply") };
    assert!(!reply.is_accepted());
    assert_eq!(reply.time_stamp().as_deref(), Some("2026-11-22T10:00:00.000Z"));
}

#[test]
fn all_other_frames_are_errors() {
    for frame in ["", "hello", "5", "[]", "{}", r#"{"response_code":5}"#, "{\"command\":\"connect\""] {
        assert!(parse(frame.as_bytes()).is_err(), "{frame}");
    }
}

#[test]
fn commands_are_written_in_the_broker_s_syntax() {
    let message = message_of("hello");
    let command = SendMessage::new("s\"ms", &message).id("i").ttl(Some(Duration::from_millis(1500)));
    let command = command.delay(Some(Duration::from_secs(3))).receivers(Some(0)).to_json();
    assert_eq!(
        command,
        r#"{"command":"send-message","channel":"s\"ms","id":"i","ttl":1.5,"delay":3,"number_of_receiver":0,"data":["hello"]}"#
    );
    let command = ReceiveMessage::new(["a", "b"]).prefetch(Some(3)).receiver(Some("gw")).to_json();
    let command: serde_json::Value = serde_json::from_str(&command).unwrap();
    assert_eq!(
        command,
        serde_json::json!({"command":"receive-message","channel":["a","b"],"ack":"manual","prefetch":3,"receiver":"gw","data":[]})
    );
    let command = ReceiveMessage::new(["a"]).group(Some("gate ways")).fair(true).to_json();
    assert_eq!(
        command,
        r#"{"command":"receive-message","channel":["a"],"ack":"manual","group":"gate ways","order":"fair","data":[]}"#
    );
}

#[test]
fn a_message_that_is_json_is_not_changed() {
    for (given, sent) in
        [("{\"a\" : 1}", "{\"a\" : 1}"), ("402913", "402913"), ("say \"hi\"", r#""say \"hi\"""#), ("", r#""""#)]
    {
        assert_eq!(message_of(given).get(), sent);
    }
}
