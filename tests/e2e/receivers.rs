//! The choice of receivers: channels that keep nothing, receiver limits, `first` and `rotate`, takeover by name.

use std::time::Duration;

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::legacy::Php;
use crate::raw::{Got, Head, Raw, basic};

#[test]
fn a_channel_that_keeps_nothing_delivers_to_present_receivers_only() {
    let broker = Setup::default().defaults("keep = false").start();
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(0));
    sender.sync();
    let mut receivers = [Client::receiver(&broker, "sms"), Client::receiver(&broker, "sms")];
    sender.publish("sms", &json!(1));
    for receiver in &mut receivers {
        assert_eq!(receiver.numbers(1), [1]);
    }
    receivers.into_iter().for_each(Client::vanish);
    let mut late = Client::receiver(&broker, "sms");
    sender.publish("sms", &json!(2));
    assert_eq!(late.numbers(1), [2]);
}

#[test]
fn a_topic_sender_does_not_get_its_own_messages() {
    let broker = Broker::start();
    let mut sender = Client::topic(&broker, "sms");
    let mut other = Client::topic(&broker, "sms");
    sender.raw().send_text("from one");
    assert_eq!(other.next_text(), "from one");
    other.raw().send_text("from the other");
    assert_eq!(sender.next_text(), "from the other");
    sender.expect_nothing_yet();
    other.expect_nothing_yet();
}

/// Sends `count` numbers, and returns the indices of the receivers of each.
#[track_caller]
fn receivers_of_each(broker: &Broker, receivers: &mut [Client], count: u64) -> Vec<Vec<usize>> {
    let mut sender = Client::envelope(broker);
    (0..count)
        .map(|number| {
            sender.publish("sms", &json!(number));
            sender.sync();
            let mut got = Vec::new();
            for (index, receiver) in receivers.iter_mut().enumerate() {
                receiver.sync();
                if receiver.take_delivered() {
                    got.push(index);
                }
            }
            got
        })
        .collect()
}

#[test]
fn the_limit_comes_from_the_server_or_the_channel() {
    let broker = Setup::default()
        .defaults("receivers = 2\nkeep = false")
        .channel("s?s", "receivers = 1\nkeep = false")
        .channel("sms", "receivers = 3")
        .start();
    let mut receivers: Vec<Client> = (0..3).map(|_| Client::receiver(&broker, "sms")).collect();
    assert_eq!(receivers_of_each(&broker, &mut receivers, 3), [[0], [0], [0]], "the first matching pattern wins");
    let mut others: Vec<Client> = (0..3).map(|_| Client::receiver(&broker, "other")).collect();
    Client::envelope(&broker).publish("other", &json!(7));
    assert_eq!(others[0].numbers(1), [7]);
    assert_eq!(others[1].numbers(1), [7]);
    others[2].expect_nothing_yet();
}

#[test]
fn dispatch_first_uses_the_order_of_subscription() {
    let broker = Setup::default().defaults("receivers = 1\nkeep = false").start();
    let mut receivers: Vec<Client> = (0..3).map(|_| Client::receiver(&broker, "sms")).collect();
    assert_eq!(receivers_of_each(&broker, &mut receivers, 4), [[0], [0], [0], [0]]);
    receivers.remove(0).leave();
    assert_eq!(receivers_of_each(&broker, &mut receivers, 2), [[0], [0]]);
}

#[test]
fn dispatch_rotate_uses_the_receivers_in_turn() {
    let broker = Setup::default().defaults("receivers = 1\nkeep = false\ndispatch = \"rotate\"").start();
    let mut receivers: Vec<Client> = (0..3).map(|_| Client::receiver(&broker, "sms")).collect();
    assert_eq!(receivers_of_each(&broker, &mut receivers, 6), [[0], [1], [2], [0], [1], [2]]);
}

#[test]
fn dispatch_rotate_with_two_of_three_is_fair() {
    let broker = Setup::default().defaults("receivers = 2\nkeep = false\ndispatch = \"rotate\"").start();
    let mut receivers: Vec<Client> = (0..3).map(|_| Client::receiver(&broker, "sms")).collect();
    let got = receivers_of_each(&broker, &mut receivers, 6);
    assert!(got.iter().all(|receivers| receivers.len() == 2), "{got:?}");
    for index in 0..3 {
        assert_eq!(got.iter().filter(|receivers| receivers.contains(&index)).count(), 4, "receiver {index}: {got:?}");
    }
}

