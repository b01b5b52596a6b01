//! What administrators see and do over HTTP.

use serde_json::{Value, json};

use super::{Response, publish, request};
use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::raw::basic;

/// A broker whose administrator is `app`.
fn broker() -> Broker {
    let users = "[\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\", \"web:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]";
    Setup::default().auth(&format!("htpasswd = []\nadmins = [\"app\"]\nusers = {users}")).start()
}

#[track_caller]
fn get(broker: &Broker, path: &str) -> Value {
    let response = request(broker, &format!("GET {path}"), &[], "");
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

fn names(list: &Value) -> Vec<&str> {
    list["channels"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|channel| channel["name"].as_str().expect("a name"))
        .collect()
}

#[test]
fn channels_are_listed_in_pages_by_name_or_by_backlog() {
    let broker = broker();
    for (channel, count) in [("c", 1), ("a", 2), ("b", 3)] {
        for number in 0..count {
            publish(&broker, channel, "", &number.to_string());
        }
    }
    let mut receiver = Client::envelope(&broker);
    receiver.subscribe_with("d", &json!({"ack": "manual", "receiver": "pi"}));
    receiver.sync();
    let first = get(&broker, "/api/v1/channels?limit=2");
    assert_eq!((names(&first), &first["total"], &first["next"]), (vec!["a", "b"], &json!(4), &json!("b")));
    let second = get(&broker, "/api/v1/channels?limit=2&after=b");
    assert_eq!((names(&second), &second["next"]), (vec!["c", "d"], &Value::Null));
    assert_eq!(names(&get(&broker, "/api/v1/channels?sort=backlog&limit=3")), ["b", "a", "c"]);
    let one = get(&broker, "/api/v1/channels/d");
    assert_eq!((&one["receivers"], &one["backlog"], &one["keep"]), (&json!(1), &json!(0), &json!(true)), "{one}");
    let id = one["connections"][0].as_str().expect("an id").to_owned();
    let connections = get(&broker, "/api/v1/connections");
    let connection = &connections["connections"][0];
    assert_eq!(
        (&connection["id"], &connection["user"], &connection["kind"], &connection["channels"], &connection["receiver"]),
        (&json!(id), &json!("app"), &json!("envelope"), &json!(["d"]), &Value::Null),
        "{connections}"
    );
    let ended = request(&broker, &format!("DELETE /api/v1/connections/{id}"), &[], "");
    assert_eq!(ended.status, 204, "{ended:?}");
    assert_eq!(receiver.closed(), 1008);
    assert_eq!(request(&broker, &format!("DELETE /api/v1/connections/{id}"), &[], "").status, 404);
    assert_eq!(request(&broker, "GET /api/v1/channels/nothing", &[], "").status, 404);
}

#[test]
fn a_purge_removes_all_messages_of_a_channel() {
    let broker = broker();
    for number in 0..3 {
        publish(&broker, "sms", "", &number.to_string());
    }
    let purged = request(&broker, "DELETE /api/v1/channels/sms/messages", &[], "");
    assert_eq!((purged.status, purged.json()), (200, json!({"purged": 3})));
    publish(&broker, "sms", "", "3");
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [3]);
    broker.wait_for_log("an administrator has removed all messages of a channel");
}

#[test]
fn nobody_else_administers() {
    let broker = broker();
    publish(&broker, "sms", "", "1");
    let web = basic("web", "secret");
    let token: Response = request(&broker, "POST /api/v1/tokens", &[], "{\"send\":[\"*\"],\"receive\":[\"*\"]}");
    let token = format!("Bearer {}", token.json()["token"].as_str().expect("a token"));
    for authorization in [&web, &token] {
        for line in [
            "GET /api/v1/channels",
            "GET /api/v1/channels/sms",
            "GET /api/v1/connections",
            "DELETE /api/v1/connections/1",
            "DELETE /api/v1/channels/sms/messages",
        ] {
            let response = request(&broker, line, &[("Authorization", authorization)], "");
            assert_eq!((response.status, response.json()["code"].as_str()), (403, Some("03")), "{line}");
        }
    }
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [1]);
}
