//! Responses, and problems (RFC 9457). A problem never repeats a body or credentials of its request.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, UPGRADE};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::Body;
use wsmb_protocol::envelope::Code;
use wsmb_protocol::handshake::BadRequest;

/// Returns a response with this body.
pub(super) fn with(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns a response with this JSON value.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    with(status, "application/json", value.to_string())
}

/// Returns a response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// The response to a request on a path of neither WebSockets nor the HTTP interface.
pub(super) fn no_websocket() -> Response<Body> {
    let mut response = with(
        StatusCode::UPGRADE_REQUIRED,
        "text/plain; charset=utf-8",
        "this is a message broker; connect with a WebSocket client, or send HTTP requests to /api/v1/\n",
    );
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

/// The answer while the broker stops. Usually the next process is ready within two seconds.
pub(super) fn going_down() -> Problem {
    Problem::of(Code::Unavailable, "the broker is going down; try again").header(RETRY_AFTER, "1")
}

/// An error response.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// The code of SPEC section 4, if there is one.
    code: Option<Code>,
    detail: String,
    /// Further members.
    more: Map<String, Value>,
    headers: Vec<(HeaderName, String)>,
}

impl Problem {
    /// A problem without a code.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, code: None, detail: detail.into(), more: Map::new(), headers: Vec::new() }
    }

    /// A problem with a code of SPEC section 4, which decides the status.
    pub(super) fn of(code: Code, detail: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::new(status(code), detail) }
    }

    /// The request is malformed.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::of(Code::Malformed, detail)
    }

    /// Adds a member.
    pub(super) fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header. The value comes from the broker.
    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<BadRequest> for Problem {
    fn from(bad: BadRequest) -> Self {
        Self::new(StatusCode::from_u16(bad.status()).unwrap_or(StatusCode::BAD_REQUEST), bad.to_string())
    }
}

impl From<Problem> for Response<Body> {
    fn from(problem: Problem) -> Self {
        let Problem { status, code, detail, more, headers } = problem;
        let title = status.canonical_reason().unwrap_or("Error");
        let mut members = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
        if let Value::Object(members) = &mut members {
            members.extend(code.map(|code| ("code".to_owned(), code.as_str().into())));
            members.extend(more);
        }
        let mut response = with(status, "application/problem+json", members.to_string());
        for (name, value) in headers {
            // Values of the broker are valid; one that is not would only be missing.
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

/// The status of each code (SPEC section 9.3).
fn status(code: Code) -> StatusCode {
    match code {
        Code::Accepted => StatusCode::OK,
        Code::Rejected => StatusCode::UNAUTHORIZED,
        Code::Malformed | Code::UnknownCommand => StatusCode::BAD_REQUEST,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Full => StatusCode::INSUFFICIENT_STORAGE,
        Code::Expired => StatusCode::GONE,
        Code::SlowDown => StatusCode::TOO_MANY_REQUESTS,
    }
}