#[test]
fn receive_message_replaces_the_channel() {
    let broker = Setup::default().defaults("keep = false").start();
    let mut receiver = Client::receiver(&broker, "old");
    receiver.subscribe("sms");
    let mut sender = Client::envelope(&broker);
    sender.publish("old", &json!(0));
    sender.publish("sms", &json!(1));
    assert_eq!(receiver.numbers(1), [1]);
}

#[test]
fn one_connection_may_receive_several_channels() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    sender.publish_safely("b", &json!(0), "0");
    let mut receiver = Client::envelope(&broker);
    receiver.command(&json!({"command": "receive-message", "channel": ["a", "b", "a"]}));
    let delivery = receiver.next_delivery();
    assert_eq!((&delivery["channel"], &delivery["data"]), (&json!("b"), &json!([0])));
    sender.publish("a", &json!(1));
    sender.publish("c", &json!(2));
    sender.publish("b", &json!(3));
    assert_eq!(receiver.numbers(2), [1, 3]);
}

#[test]
fn channels_do_not_mix() {
    let broker = Broker::start();
    let mut receivers: Vec<Client> =
        (0..5).map(|index| Client::receiver(&broker, &format!("channel {index}"))).collect();
    let mut sender = Client::envelope(&broker);
    for number in 0..50 {
        sender.publish(&format!("channel {}", number % 5), &json!(number));
    }
    for (index, receiver) in receivers.iter_mut().enumerate() {
        assert_eq!(receiver.numbers(10), (0..10).map(|round| round * 5 + index as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_new_connection_with_the_same_name_replaces_the_old_one_at_once() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let head = Head::new("/?receiver=gateway-1").modern();
    let mut old = Client::envelope_with(&broker, &head).silent();
    old.subscribe("sms");
    let mut standby = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(0));
    assert_eq!(old.numbers(1), [0]);
    let mut new = Client::envelope_with(&broker, &head);
    assert_eq!(old.closed(), 1008);
    // The unconfirmed message may go to the standby receiver, which was subscribed first.
    new.subscribe("sms");
    standby.sync();
    let mut got = Vec::new();
    for client in [&mut standby, &mut new] {
        client.sync();
        got.extend(client.take_messages());
    }
    assert_eq!(got, ["0"]);
}

#[test]
fn a_name_in_receive_message_replaces_the_old_connection() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let mut old = Client::envelope(&broker).silent();
    old.subscribe_with("sms", &json!({"receiver": "gateway-1"}));
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(0));
    assert_eq!(old.numbers(1), [0]);
    let mut new = Client::envelope(&broker);
    new.command(&json!({"command": "receive-message", "channel": "sms", "receiver": "gateway-1"}));
    assert_eq!(new.numbers(1), [0]);
    assert_eq!(old.closed(), 1008);
    new.subscribe_with("sms", &json!({"receiver": "gateway-1"}));
    sender.publish("sms", &json!(1));
    assert_eq!(new.numbers(1), [1], "a connection does not replace itself");
}

#[test]
fn a_replaced_legacy_receiver_gets_fin_and_no_close_frame() {
    let broker = Broker::start();
    let mut old = Php::connect(&broker, "/ws?topic=sms&receiver=gateway-1");
    let _new = Client::over(Raw::upgrade(&broker, &Head::new("/ws?topic=sms&receiver=gateway-1").modern()));
    assert_eq!(old.raw().next(), Got::Fin, "{}", old.raw().trace());
}

#[test]
fn another_user_with_the_same_name_replaces_no_connection() {
    let broker = Broker::start();
    let mut mine = Client::envelope_with(&broker, &Head::new("/?receiver=gateway-1").modern());
    let other = Head::new("/?receiver=gateway-1").modern().with("Authorization", &basic("colon", "pass:word"));
    let mut theirs = Client::envelope_with(&broker, &other);
    theirs.sync();
    mine.expect_nothing(Duration::from_millis(200));
}
