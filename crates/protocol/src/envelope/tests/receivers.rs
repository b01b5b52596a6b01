//! Tests of the commands of receivers: `receive-message`, `ack`, `nack` and `extend`.

use super::*;

#[test]
fn a_receiver_may_name_several_channels() {
    let receive = |channel: &str| parse(format!(r#"{{"command":"receive-message","channel":{channel}}}"#).as_bytes());
    match receive(r#"[ "a", 7, "a", "\u0061", "7", "b" ]"#).unwrap() {
        Command::Receive { channels, .. } => {
            let names: Vec<&str> = channels.iter().map(ChannelName::as_str).collect();
            assert_eq!(names, ["a", "7", "b"]);
        }
        other => panic!("{other:?}"),
    }
    let names: Vec<usize> = (0..=wsmb_core::limits::SUBSCRIPTIONS).collect();
    assert!(receive(&json!(names[1..]).to_string()).is_ok());
    assert!(matches!(receive("[]").unwrap(), Command::Receive { channels, .. } if channels.is_empty()));
    for (channel, words) in [
        (json!(names).to_string(), "more than 100 channels"),
        ("[\"a\",null]".to_owned(), "not null"),
        ("[[\"a\"]]".to_owned(), "not a list"),
        ("[\"\"]".to_owned(), "is empty"),
    ] {
        let wrong = receive(&channel).unwrap_err();
        assert!(wrong.text.contains(words), "{channel}: {}", wrong.text);
    }
}

#[test]
fn the_order_is_list_or_fair() {
    for (members, expected) in
        [("", Order::List), (r#","order":"list""#, Order::List), (r#","order":"fair""#, Order::Fair)]
    {
        match parse(format!(r#"{{"command":"receive-message","channel":["a","b"]{members}}}"#).as_bytes()).unwrap() {
            Command::Receive { order, .. } => assert_eq!(order, expected, "{members}"),
            other => panic!("{members}: {other:?}"),
        }
    }
}

#[test]
fn a_receiver_may_name_a_group() {
    for (members, expected) in
        [("", None), (r#","group":"sms gateways""#, Some("sms gateways")), (r#","\u0067roup":7"#, Some("7"))]
    {
        match parse(format!(r#"{{"command":"receive-message","channel":"c"{members}}}"#).as_bytes()).unwrap() {
            Command::Receive { group, .. } => assert_eq!(group.as_deref(), expected, "{members}"),
            other => panic!("{members}: {other:?}"),
        }
    }
}

#[test]
fn the_options_of_a_receiver() {
    let receive =
        |members: &str| parse(format!(r#"{{"command":"receive-message","channel":"c"{members}}}"#).as_bytes());
    for (members, expected) in [
        (r#","data":[]"#, (Ack::Automatic, None, None)),
        (r#","ack":"auto","prefetch":1"#, (Ack::Automatic, Some(1), None)),
        (r#","ack":"manual","receiver":"gate way""#, (Ack::Manual, None, Some("gate way"))),
        (r#","prefetch":4096,"receiver":7"#, (Ack::Automatic, Some(wsmb_core::limits::MAX_PREFETCH), Some("7"))),
        (r#","prefetch":99999999999999999999999"#, (Ack::Automatic, Some(wsmb_core::limits::MAX_PREFETCH), None)),
    ] {
        match receive(members) {
            Ok(Command::Receive { ack, prefetch, receiver, .. }) => {
                assert_eq!((ack, prefetch, receiver.as_deref()), expected, "{members}");
            }
            other => panic!("{members}: {other:?}"),
        }
    }
    let long = format!(r#","receiver":"{}""#, "x".repeat(wsmb_core::limits::NAME_BYTES + 1));
    for (members, words) in [
        (r#","ack":true"#, "'ack' must be"),
        (r#","ack":"Manual""#, "'ack' must be"),
        (r#","ack":null"#, "'ack' must be"),
        (r#","prefetch":0"#, "'prefetch' must be an integer, 1 or more"),
        (r#","prefetch":-1"#, "'prefetch' must be"),
        (r#","prefetch":1.5"#, "'prefetch' must be"),
        (r#","prefetch":"5""#, "'prefetch' must be"),
        (r#","prefetch":null"#, "'prefetch' must be"),
        (r#","receiver":"""#, "'receiver' is empty"),
        (r#","receiver":null"#, "'receiver' must be a string or a number, not null"),
        (r#","receiver":"\ud83d""#, "'receiver' contains half of a surrogate pair"),
        (&long, "'receiver' is longer than 128 bytes"),
        (r#","order":"turns""#, "'order' must be \"list\" or \"fair\""),
        (r#","order":null"#, "'order' must be"),
        (r#","group":"""#, "'group' is empty; leave it out, or give it a value"),
        (r#","group":["a"]"#, "'group' must be a string or a number, not a list"),
        (&long.replace("receiver", "group"), "'group' is longer than 128 bytes"),
    ] {
        let wrong = receive(members).unwrap_err();
        assert_eq!(wrong.code, Code::Malformed);
        assert!(wrong.text.contains(words), "{members}: {}", wrong.text);
    }
}

#[test]
fn acknowledgements_name_a_delivery() {
    let plain = [("ack", Answer::Ack), ("nack", Answer::Nack(Nack::default())), ("extend", Answer::Extend)];
    for (name, expected) in plain {
        assert_eq!(expected.command(), name);
        for json in [r#""1f-17""#, r#""\u0031f-17""#] {
            assert_eq!(acknowledged(&format!(r#"{{"command":"{name}","delivery":{json}}}"#)), expected);
        }
    }
    for json in ["17", "\"17\"", "\"\"", "\"1F-17\"", "\"1f-017\"", "\"x\"", "null", "[]", "{}"] {
        let wrong = refused(format!(r#"{{"command":"ack","delivery":{json}}}"#).as_bytes());
        assert!(wrong.text.starts_with("'delivery' must be"), "{json}: {}", wrong.text);
    }
    assert_eq!(refused(br#"{"command":"nack"}"#).text, "'delivery' is missing");
}

/// Returns the answer in `json`, which must be for delivery 17 of connection 31.
fn acknowledged(json: &str) -> Answer {
    match command(json) {
        Command::Acknowledge { delivery, answer } => {
            assert_eq!(delivery, DeliveryName { connection: ConnectionId(31), sequence: 17 });
            answer
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_nack_has_a_retry_time_or_a_rejection_and_a_reason() {
    let nack = |members: &str| acknowledged(&format!(r#"{{"command":"nack","delivery":"1f-17"{members}}}"#));
    let expected = |retry_after, reject, reason: Option<&str>| {
        Answer::Nack(Nack { retry_after, reject, reason: reason.map(Box::from) })
    };
    let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
    assert_eq!(nack(r#","retry_after":1.5"#), expected(seconds(1.5), false, None));
    assert_eq!(nack(r#","retry_after":0"#), expected(seconds(0.0), false, None));
    assert_eq!(nack(r#","retry_after":1e9"#), expected(Some(wsmb_core::limits::RETRY_AFTER), false, None));
    assert_eq!(nack(r#","reject":true,"reason":"no \"SIM\"""#), expected(None, true, Some("no \"SIM\"")));
    assert_eq!(nack(r#","reject":false,"reason":"""#), expected(None, false, None));
    let long = format!(r#","reason":"x{}""#, "é".repeat(wsmb_core::limits::REASON_BYTES));
    let cut = format!("x{}", "é".repeat((wsmb_core::limits::REASON_BYTES - 1) / 2));
    assert_eq!(nack(&long), expected(None, false, Some(&cut)), "truncated at a character boundary");
    let wrong = |members: &str| refused(format!(r#"{{"command":"nack","delivery":"1f-17"{members}}}"#).as_bytes()).text;
    for (members, field) in [
        (r#","retry_after":-1"#, "'retry_after' must not be negative"),
        (r#","retry_after":"1""#, "'retry_after' must be a number of seconds, not a string"),
        (r#","reject":1"#, "'reject' must be true or false, not a number"),
        (r#","reason":1"#, "'reason' must be a string, not a number"),
        (r#","reason":"\ud800""#, "'reason' must be a string"),
        (r#","reject":true,"retry_after":1"#, "'retry_after' and 'reject' exclude each other"),
    ] {
        let text = wrong(members);
        assert!(text.starts_with(field), "{members}: {text}");
    }
    assert_eq!(acknowledged(r#"{"command":"ack","delivery":"1f-17","reject":1,"reason":2}"#), Answer::Ack);
}
