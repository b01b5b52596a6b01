//! Webhooks over TLS.

use super::{Endpoint, SECRET, verifies};
use crate::broker::{Broker, Setup};
use crate::http::publish;
use crate::secure::Identity;

/// A broker that posts to the endpoint by its name in the certificate.
#[track_caller]
fn broker(endpoint: &Endpoint, more: &str) -> Broker {
    let url = format!("https://127.0.0.1:{}/hook", endpoint.address.port());
    let lines = format!("channel = \"sms\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nallow_private = true\n{more}");
    Setup::default().defaults("receivers = 1").webhook(&lines).start()
}

#[test]
fn messages_are_posted_to_a_server_whose_certificate_is_trusted() {
    let identity = Identity::shared();
    let endpoint = Endpoint::secure(identity.server());
    let directory = tempfile::tempdir().expect("a directory");
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, &identity.certificate).expect("a file");
    let broker = broker(&endpoint, &format!("ca = \"{}\"", ca.display()));
    for number in 0..3 {
        let sent = publish(&broker, "sms", "?wait=20s", &number.to_string());
        assert_eq!((sent.status, &sent.json()["outcome"]), (200, &serde_json::json!("delivered")), "{sent:?}");
        let call = endpoint.next(&broker);
        assert_eq!((call.data(), call.connection), (serde_json::json!(number), 0), "the connection is kept");
        assert!(number > 0 || verifies(&call, SECRET));
    }
}

#[test]
fn nothing_is_posted_to_a_server_that_is_not_trusted_and_the_log_says_why() {
    // Trusts the system's authorities, if there are any.
    let endpoint = Endpoint::secure(Identity::shared().server());
    let broker = broker(&endpoint, "");
    publish(&broker, "sms", "", "1");
    broker.wait_for_log("there is no encrypted connection");
    endpoint.expect_nothing(std::time::Duration::from_millis(100));
}
