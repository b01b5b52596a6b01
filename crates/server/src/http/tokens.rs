//! `POST /api/v1/tokens` and `POST /api/v1/tickets`: credentials for clients that must not know a password, or can set no header (SPEC section 9.2).

use std::sync::Arc;

use hyper::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::asked::Asked;
use super::body::Body;
use super::response::{self, Problem};
use crate::access::Identity;
use crate::hub::Hub;
use crate::limits;
use wsmb_auth::{IssueError, TokenRequest, Users};
use wsmb_core::duration::parse_duration;
use wsmb_protocol::envelope::Code;

/// The body of a request for a token.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    user: Option<String>,
    #[serde(default)]
    send: Vec<String>,
    #[serde(default)]
    receive: Vec<String>,
    /// `"15m"`, or seconds.
    ttl: Option<Value>,
}

impl Wanted {
    fn request(self) -> Result<TokenRequest, Problem> {
        let Self { user, send, receive, ttl } = self;
        let ttl = match ttl {
            None => None,
            Some(Value::String(text)) => Some(parse_duration(&text)),
            Some(value) => Some(value.as_u64().map(std::time::Duration::from_secs)),
        };
        let ttl = match ttl {
            None => None,
            Some(Some(ttl)) => Some(ttl),
            Some(None) => return Err(Problem::malformed("'ttl' must be a time like \"15m\", or seconds")),
        };
        Ok(TokenRequest { user, send, receive, ttl })
    }
}

/// Issues a token with at most the rights of the user who asks.
pub(super) async fn issue_token(hub: &Arc<Hub>, asked: Asked, identity: &Identity) -> Result<Response<Body>, Problem> {
    let body = asked.into_body(hub, limits::HTTP_TOKEN).await?;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|_| {
        Problem::malformed("the body must be like {\"send\":[\"sms\"],\"receive\":[\"user/42/*\"],\"ttl\":\"15m\"}")
    })?;
    let token = hub.access().issue_token(identity, &wanted.request()?).await.map_err(|error| {
        let sentence = error.to_string();
        match error {
            IssueError::NoKey(_) => Problem::of(Code::Unavailable, sentence),
            error if error.is_forbidden() => Problem::of(Code::Forbidden, sentence),
            _ => Problem::malformed(sentence),
        }
    })?;
    Ok(secret(&json!({ "token": token.token, "user": token.user, "expires": token.expires })))
}

/// Issues a ticket, which is good once, for half a minute.
pub(super) fn issue_ticket(hub: &Hub, identity: &Identity, users: Arc<Users>) -> Result<Response<Body>, Problem> {
    let ticket = hub.access().issue_ticket(identity, users).ok_or_else(|| {
        Problem::of(Code::Unavailable, "too many tickets are unused; try again later").header(RETRY_AFTER, "30")
    })?;
    Ok(secret(&json!({ "ticket": ticket, "expires_in": wsmb_auth::limits::TICKET_TIME.as_secs() })))
}

/// A response that no cache may keep.
fn secret(value: &Value) -> Response<Body> {
    let mut response = response::json(StatusCode::CREATED, value);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
