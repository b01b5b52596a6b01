//! A delivery as requests: one for each message, with its id, body and signature. What the answers mean.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::hook::Hook;
use super::outcome::{Failed, Outcome};
use super::sign;
use crate::http::line::Line;
use wsmb_core::message::{ChannelName, Timestamp};

/// The members of a delivery that a webhook needs.
#[derive(Debug, Deserialize)]
struct Delivery<'a> {
    /// The number of the first message; the others have the following numbers. Absent if the channel keeps nothing.
    message_id: Option<String>,
    attempt: Option<u32>,
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(borrow)]
    dead_letter: Option<&'a RawValue>,
}

/// The body of a request: the type and the data, as Standard Webhooks recommends it.
#[derive(Debug, Serialize)]
struct Content<'a> {
    r#type: &'static str,
    channel: &'a str,
    attempt: u32,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<&'a RawValue>,
}

/// A delivery that was read.
pub(super) struct Call<'a> {
    delivery: Delivery<'a>,
    channel: &'a ChannelName,
}

impl<'a> Call<'a> {
    /// Reads a delivery; `None` if it is not what the broker writes.
    pub(super) fn read(channel: &'a ChannelName, line: &'a Line) -> Option<Self> {
        serde_json::from_slice(&line.json).ok().map(|delivery| Self { delivery, channel })
    }

    /// The number of this attempt, from 1.
    pub(super) fn attempt(&self) -> u32 {
        self.delivery.attempt.unwrap_or(1)
    }

    /// Posts the messages one after another, up to the first that fails. `now`: the wall clock's time.
    pub(super) async fn send(&self, hook: &Hook, now: impl Fn() -> Timestamp) -> Outcome {
        for (index, message) in (0..).zip(&self.delivery.data) {
            let outcome = match self.request(hook, index, message, now()) {
                Some(request) => hook.client.send(&request).await,
                None => return failed("the request cannot be made: the system has no random numbers".to_owned()),
            };
            let answer = match outcome {
                Ok(answer) => answer,
                Err(problem) => return failed(problem.to_string()),
            };
            match answer.status {
                status if status.is_success() => {}
                StatusCode::GONE => return Outcome::Gone,
                status => {
                    let is_busy = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
                    let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
                    return Outcome::Failed(Failed {
                        cause: format!("the answer is {}{hint}", status.as_u16()),
                        is_of_message: status.is_client_error() && !is_busy.contains(&status),
                        retry_after: answer.retry_after,
                    });
                }
            }
        }
        Outcome::Delivered
    }

    fn request(&self, hook: &Hook, index: u64, message: &RawValue, now: Timestamp) -> Option<Request<Full<Bytes>>> {
        let settings = &hook.settings;
        let number = self.delivery.message_id.as_ref().and_then(|number| number.parse::<u64>().ok());
        let number = match number {
            Some(first) => first.saturating_add(index),
            // Posted only once.
            None => getrandom::u64().ok()?,
        };
        let secret = settings.secrets.first().map_or(&[][..], |secret| secret);
        let id = sign::id(secret, number, message.get().as_bytes());
        let content = Content {
            r#type: "message",
            channel: self.channel.as_str(),
            attempt: self.attempt(),
            data: message,
            dead_letter: self.delivery.dead_letter,
        };
        let body = serde_json::to_vec(&content).ok()?;
        let timestamp = now.0 / 1_000;
        Request::builder()
            .method(Method::POST)
            .uri(&settings.target)
            .header(HOST, host(&settings.host, settings.port))
            .header(USER_AGENT, concat!("wsmb/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", sign::signatures(&settings.secrets, &id, timestamp, &body))
            .body(Full::new(body.into()))
            .ok()
    }
}

fn failed(cause: String) -> Outcome {
    Outcome::Failed(Failed { cause, is_of_message: false, retry_after: None })
}

/// The value of `Host`.
fn host(host: &str, port: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == 80 { host } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_port_and_brackets() {
        assert_eq!(host("a.example", 80), "a.example");
        assert_eq!(host("a.example", 8080), "a.example:8080");
        assert_eq!(host("::1", 81), "[::1]:81");
    }

    #[test]
    fn a_delivery_is_read_with_its_raw_data() {
        let channel = ChannelName::parse("sms").unwrap();
        let line = Line::split(&Bytes::from_static(
            b"{\"delivery\":\"a-1\",\"message_id\":\"7\",\"redelivered\":true,\"attempt\":3,\"command\":\"send-message\",\"channel\":\"sms\",\"data\":[1.50,{\"a\" : 1}],\"x\":1}\n",
        ));
        let call = Call::read(&channel, &line[0]).unwrap();
        assert_eq!((call.attempt(), call.delivery.message_id.as_deref()), (3, Some("7")));
        assert_eq!(call.delivery.data.iter().map(|data| data.get()).collect::<Vec<_>>(), ["1.50", "{\"a\" : 1}"]);
    }
}
