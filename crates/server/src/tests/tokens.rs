//! Logins with tokens and tickets that the broker has issued, over real sockets.

use std::sync::Arc;

use super::*;
use wsmb_auth::{IssueError, Key, TokenRequest};

/// The passwords `secret` and `other` of the user `shop`.
const SHOP: &str = "shop:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
const SHOP_CHANGED: &str = "shop:{SHA}0JQeaNqPOBUf+Gph/Fn3xc+fyqI=";

/// A server with the user `shop`, who may send to `sms` and receive from `user/*`. Its files are in `directory`.
async fn shop(directory: &tempfile::TempDir) -> RunningServer {
    start(|settings| change(settings, directory)).await
}

fn change(settings: &mut Settings, directory: &tempfile::TempDir) {
    settings.access.anonymous = false;
    settings.access.users = vec![SHOP.to_owned()];
    settings.access.token_key = Some(directory.path().join("token.key"));
    settings.access.permissions = Permissions::default().with(&["shop"], &["sms".to_owned()], &["user/*".to_owned()]);
}

/// Gives the server the policies and the access of these settings.
async fn reload(server: &RunningServer, new: Settings) {
    let reload = Reload {
        policies: new.broker.policies,
        access: new.access,
        tls: None,
        webhooks: vec![],
        needs_restart: vec![],
    };
    server.reload(reload).await;
}

fn wanted() -> TokenRequest {
    TokenRequest { send: vec!["sms".to_owned()], receive: vec!["user/42/*".to_owned()], ..TokenRequest::default() }
}

async fn connect_with(server: &RunningServer, target: &str, token: Option<&str>) -> Result<Client, String> {
    let mut request = format!("ws://{}{target}", server.local_addrs()[0]).into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "wsmb.v1".parse().expect("a value"));
    if let Some(token) = token {
        request.headers_mut().insert("Authorization", format!("Bearer {token}").parse().expect("a value"));
    }
    match in_time(connect_async(request)).await {
        Ok((client, _)) => Ok(client),
        Err(Error::Http(response)) => {
            Err(String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned())
        }
        Err(error) => panic!("{error}"),
    }
}

/// Sends a command and returns the next answer.
async fn ask(client: &mut Client, command: &str) -> String {
    send(client, command).await;
    receive(client).await
}

