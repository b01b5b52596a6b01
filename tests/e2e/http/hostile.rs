//! Requests that are made to confuse the broker or a proxy in front of it.

use super::{Http, request};
use crate::broker::Broker;
use crate::client::Client;

const PATH: &str = "/api/v1/channels/sms/messages";

/// The authorization of the default user.
fn authorization() -> String {
    crate::raw::basic(crate::broker::USER, crate::broker::PASSWORD)
}

#[test]
fn a_request_is_never_two_requests() {
    let broker = Broker::start();
    let authorization = authorization();
    let smuggled = format!(
        "POST {PATH} HTTP/1.1\r\nHost: broker\r\nAuthorization: {authorization}\r\nContent-Length: 3\r\n\r\n666"
    );
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
    ] {
        let mut http = Http::connect(&broker);
        http.write(format!(
            "POST {PATH} HTTP/1.1\r\nHost: broker\r\nAuthorization: {authorization}\r\n{head}\r\n0\r\n\r\n{smuggled}"
        ));
        http.finish();
        // At most one answer that accepts: if the first request has no body, the bytes behind it are no request.
        let mut accepted = 0;
        while let Some(response) = http.read() {
            accepted += u32::from(response.status == 202);
        }
        assert_eq!(accepted, 0, "{head:?}");
    }
    assert_eq!(request(&broker, &format!("POST {PATH}"), &[], "1").status, 202);
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(1), [1]);
    receiver.expect_nothing_yet();
}

#[test]
fn nothing_of_a_request_becomes_a_header_of_the_response() {
    let broker = Broker::start();
    for path in ["/api/v1/channels/a%0d%0aX-Evil:%201/messages", "/api/v1/channels/a%0aX-Evil/messages"] {
        let response = request(&broker, &format!("POST {path}"), &[], "1");
        assert_eq!(response.status, 400);
        assert!(response.header("x-evil").is_none() && !response.body.contains("Evil"), "{response:?}");
    }
    let key = "x".repeat(128);
    let response = request(&broker, &format!("POST {PATH}"), &[("Idempotency-Key", &key)], "1");
    assert_eq!(response.status, 202);
    assert_eq!(
        request(&broker, &format!("POST {PATH}?idempotency-key=%0d%0aX-Evil:1"), &[], "1").header("x-evil"),
        None
    );
}

#[test]
fn a_path_is_not_cleaned_up() {
    let broker = Broker::start();
    for path in
        ["/api/v1/channels/sms/../admin/messages", "/api/v1/./channels/sms/messages", "/api/v1//channels/sms/messages"]
    {
        assert_eq!(request(&broker, &format!("POST {path}"), &[], "1").status, 404, "{path}");
    }
}

#[test]
fn heads_are_bounded() {
    let broker = Broker::start();
    let long = "x".repeat(20 << 10);
    let response = request(&broker, &format!("POST {PATH}"), &[("X-Long", &long)], "1");
    assert_eq!(response.status, 431);
    let many: Vec<(String, String)> = (0..80).map(|number| (format!("X-{number}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(request(&broker, &format!("POST {PATH}"), &many, "1").status, 431);
    let mut http = Http::connect(&broker);
    http.write(format!(
        "POST {PATH} HTTP/1.1\r\nHost: broker\r\nAuthorization: {}\r\nContent-Length: 99999999999\r\n\r\n",
        authorization()
    ));
    assert_eq!(http.read().expect("a response").status, 413);
}
