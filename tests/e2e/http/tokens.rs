//! Tokens and tickets over HTTP.

use serde_json::{Value, json};

use super::{Response, request};
use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::raw::{Head, Raw, basic};

/// A broker with the user `app`, who may use every channel, and the user `web`, who may only send to `sms`.
fn broker() -> Broker {
    let users = "htpasswd = []\nadmins = [\"app\"]\nusers = [\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\", \"web:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]";
    let rights = "[[permission]]\nuser = \"web\"\nsend = [\"sms\"]\n[[permission]]\nuser = \"app\"\nsend = [\"*\"]\nreceive = [\"*\"]";
    Setup::default().auth(&format!("{users}\n{rights}")).start()
}

#[track_caller]
fn ask(broker: &Broker, user: &str, body: &Value) -> Response {
    let headers = [("Authorization", &*basic(user, "secret")), ("Content-Type", "application/json")];
    request(broker, "POST /api/v1/tokens", &headers, body.to_string())
}

#[test]
fn a_token_gives_what_was_asked_for_and_no_more() {
    let broker = broker();
    let issued = ask(&broker, "app", &json!({"send": ["sms"], "receive": ["user/42/*"], "ttl": "15m"}));
    assert_eq!((issued.status, issued.header("cache-control")), (201, Some("no-store")), "{issued:?}");
    let token = issued.json()["token"].as_str().expect("a token").to_owned();
    let bearer = format!("Bearer {token}");
    let post = |channel: &str, bearer: &str| {
        request(&broker, &format!("POST /api/v1/channels/{channel}/messages"), &[("Authorization", bearer)], "1").status
    };
    assert_eq!((post("sms", &bearer), post("other", &bearer)), (202, 403));
    let mut refused = token.clone().into_bytes();
    let last = refused.len() - 1;
    refused[last - 3] ^= 1;
    let refused = format!("Bearer {}", String::from_utf8(refused).expect("ASCII"));
    let response = request(&broker, "POST /api/v1/channels/sms/messages", &[("Authorization", &refused)], "1");
    assert_eq!((response.status, response.json()["code"].as_str()), (401, Some("01")), "{response:?}");
    assert!(response.headers.iter().any(|(_, value)| value.starts_with("Bearer error=")), "{response:?}");
    // A token asks for no token, and a user for no more than it has.
    let again = request(&broker, "POST /api/v1/tokens", &[("Authorization", &bearer)], "{\"send\":[\"sms\"]}");
    assert_eq!(again.status, 403, "{again:?}");
    assert_eq!(ask(&broker, "web", &json!({"send": ["sms"]})).status, 201);
    assert_eq!(ask(&broker, "web", &json!({"receive": ["sms"]})).status, 403);
    assert_eq!(ask(&broker, "web", &json!({"user": "other", "send": ["sms"]})).status, 403);
    for body in [
        json!({}),
        json!({"sned": ["sms"]}),
        json!({"send": ["sms"], "ttl": "x"}),
        json!({"send": ["sms"], "ttl": "25h"}),
        json!([]),
    ] {
        let response = ask(&broker, "app", &body);
        assert_eq!(response.status, 400, "{body}: {response:?}");
    }
}

#[test]
fn a_ticket_opens_one_websocket() {
    let broker = broker();
    let issued = request(&broker, "POST /api/v1/tickets", &[], "");
    assert_eq!((issued.status, &issued.json()["expires_in"]), (201, &json!(30)), "{issued:?}");
    let ticket = issued.json()["ticket"].as_str().expect("a ticket").to_owned();
    let head =
        Head::new(&format!("/?ticket={ticket}")).without("Authorization").with("Origin", "https://other.example");
    let mut client = Client::over(Raw::upgrade(&broker, &head.clone().modern()));
    client.subscribe("sms");
    let refused = Raw::try_request(broker.address(), broker.log(), &head).expect("an answer");
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    assert!(!broker.log().text().contains(&ticket), "a ticket is a secret");
    // Over HTTP, too: a page can hand it to EventSource, which can set no header.
    let ticket =
        request(&broker, "POST /api/v1/tickets", &[], "").json()["ticket"].as_str().expect("a ticket").to_owned();
    let line = format!("POST /api/v1/channels/sms/messages?ticket={ticket}");
    assert_eq!(request(&broker, &line, &[("Authorization", "")], "1").status, 202);
    assert_eq!(request(&broker, &line, &[("Authorization", "")], "2").status, 401);
    assert_eq!(client.numbers(1), [1]);
    let in_address = request(&broker, "POST /api/v1/channels/sms/messages?token=x", &[], "1");
    assert_eq!(in_address.status, 400, "{in_address:?}");
}

#[test]
fn a_named_receiver_has_the_rights_of_its_newest_login() {
    let broker = broker();
    let token = |receive: &str| {
        let issued = ask(&broker, "app", &json!({ "receive": [receive] }));
        format!("Bearer {}", issued.json()["token"].as_str().expect("a token"))
    };
    let get = |authorization: &str, channel: &str| {
        let line = format!("GET /api/v1/channels/{channel}/messages?receiver=page");
        request(&broker, &line, &[("Authorization", authorization)], "").status
    };
    let (wide, narrow) = (token("user.*"), token("user.1"));
    assert_eq!((get(&narrow, "user.1"), get(&narrow, "user.2")), (200, 403));
    // The receiver of the narrow token gets the rights of the wide one, so a reload ends only the connection of the removed user.
    assert_eq!(get(&wide, "user.2"), 200);
    let _removed = Raw::upgrade(&broker, &Head::new("/").modern().with("Authorization", &basic("web", "secret")));
    broker.reconfigure(|text| text.replace("\"web:{SHA}", "\"removed:{SHA}"));
    broker.wait_for_log("whose user, password or right has been withdrawn connections=1");
    assert_eq!((get(&wide, "user.2"), get(&narrow, "user.2")), (200, 403));
    // A login with a password takes the receiver's place.
    assert_eq!((get(&basic("app", "secret"), "user.3"), get(&narrow, "user.1")), (200, 200));
}