/// Waits for the end of a connection. Returns the close frame's code and reason.
async fn end(client: &mut Client) -> (u16, String) {
    loop {
        match in_time(client.next()).await {
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => return (code.into(), reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_token_of_the_broker_has_the_rights_that_were_asked_for_and_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = shop(&directory).await;
    let issued = server.issue_token("shop", &wanted()).await.expect("a token");
    for _ in 0..2 {
        let server = shop(&directory).await;
        let mut client = connect_with(&server, "/", Some(&issued.token)).await.expect("connected");
        receive(&mut client).await;
        let answer = ask(&mut client, r#"{"command":"send-message","channel":"sms","id":"1","data":[1]}"#).await;
        assert!(answer.contains(r#""response_code":"00""#), "{answer}");
        for command in [
            r#"{"command":"send-message","channel":"user/42/x","id":"2","data":[1]}"#,
            r#"{"command":"receive-message","channel":"user/43/x"}"#,
        ] {
            let answer = ask(&mut client, command).await;
            assert!(answer.contains(r#""response_code":"03""#), "{answer}");
        }
    }
    let many = TokenRequest { send: vec!["*".to_owned()], ..wanted() };
    assert_eq!(server.issue_token("shop", &many).await, Err(IssueError::Right("send", "*".to_owned())));
    assert_eq!(server.issue_token("nobody", &wanted()).await, Err(IssueError::NoPassword));
}

#[tokio::test]
async fn connections_of_a_token_end_when_its_asker_gets_another_password_or_loses_the_right() {
    let directory = tempfile::tempdir().expect("a directory");
    for lose_right in [false, true] {
        let server = shop(&directory).await;
        let issued = server.issue_token("shop", &wanted()).await.expect("a token");
        let mut client = connect_with(&server, "/", Some(&issued.token)).await.expect("connected");
        receive(&mut client).await;
        send(&mut client, r#"{"command":"receive-message","channel":"user/42/x"}"#).await;
        ask(&mut client, r#"{"command":"ping","channel":"sms"}"#).await;
        let mut new = settings();
        change(&mut new, &directory);
        if lose_right {
            new.access.permissions = Permissions::default().with(&["shop"], &["sms".to_owned()], &[]);
        } else {
            new.access.users = vec![SHOP_CHANGED.to_owned()];
        }
        reload(&server, new).await;
        let reason = if lose_right { "right withdrawn" } else { "credentials withdrawn" };
        assert_eq!(end(&mut client).await, (1008, reason.to_owned()));
        let again = connect_with(&server, "/", Some(&issued.token)).await;
        assert_eq!(again.is_ok(), lose_right, "{:?}", again.err());
    }
}

#[tokio::test]
async fn a_ticket_is_good_for_one_connection_with_the_rights_of_its_user() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = shop(&directory).await;
    let ticket = server.issue_ticket("shop").expect("a ticket");
    let target = format!("/?ticket={ticket}");
    let mut client = connect_with(&server, &target, None).await.expect("connected");
    receive(&mut client).await;
    let answer = ask(&mut client, r#"{"command":"send-message","channel":"sms","id":"1","data":[1]}"#).await;
    assert!(answer.contains(r#""response_code":"00""#), "{answer}");
    for target in [target.as_str(), "/?ticket=", "/?ticket=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = connect_with(&server, target, None).await.expect_err("used or wrong");
        assert!(
            answer
                .contains(r#""01","response_text":"Rejected: the ticket is wrong, was used already, or has expired""#),
            "{answer}"
        );
    }
    // A wrong ticket is not saved by a right token.
    let issued = server.issue_token("shop", &wanted()).await.expect("a token");
    assert!(connect_with(&server, &target, Some(&issued.token)).await.is_err());
}

#[tokio::test]
async fn a_ticket_ends_with_its_user() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = shop(&directory).await;
    let ticket = server.issue_ticket("shop").expect("a ticket");
    let mut new = settings();
    change(&mut new, &directory);
    new.access.users = vec![SHOP_CHANGED.to_owned()];
    reload(&server, new).await;
    assert!(connect_with(&server, &format!("/?ticket={ticket}"), None).await.is_err());
}

#[tokio::test]
async fn without_a_file_for_its_key_the_broker_issues_no_tokens() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(|settings| {
        change(settings, &directory);
        settings.access.token_key = None;
    })
    .await;
    let error = server.issue_token("shop", &wanted()).await.expect_err("no key");
    assert_eq!(error.to_string(), "this broker issues no tokens: auth.token_key names no file for the key");
}

#[tokio::test]
async fn failures_of_tokens_are_slowed_and_a_right_token_from_the_same_address_is_not() {
    let secret = "0123456789abcdef0123456789abcdef";
    let key = Key::new("app", wsmb_auth::Algorithm::Hs256, secret, None, None).expect("a key");
    let signing = key.to_signing().expect("a secret");
    let server = start(|settings| {
        settings.access.anonymous = false;
        settings.access.keys = vec![Arc::new(key)];
    })
    .await;
    let far = serde_json::json!({ "sub": "alice", "exp": 4_000_000_000_u64 });
    let token = wsmb_auth::token::sign("app", far.as_object().expect("claims"), &signing).expect("a token");
    let wrong = format!("{}AAAA", &token[..token.len() - 4]);
    let free = wsmb_auth::limits::ADDRESS_FREE_FAILURES;
    let old = serde_json::json!({ "sub": "alice", "exp": 1 });
    let old = wsmb_auth::token::sign("app", old.as_object().expect("claims"), &signing).expect("a token");
    for _ in 0..=free {
        let answer = connect_with(&server, "/", Some(&old)).await.expect_err("expired");
        assert!(answer.contains("the token has expired"), "an expired token is no guess: {answer}");
    }
    for number in 0..free + 2 {
        let answer = connect_with(&server, "/", Some(&wrong)).await.expect_err("a wrong signature");
        let wanted = if number < free { "the token's signature is wrong" } else { "too many logins from this address" };
        assert!(answer.contains(wanted), "{number}: {answer}");
        assert!(!answer.contains(&wrong[..20]), "{answer}");
    }
    assert!(connect_with(&server, "/", Some(&token)).await.is_ok());
}
