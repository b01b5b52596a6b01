//! Who asks: the page, the credentials, the number of requests at the same time; then the resource answers.

use std::sync::Arc;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CONNECTION, HeaderName, HeaderValue, ORIGIN,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Response, StatusCode};
use tokio::time::timeout;

use super::asked::Asked;
use super::body::Body;
use super::response::{self, Problem, going_down, no_websocket};
use super::router::{Resource, is_reserved};
use super::{acks, admin, openapi, publish, receive, tokens};
use crate::access::{Identity, Login};
use crate::counters::Counters;
use crate::failed_logins::Reason;
use crate::hub::Hub;
use crate::limits;
use wsmb_auth::Users;
use wsmb_protocol::envelope::Code;

/// Answers a request.
pub(super) async fn answer(hub: &Arc<Hub>, asked: Asked) -> Response<Body> {
    let origin = asked.headers.get(ORIGIN).cloned();
    let mut response = if let Some(problem) = refuse_page(hub, &asked) {
        problem.into()
    } else {
        let mut response = serve(hub, asked).await.unwrap_or_else(Response::from);
        if let Some(origin) = origin {
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
        }
        response.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
        response
    };
    if hub.stop.has_begun() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns the refusal if the request comes from a page that may not connect.
fn refuse_page(hub: &Hub, asked: &Asked) -> Option<Problem> {
    let access = hub.access();
    let credentials = asked.credentials();
    if credentials.are_explicit() {
        return None;
    }
    let anonymous = access.anonymous && credentials.are_missing();
    let sentence = hub.origins.refusal(asked.head.page.as_ref()?, &asked.client, &access.origins, anonymous)?;
    Counters::add(&hub.counters.forbidden, 1);
    Some(Problem::of(Code::Forbidden, sentence))
}

async fn serve(hub: &Arc<Hub>, asked: Asked) -> Result<Response<Body>, Problem> {
    if !is_reserved(&asked.head.path) {
        return Ok(no_websocket());
    }
    let Some(resource) = Resource::of(&asked.head.path)? else {
        let detail = "there is no resource at this path; GET /api/v1/openapi.json lists all resources";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    if asked.method == Method::OPTIONS {
        return Ok(preflight(&resource));
    }
    if !resource.methods().contains(&asked.method) {
        let allowed = methods(&resource);
        let detail = format!("this resource does not have the method {}; it has {allowed}", asked.method);
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail);
        return Err(problem.header(ALLOW, allowed));
    }
    if resource.is_public() {
        return Ok(public(hub, &resource));
    }
    let (identity, users) = login(hub, &asked).await?;
    if resource.is_for_admins(&asked.method) {
        admin::require_admin(hub, &identity)?;
    }
    match resource {
        Resource::Messages(channel) if asked.method == Method::POST => {
            publish::publish(hub, asked, &identity, &channel).await
        }
        Resource::Messages(channel) if asked.method == Method::DELETE => Ok(admin::purge(hub, &identity, channel)),
        Resource::Messages(channel) => receive::receive(hub, &asked, (&identity, &users), Some(channel)).await,
        Resource::AllMessages => receive::receive(hub, &asked, (&identity, &users), None).await,
        Resource::Acks => acks::answer(hub, asked, &identity).await,
        Resource::Channels => admin::channels(hub, &asked.head.query).await,
        Resource::Channel(channel) => admin::channel(hub, &channel),
        Resource::Connections => admin::connections(hub, &asked.head.query),
        Resource::Connection(id) => admin::end_connection(hub, &identity, &id),
        Resource::Tokens => tokens::issue_token(hub, asked, &identity).await,
        Resource::Tickets => tokens::issue_ticket(hub, &identity, users),
        Resource::Health | Resource::Readiness | Resource::OpenApi => Ok(public(hub, &resource)),
    }
}

/// The answer of a resource that needs no credentials.
fn public(hub: &Hub, resource: &Resource) -> Response<Body> {
    match resource {
        Resource::OpenApi => response::with(StatusCode::OK, "application/json", openapi::DOCUMENT),
        Resource::Readiness => readiness(hub),
        _ => health(hub),
    }
}

fn methods(resource: &Resource) -> String {
    resource.methods().iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

/// The response to a browser that asks whether a page may send a request (CORS).
fn preflight(resource: &Resource) -> Response<Body> {
    let mut response = response::empty(StatusCode::NO_CONTENT);
    let mut insert = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    };
    insert(ALLOW, &methods(resource));
    insert(ACCESS_CONTROL_ALLOW_METHODS, &methods(resource));
    insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, idempotency-key, ttl, delay, receivers, wait, last-event-id",
    );
    insert(ACCESS_CONTROL_MAX_AGE, "600");
    response
}

/// Checks the credentials of a request.
async fn login(hub: &Hub, asked: &Asked) -> Result<(Identity, Arc<Users>), Problem> {
    if hub.stop.has_begun() {
        return Err(going_down());
    }
    let from = asked.client.address.ip();
    let access = hub.access();
    let login = timeout(limits::LOGIN_TIME, access.login(asked.credentials(), from)).await;
    match login {
        Ok(Login::Welcome(identity, users)) => Ok((identity, users)),
        Ok(Login::Busy) | Err(_) => {
            let problem = Problem::of(Code::Unavailable, "too many clients log in at once; try again");
            Err(problem.header(RETRY_AFTER, "5"))
        }
        Ok(Login::Slowed(user)) => {
            hub.failed_logins.log(from, &user, Reason::TooMany);
            let wait = wsmb_auth::limits::LOGIN_DELAY_MAX.as_secs().to_string();
            let problem = Problem::of(Code::SlowDown, "too many logins from this address have failed; try again");
            Err(problem.header(RETRY_AFTER, wait))
        }
        Ok(Login::Rejected(user, reason)) => {
            Counters::add(&hub.counters.unauthorized, 1);
            hub.failed_logins.log(from, &user, reason);
            let sentence = reason.sentence();
            let is_token = sentence.is_some();
            let detail = sentence.unwrap_or_else(|| {
                let detail = match reason {
                    Reason::NoCredentials => {
                        "the request has no credentials; send a user and a password, for example with curl -u USER:PASSWORD"
                    }
                    Reason::Malformed => {
                        "the header 'Authorization' must be Basic and the base64 of USER:PASSWORD, or Bearer and a token"
                    }
                    _ => "the user or the password is wrong",
                };
                detail.to_owned()
            });
            let problem = Problem::of(Code::Rejected, detail).header(WWW_AUTHENTICATE, "Basic realm=\"wsmb\"");
            Err(if is_token { problem.header(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"") } else { problem })
        }
    }
}

/// Whether the process can do its work. 200 also during an orderly stop.
fn health(hub: &Hub) -> Response<Body> {
    let (status, word) = match (hub.fatal.is_declared(), hub.stop.has_begun()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "failed\n"),
        (false, true) => (StatusCode::OK, "stopping\n"),
        (false, false) => (StatusCode::OK, "ok\n"),
    };
    response::with(status, "text/plain; charset=utf-8", word)
}

/// Whether new clients should come here: the store can be written, and no stop has begun.
fn readiness(hub: &Hub) -> Response<Body> {
    let (status, word) = if hub.fatal.is_declared() {
        (StatusCode::SERVICE_UNAVAILABLE, "failed\n")
    } else if hub.stop.has_begun() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if !hub.storage.is_healthy() {
        (StatusCode::SERVICE_UNAVAILABLE, "the store cannot be written\n")
    } else {
        (StatusCode::OK, "ready\n")
    };
    response::with(status, "text/plain; charset=utf-8", word)
}
