//! What administrators see and do: channels and connections (SPEC section 9.6).
//!
//! Never here: a long hold of the core's lock. Lists are read in slices, and the client gets them in pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tracing::info;

use super::body::Body;
use super::page::Page;
use super::response::{self, Problem};
use crate::access::Identity;
use crate::encoding::Encoding;
use crate::hub::Hub;
use crate::limits;
use crate::request::Request;
use crate::session::{Closing, Session};
use wsmb_core::broker::{ChannelStatus, Event};
use wsmb_core::message::{ChannelName, ConnectionId, Timestamp};
use wsmb_protocol::envelope::{Code, iso8601};

/// Returns a problem unless the identity is an administrator.
pub(super) fn require_admin(hub: &Hub, identity: &Identity) -> Result<(), Problem> {
    if hub.access().is_admin(identity) {
        return Ok(());
    }
    let detail =
        format!("user \"{}\" is no administrator (auth.admins), or has logged in with a token", identity.user());
    Err(Problem::of(Code::Forbidden, detail))
}

/// `GET /api/v1/channels`
pub(super) async fn channels(hub: &Hub, query: &str) -> Result<Response<Body>, Problem> {
    let page = Page::read(query, &["name", "backlog"])?;
    let (mut total, mut next) = (0_u64, Some(0));
    // The channels of the page, in its order: at most one more than it has.
    let mut found: BTreeMap<(u64, String), ChannelStatus> = BTreeMap::new();
    while let Some(from) = next {
        next = hub.with_broker(|broker| {
            broker.see_channels(from, limits::ADMIN_SLICE, |status| {
                total += 1;
                let name = status.name.as_str().to_owned();
                let key = (if page.sort == "backlog" { u64::MAX - status.backlog } else { 0 }, name);
                if page.after.as_ref().is_none_or(|after| key.1 > *after) {
                    found.insert(key, status);
                    if found.len() > page.limit + 1 {
                        found.pop_last();
                    }
                }
            })
        });
        tokio::task::yield_now().await;
    }
    let more = found.len() > page.limit;
    if more {
        found.pop_last();
    }
    let last = found.last_key_value().map(|((_, name), _)| name.clone());
    let listed: Vec<Value> = found.into_values().map(|status| channel_json(hub, &status)).collect();
    Ok(response::json(
        StatusCode::OK,
        &json!({ "channels": listed, "total": total, "next": last.filter(|_| more && page.sort == "name") }),
    ))
}

/// `GET /api/v1/channels/{channel}`
pub(super) fn channel(hub: &Hub, name: &ChannelName) -> Result<Response<Body>, Problem> {
    let (status, receivers) = hub.with_broker(|broker| {
        (broker.channel_status(name.as_str()), broker.receivers_of(name.as_str(), limits::ADMIN_PAGE_MAX))
    });
    let status = status.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, format!("channel \"{name}\" has no receivers and no messages"))
    })?;
    let mut value = channel_json(hub, &status);
    if let Value::Object(members) = &mut value {
        let receivers: Vec<String> = receivers.into_iter().map(id_text).collect();
        members.insert("connections".to_owned(), receivers.into());
    }
    Ok(response::json(StatusCode::OK, &value))
}

fn channel_json(hub: &Hub, status: &ChannelStatus) -> Value {
    let ChannelStatus { name, keep, receivers, backlog, stored_only, oldest } = status;
    json!({
        "name": name.as_str(), "keep": keep, "receivers": receivers, "backlog": backlog, "stored_only": stored_only,
        "oldest": oldest.map(|time| wall(hub, time)),
    })
}

/// `DELETE /api/v1/channels/{channel}/messages`
pub(super) fn purge(hub: &Hub, identity: &Identity, channel: ChannelName) -> Response<Body> {
    let backlog = hub.with_broker(|broker| broker.channel_status(channel.as_str())).map_or(0, |status| status.backlog);
    info!(user = %identity.user(), %channel, messages = backlog, "an administrator has removed all messages of a channel");
    hub.handle_event(Event::Purge { channel });
    response::json(StatusCode::OK, &json!({ "purged": backlog }))
}

/// `GET /api/v1/connections`
pub(super) fn connections(hub: &Hub, query: &str) -> Result<Response<Body>, Problem> {
    let page = Page::read(query, &["id"])?;
    let after = page.after.as_deref().map(parse_id).transpose()?;
    let mut sessions = hub.sessions();
    sessions.retain(|session| !session.is_forgotten());
    let total = sessions.len();
    sessions.retain(|session| after.is_none_or(|after| session.id > after));
    sessions.sort_unstable_by_key(|session| session.id);
    let more = sessions.len() > page.limit;
    sessions.truncate(page.limit);
    let next = sessions.last().filter(|_| more).map(|session| id_text(session.id));
    let listed: Vec<Value> = sessions.iter().map(|session| connection_json(hub, session)).collect();
    Ok(response::json(StatusCode::OK, &json!({ "connections": listed, "total": total, "next": next })))
}

fn connection_json(hub: &Hub, session: &Arc<Session>) -> Value {
    let channels: Vec<String> =
        hub.with_broker(|broker| broker.channels_of(session.id).map(|name| name.as_str().to_owned()).collect());
    let kind = match session.encoding() {
        Encoding::Envelope => "envelope",
        Encoding::Topic => "topic",
        Encoding::Lines => "http",
    };
    json!({
        "id": id_text(session.id),
        "user": &**session.profile.user(),
        "address": session.profile.peer.to_string(),
        "kind": kind,
        "receiver": session.profile.receiver.as_deref().map(|name| &**name),
        "channels": channels,
        "since": wall(hub, session.opened()),
        "last_input": wall(hub, session.last_input()),
        "queued_bytes": session.queue().held_bytes(),
    })
}

/// `DELETE /api/v1/connections/{id}`
pub(super) fn end_connection(hub: &Hub, identity: &Identity, id: &str) -> Result<Response<Body>, Problem> {
    let session = hub.find(&[parse_id(id)?]).pop().filter(|session| !session.is_forgotten());
    let session = session.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the connection has ended"))?;
    info!(user = %identity.user(), connection = session.id.0, peer = %session.profile.peer, "an administrator has ended a connection");
    let closing = Closing { code: 1008, reason: "ended by an administrator", invited: false, flush: true };
    hub.apply(&session, Request::End(closing));
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// The same text as in the names of a connection's deliveries.
fn id_text(id: ConnectionId) -> String {
    format!("{:x}", id.0)
}

fn parse_id(text: &str) -> Result<ConnectionId, Problem> {
    let id = u64::from_str_radix(text, 16).map(ConnectionId);
    id.map_err(|_| Problem::malformed("the id of a connection is a hexadecimal number"))
}

fn wall(hub: &Hub, time: Timestamp) -> String {
    iso8601(hub.clock.on_the_wall(time))
}
