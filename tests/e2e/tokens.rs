//! Logins with tokens: accepted and forged ones, their rights, their expiry, and newer tokens for open connections. Tokens and tickets of the broker itself are
//! tested in `crates/server/src/tests/tokens.rs`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use wsmb_auth::{Algorithm, Signing, token};

use crate::bad_credentials::response;
use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::live_rights::end;
use crate::raw::{Head, Raw, basic};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const KEYS: &str = "[[auth.key]]\nid = \"app\"\nalgorithm = \"HS256\"\nkey = \"0123456789abcdef0123456789abcdef\"\n";
const OTHER_KEY: &str =
    "[[auth.key]]\nid = \"other\"\nalgorithm = \"HS256\"\nkey = \"fedcba9876543210fedcba9876543210\"\n";

fn setup() -> Setup {
    Setup::default().store(&format!("{KEYS}{OTHER_KEY}"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token with these claims. `exp` is in an hour unless the claims say otherwise.
fn token_of(key: &str, secret: &str, claims: &Value) -> String {
    let mut all = json!({ "exp": now() + 3_600 }).as_object().expect("an object").clone();
    all.extend(claims.as_object().expect("an object").clone());
    let signing = Signing::parse(Algorithm::Hs256, secret).expect("a secret");
    token::sign(key, &all, &signing).expect("a token")
}

fn alice(claims: &Value) -> String {
    let mut all = json!({ "sub": "alice" });
    all.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
    token_of("app", SECRET, &all)
}

fn bearer(target: &str, token: &str) -> Head {
    Head::new(target).with("Authorization", &format!("Bearer {token}"))
}

fn subprotocols(token: &str) -> String {
    format!("wsmb.v1, wsmb.token.{}", URL_SAFE_NO_PAD.encode(token))
}

/// Sends a refused request. Returns the status, the head and the body.
#[track_caller]
fn refusal(broker: &Broker, head: &Head) -> (u16, String, String) {
    response(broker, &head.bytes())
}

#[test]
fn a_token_gives_its_bearer_the_channels_in_its_claims() {
    let broker = setup().start();
    let token = alice(&json!({ "wsmb.send": ["sms", "mail.*"], "wsmb.receive": ["user/alice/*"] }));
    let in_header = bearer("/", &token).modern();
    let in_protocol = Head::new("/").without("Authorization").with("Sec-WebSocket-Protocol", &subprotocols(&token));
    for head in [in_header, in_protocol] {
        let mut client = Client::envelope_with(&broker, &head);
        for (channel, code) in [("sms", "00"), ("mail.1", "00"), ("user/alice/1", "03"), ("other", "03")] {
            assert_eq!(client.request(channel, &json!(1), &json!({"id": channel}))["response_code"], code, "{channel}");
        }
        client.subscribe("user/alice/1");
        client.command(&json!({"command": "receive-message", "channel": ["user/alice/1", "user/bob/1"]}));
        assert_eq!(client.next_json()["response_code"], "03");
    }
    let (status, ..) = refusal(&broker, &bearer("/ws?topic=other", &token));
    assert_eq!(status, 403);
    Raw::upgrade(&broker, &bearer("/ws?topic=sms", &token));
}

#[test]
fn the_answer_names_wsmb_v1_only() {
    let broker = setup().start();
    let protocols = subprotocols(&alice(&json!({})));
    let mut raw = Raw::connect(&broker);
    raw.send(&Head::new("/").without("Authorization").with("Sec-WebSocket-Protocol", &protocols).bytes());
    let head = raw.head();
    assert!(head.contains("\r\nSec-WebSocket-Protocol: wsmb.v1\r\n") && !head.contains("token"), "{head}");
}

#[test]
fn a_page_of_any_origin_may_use_a_token_and_no_page_a_remembered_password() {
    let broker = setup().start();
    let protocols = subprotocols(&alice(&json!({})));
    let page = Head::new("/").with("Origin", "https://elsewhere.example").modern();
    let (status, _, body) = refusal(&broker, &page);
    assert_eq!(status, 403, "{body}");
    let with_token = page.clone().with("Sec-WebSocket-Protocol", &protocols);
    // The browser adds a password that it remembers; the token counts.
    Client::envelope_with(&broker, &with_token).sync();
    Client::envelope_with(
        &broker,
        &bearer("/", &alice(&json!({}))).with("Origin", "https://elsewhere.example").modern(),
    );
    let wrong = page.with("Sec-WebSocket-Protocol", &subprotocols("a.b.c"));
    assert_eq!(refusal(&broker, &wrong).0, 401, "a wrong token is not saved by a right password");
}

#[test]
fn forged_tokens_are_refused_with_a_sentence_that_does_not_repeat_them() {
    let broker = setup().start();
    let good = alice(&json!({ "wsmb.send": "geheim" }));
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let encode = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let none = encode(json!({ "alg": "none", "kid": "app" }));
    let rs256 = encode(json!({ "alg": "RS256", "kid": "app" }));
    let path = encode(json!({ "alg": "HS256", "kid": "../../dev/null" }));
    let mallory = encode(json!({ "sub": "mallory", "exp": now() + 60 }));
    for (token, words) in [
        (format!("{none}.{claims}."), "another algorithm"),
        (format!("{rs256}.{claims}.{signature}"), "another algorithm"),
        (format!("{path}.{claims}.{signature}"), "names a key"),
        (format!("{header}.{mallory}.{signature}"), "signature is wrong"),
        (format!("{header}.{claims}."), "signature is wrong"),
        (format!("{header}.{claims}"), "not a signed JWT"),
        (token_of("app", OTHER, &json!({ "sub": "alice" })), "signature is wrong"),
        (alice(&json!({ "exp": now() - 61 })), "has expired"),
        (alice(&json!({ "nbf": now() + 90 })), "not valid yet"),
        (alice(&json!({ "aud": "another" })), "for another service"),
        (alice(&json!({ "wsmb": { "send": ["*"] } })), "unknown claim"),
        (alice(&json!({ "x": "y".repeat(5_000) })), "longer than 4096 bytes"),
        ("geheim".to_owned(), "not a signed JWT"),
    ] {
        for head in [bearer("/", &token), Head::new("/").with("Sec-WebSocket-Protocol", &subprotocols(&token))] {
            let (status, head, body) = refusal(&broker, &head);
            assert_eq!(status, 401, "{token}: {head}");
            for line in ["WWW-Authenticate: Basic realm=\"wsmb\"", "WWW-Authenticate: Bearer error=\"invalid_token\""] {
                assert!(head.lines().any(|found| found == line), "{token}: {head}");
            }
            let body: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!((&body["command"], &body["response_code"]), (&json!("connect"), &json!("01")), "{token}");
            let text = body["response_text"].as_str().expect("a text");
            assert!(text.starts_with("Rejected: the token") && text.contains(words), "{token}: {text}");
            assert!(!text.contains(&token) && !text.contains("geheim"), "{token}: {text}");
        }
    }
    Client::envelope_with(&broker, &bearer("/", &good).modern()).sync();
}

#[test]
fn a_token_in_the_address_is_refused() {
    let broker = setup().start();
    let token = alice(&json!({}));
    for name in ["token", "access_token", "%74oken"] {
        let (status, _, body) = refusal(&broker, &Head::new(&format!("/?{name}={token}")).without("Authorization"));
        assert_eq!(status, 400, "{body}");
        assert!(body.contains("a token must not be in the address") && !body.contains(&token[..20]), "{body}");
    }
}

#[test]
fn a_connection_ends_when_its_token_expires_unless_it_is_refreshed() {
    let broker = setup().start();
    // Accepted for 60 s after its expiry, so for some 4 s now.
    let token = alice(&json!({ "exp": now() - 56 }));
    let mut modern = Raw::upgrade(&broker, &bearer("/", &token).modern());
    let mut legacy = Raw::upgrade(&broker, &bearer("/ws?topic=sms", &token));
    let mut refreshed = Client::envelope_with(&broker, &bearer("/", &token).modern());
    let mut with_password = Client::receiver(&broker, "sms");
    refreshed.command(&json!({"command": "refresh", "token": alice(&json!({})), "id": "r1"}));
    let answer = refreshed.next_json();
    assert_eq!(answer, json!({"command": "refresh", "response_code": "00", "response_text": "Accepted", "id": "r1"}));
    let deadline = Instant::now() + Duration::from_secs(20);
    assert_eq!(end(&mut modern, deadline), Some(4001), "{}", modern.trace());
    assert!(modern.trace().contains("token expired"), "{}", modern.trace());
    assert_eq!(end(&mut legacy, deadline), None, "{}", legacy.trace());
    broker.wait_for_log("ended connections whose token has expired");
    refreshed.sync();
    with_password.sync();
    assert_eq!(refusal(&broker, &bearer("/", &token)).0, 401);
    broker.wait_for_log("reason=\"unacceptable token\"");
}

#[test]
fn the_first_frame_of_a_legacy_connection_may_be_a_refresh() {
    let broker = setup().start();
    let mut raw = Raw::upgrade(&broker, &bearer("/", &alice(&json!({}))));
    raw.send_text(&json!({"command": "refresh", "token": alice(&json!({})), "id": "1"}).to_string());
    assert!(raw.next_data().text().starts_with(r#"{"command":"connect","response_code":"00""#));
    assert!(raw.next_data().text().starts_with(r#"{"command":"refresh","response_code":"00""#));
    let mut raw = Raw::upgrade(&broker, &bearer("/", &alice(&json!({}))));
    raw.send_text(r#"{"command":"refresh","token":"a.b.c"}"#);
    let answer = raw.next_data();
    assert!(
        answer.text().starts_with(r#"{"command":"connect","response_code":"01","response_text":"Rejected: "#),
        "{answer:?}"
    );
}

#[test]
fn a_refresh_changes_the_rights_of_a_connection() {
    let broker = setup().start();
    let mut client = Client::envelope_with(&broker, &bearer("/", &alice(&json!({ "wsmb.send": ["a"] }))).modern());
    client.subscribe("news");
    assert_eq!(client.request("a", &json!(1), &json!({"id": "1"}))["response_code"], "00");
    client.command(&json!({"command": "refresh", "token": alice(&json!({ "wsmb.send": ["b"] }))}));
    assert_eq!(client.next_json(), json!({"command": "refresh", "response_code": "00", "response_text": "Accepted"}));
    assert_eq!(client.request("a", &json!(1), &json!({"id": "2"}))["response_code"], "03");
    assert_eq!(client.request("b", &json!(1), &json!({"id": "3"}))["response_code"], "00");
    // A subscription that the new token does not allow ends the connection.
    client.command(&json!({"command": "refresh", "token": alice(&json!({ "wsmb.receive": [] }))}));
    assert_eq!(client.next_json()["response_code"], "00");
    assert_eq!(end(client.raw(), Instant::now() + Duration::from_secs(5)), Some(1008));
}

#[test]
fn a_refresh_with_the_token_of_another_user_changes_nothing() {
    let broker = setup().start();
    let mut client = Client::envelope_with(&broker, &bearer("/", &alice(&json!({ "wsmb.send": ["a"] }))).modern());
    let everything = json!({ "sub": "bob", "wsmb.send": ["*"] });
    for (token, code, words) in [
        (json!(token_of("app", SECRET, &everything)), "01", "the token is of another user"),
        (json!(token_of("app", OTHER, &json!({ "sub": "alice" }))), "01", "signature is wrong"),
        (json!(alice(&json!({ "exp": 1 }))), "01", "has expired"),
        (json!(""), "01", "not a signed JWT"),
        (json!(7), "02", "'token' is not a string"),
        (Value::Null, "02", "'token' is not a string"),
    ] {
        client.command(&json!({"command": "refresh", "token": token, "id": "x"}));
        let answer = client.next_json();
        assert_eq!((&answer["response_code"], &answer["id"]), (&json!(code), &json!("x")), "{answer}");
        assert!(answer["response_text"].as_str().is_some_and(|text| text.contains(words)), "{answer}");
    }
    assert_eq!(client.request("b", &json!(1), &json!({"id": "1"}))["response_code"], "03");
    assert_eq!(client.request("a", &json!(1), &json!({"id": "2"}))["response_code"], "00");
    let mut with_password = Client::envelope(&broker);
    with_password.command(&json!({"command": "refresh", "token": alice(&json!({}))}));
    assert_eq!(with_password.next_json()["response_code"], "02");
}

#[test]
fn connections_of_a_removed_key_are_ended_and_no_others() {
    let broker = setup().start();
    let bob = token_of("other", OTHER, &json!({ "sub": "bob" }));
    let mut of_app = Raw::upgrade(&broker, &bearer("/", &alice(&json!({}))).modern());
    let mut legacy = Raw::upgrade(&broker, &bearer("/ws?topic=sms", &alice(&json!({}))));
    let mut of_other = Client::envelope_with(&broker, &bearer("/", &bob).modern());
    let mut with_password = Client::envelope(&broker);
    broker.reconfigure(|text| text.replace(KEYS, ""));
    let deadline = Instant::now() + Duration::from_secs(5);
    assert_eq!(end(&mut of_app, deadline), Some(1008), "{}", of_app.trace());
    assert_eq!(end(&mut legacy, deadline), None, "{}", legacy.trace());
    of_other.sync();
    with_password.sync();
    let (status, _, body) = refusal(&broker, &bearer("/", &alice(&json!({}))));
    assert!(status == 401 && body.contains("names a key"), "{status} {body}");
}

#[test]
fn a_group_gives_its_members_their_channels() {
    let permissions = "[auth.groups]\nops = [\"app\", \"alice\"]\n\
                       [[permission]]\ngroup = \"ops\"\nsend = [\"alarm\"]\n[[permission]]\nuser = \"*\"\nsend = [\"news\"]\n";
    let broker = Setup::default().store(&format!("{KEYS}{permissions}")).start();
    let colon = Head::new("/").modern().with("Authorization", &basic("colon", "pass:word"));
    // Without the claims, a token has the rights of its user.
    for (head, alarm, news) in [
        (Head::new("/").modern(), "00", "03"),
        (bearer("/", &alice(&json!({}))).modern(), "00", "03"),
        (colon, "03", "00"),
    ] {
        let mut client = Client::envelope_with(&broker, &head);
        for (channel, code) in [("alarm", alarm), ("news", news)] {
            assert_eq!(client.request(channel, &json!(1), &json!({"id": channel}))["response_code"], code, "{channel}");
        }
    }
}

#[test]
fn no_token_and_no_ticket_is_in_the_log() {
    let broker = setup().store("[log]\nlevel = \"trace\"").start();
    let good = alice(&json!({}));
    let wrong = token_of("app", OTHER, &json!({ "sub": "alice" }));
    let ticket = "wrong-ticket-of-this-test";
    let mut client = Client::envelope_with(&broker, &bearer("/", &good).modern());
    client.command(&json!({"command": "refresh", "token": wrong}));
    assert_eq!(client.next_json()["response_code"], "01");
    assert_eq!(refusal(&broker, &bearer("/", &wrong)).0, 401);
    let (status, _, body) = refusal(&broker, &Head::new(&format!("/?ticket={ticket}")));
    assert!(status == 401 && body.contains("the ticket is wrong") && !body.contains(ticket), "{status} {body}");
    assert_eq!(refusal(&broker, &Head::new(&format!("/?token={good}"))).0, 400);
    broker.wait_for_log("reason=\"invalid token\"");
    broker.wait_for_log("reason=\"invalid ticket\"");
    client.sync();
    let log = broker.log().text();
    for secret in [&good[..], &wrong, ticket, SECRET, &good[good.len() - 20..], &wrong[wrong.len() - 20..]] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

/// Returns the first block of this language in `docs/tokens.md`.
#[track_caller]
fn example(language: &str) -> String {
    let page = include_str!("../../docs/tokens.md");
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect(language);
    rest.split_once("```").expect("an end").0.to_owned()
}

#[test]
fn the_php_example_and_the_configuration_of_the_page_about_tokens_fit_together() {
    let broker = Setup::default().file("app.secret", SECRET).store(&example("toml")).start();
    let output = std::process::Command::new("php")
        .args(["-d", "display_errors=stderr", "-d", "error_reporting=-1", "-r", &example("php")])
        .current_dir(broker.dir())
        .output()
        .expect("php; `cargo xtask test` installs it");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let token = String::from_utf8(output.stdout).expect("text");
    let mut client = Client::envelope_with(&broker, &bearer("/", &token).modern());
    client.subscribe("user/42/x");
    assert_eq!(client.request("user/42/x", &json!(1), &json!({"id": "1"}))["response_code"], "03");
    // A user without a [[permission]] for channels may use none.
    assert_eq!(Client::envelope(&broker).request("sms", &json!(1), &json!({"id": "1"}))["response_code"], "03");
    let mut without_channels = Client::envelope_with(&broker, &bearer("/", &alice(&json!({}))).modern());
    assert_eq!(without_channels.request("sms", &json!(1), &json!({"id": "1"}))["response_code"], "03");
}
