//! `GET …/messages`: deliveries as events, as lines, or as a batch (SPEC section 9.4).

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::{Instant, sleep_until};

use super::asked::Asked;
use super::body::Body;
use super::line::Line;
use super::mailbox::Next;
use super::receiver::{self, Attached};
use super::response::{self, Problem, going_down};
use super::stream::Stream;
use super::subscription::{Format, Subscription};
use crate::access::Identity;
use crate::hub::Hub;
use crate::limits;
use wsmb_auth::Users;
use wsmb_core::message::ChannelName;
use wsmb_protocol::envelope::Code;

/// Answers a receiver. `channel`: the channel in the path.
pub(super) async fn receive(
    hub: &Arc<Hub>,
    asked: &Asked,
    (identity, users): (&Identity, &Users),
    channel: Option<ChannelName>,
) -> Result<Response<Body>, Problem> {
    let mut subscription = Subscription::read(channel, &asked.head.query, &asked.headers)?;
    let access = hub.access();
    if let Some(channel) = subscription.channels.iter().find(|channel| !access.may_receive(identity, channel)) {
        hub.note_forbidden(identity.user(), &asked.client.address, channel);
        let detail = format!("user \"{}\" may not receive from channel \"{channel}\"", identity.user());
        return Err(Problem::of(Code::Forbidden, detail));
    }
    if hub.stop.has_begun() {
        return Err(going_down());
    }
    if subscription.format == Format::Batch {
        if subscription.receiver.is_none() {
            subscription.receiver = Some(receiver_name()?);
        }
        // So that a batch has no more deliveries than the client asks for.
        subscription.prefetch = Some(subscription.max);
        let attached = receiver::attach(hub, (identity, users), &asked.client, &subscription)?;
        return batch(hub, &attached, &subscription).await;
    }
    let attached = receiver::attach(hub, (identity, users), &asked.client, &subscription)?;
    let interval = hub.options().limits.heartbeat;
    let mut response = Response::new(Body::Stream(Box::pin(Stream::new(attached, subscription.format, interval))));
    let content_type = match subscription.format {
        Format::Events => "text/event-stream",
        Format::Lines | Format::Batch => "application/x-ndjson",
    };
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (CONNECTION, "close"),
        // nginx would take deliveries for a slow client into its buffers and then into a file, so that the window would mean nothing.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Waits for deliveries, and returns those that are there.
async fn batch(hub: &Hub, attached: &Attached, subscription: &Subscription) -> Result<Response<Body>, Problem> {
    let has_page = |channel: &ChannelName| {
        hub.with_broker(|broker| broker.channel_status(channel.as_str())).is_some_and(|status| status.stored_only > 0)
    };
    // Messages that are only in the store must be read first.
    let least = if subscription.channels.iter().any(has_page) { limits::HTTP_PAGE } else { Duration::ZERO };
    let until = Instant::now() + subscription.wait.max(least);
    let max = subscription.max as usize;
    let first = tokio::select! {
        biased;
        next = std::future::poll_fn(|cx| attached.poll_next(max, cx)) => Some(next),
        () = hub.stop.begun() => None,
        () = sleep_until(until) => None,
    };
    let mut lines = Vec::new();
    match first {
        Some(Next::Lines { lines: found, .. }) => lines = found,
        Some(Next::Ended) => {
            if hub.stop.has_begun() {
                return Err(going_down());
            }
            let detail = "another request with the same receiver name has taken the place of this one, or the user has \
                          lost its rights; give each program a receiver name of its own";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Some(Next::Aborted) => {
            return Err(Problem::of(Code::Unavailable, "the broker is short of memory; try again later"));
        }
        None => {}
    }
    let mut body = String::from(r#"{"receiver":"#);
    let receiver = subscription.receiver.as_deref().unwrap_or_default();
    body.push_str(&serde_json::Value::from(receiver).to_string());
    body.push_str(r#","deliveries":["#);
    for (index, Line { json, .. }) in lines.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&String::from_utf8_lossy(json));
    }
    body.push_str("]}");
    let mut response = response::with(StatusCode::OK, "application/json", body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A name that no other receiver has.
fn receiver_name() -> Result<Arc<str>, Problem> {
    let unavailable =
        |_| Problem::of(Code::Unavailable, "the system has no random numbers; name the receiver: ?receiver=NAME");
    Ok(format!("r-{:016x}", getrandom::u64().map_err(unavailable)?).into())
}
