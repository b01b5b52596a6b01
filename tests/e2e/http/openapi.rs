//! `/api/v1/openapi.json`: what it describes exists. `cargo xtask test` validates the document, and a test beside the router compares both.

use serde_json::Value;

use super::{Http, curl};
use crate::broker::Broker;

#[test]
fn everything_that_the_document_describes_exists() {
    let broker = Broker::start();
    let (status, text) = curl(&broker, &[], "/api/v1/openapi.json");
    assert_eq!(status, 200, "without credentials: {text}");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let mut tried = 0;
    for (path, item) in paths {
        for method in item.as_object().expect("methods").keys().filter(|name| *name != "parameters") {
            let line = format!("{} {}", method.to_uppercase(), path.replace(['{', '}'], ""));
            // Not of an administrator, and without a body: so a resource may also answer 400 or 403.
            let response = Http::connect(&broker).request(&line, &[], "");
            let described = &item[method]["responses"][response.status.to_string()];
            assert!(!matches!(response.status, 404 | 405) && !described.is_null(), "{line}: {response:?}");
            tried += 1;
        }
    }
    assert!(tried >= paths.len() && tried > 5, "only {tried} methods were tried");
    let (status, head) = curl(&broker, &["--head"], "/api/v1/openapi.json");
    assert!(status == 200 && head.contains("Content-Type: application/json\r\n"), "{head}");
}
