//! `POST /api/v1/channels/{channel}/messages`: sends a publication, and answers when it is safe, or when its outcome is known (SPEC section 9.3).

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::asked::Asked;
use super::body::Body;
use super::content;
use super::options::Options;
use super::response::{self, Problem, going_down};
use crate::access::Identity;
use crate::callers::Call;
use crate::counters::Counters;
use crate::hub::Hub;
use crate::limits;
use crate::replies;
use wsmb_core::broker::{CallerId, Event, Outcome, Publish, Reply, ReplyTo};
use wsmb_core::message::{ChannelName, Publication, PublicationId};
use wsmb_protocol::envelope::Code;

/// What has become of a publication.
#[derive(Clone, Copy, Debug)]
struct Result {
    outcome: &'static str,
    status: StatusCode,
    receivers: u32,
    duplicate: bool,
}

/// A caller that waits. It is removed when the request ends, also because the client has gone.
struct Waiting<'a> {
    hub: &'a Arc<Hub>,
    caller: CallerId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.hub.callers.remove(self.caller) {
            self.hub.handle_event(Event::CallerGone(self.caller));
        }
    }
}

/// Answers a request.
pub(super) async fn publish(
    hub: &Arc<Hub>,
    asked: Asked,
    identity: &Identity,
    channel: &ChannelName,
) -> std::result::Result<Response<Body>, Problem> {
    let options = Options::read(&asked.head.query, &asked.headers)?;
    let user = identity.user();
    if !hub.access().may_send(identity, channel) {
        hub.note_forbidden(user, &asked.client.address, channel);
        return Err(Problem::of(Code::Forbidden, format!("user \"{user}\" may not send to channel \"{channel}\"")));
    }
    let Some(_counted) = hub.requests.begin(user) else {
        let problem = Problem::of(Code::Unavailable, "too many requests are being answered; try again later");
        return Err(problem.header(RETRY_AFTER, "1"));
    };
    let (content_type, client) = (asked.headers.get(CONTENT_TYPE).cloned(), asked.client);
    let content_type = content_type
        .as_ref()
        .map(|value| value.to_str().map_err(|_| Problem::malformed("the content type is not ASCII text")))
        .transpose()?;
    let body = asked.into_body(hub, hub.options().limits.max_message).await?;
    let publication = content::publication(channel, content_type, &body)?;
    admit(hub, user, &publication).inspect_err(|problem| {
        if problem.status == StatusCode::TOO_MANY_REQUESTS {
            hub.note_above_rate(user, &client.address);
        }
    })?;
    let call = hub.callers.begin();
    let id = options.key.clone().unwrap_or_else(|| hub.callers.publication_id(call.id));
    let result = send(hub, user, &publication, &options, (call, &id))
        .await
        .map_err(|problem| problem.member("id", id.as_str()))?;
    Ok(respond(&id, result))
}

/// Checks the rate of the user, and that no stop has begun.
fn admit(hub: &Hub, user: &Arc<str>, publication: &Publication<'_>) -> std::result::Result<(), Problem> {
    if hub.stop.has_begun() {
        return Err(going_down());
    }
    let now = hub.now();
    if let Some(rate) = hub.access().rates.of(user, now)
        && let Err(wait) = rate.publish(publication.messages.len(), now)
    {
        Counters::add(&hub.counters.above_rate, 1);
        let detail = format!("user \"{user}\" may publish again in {} ms", wait.as_millis() + 1);
        return Err(Problem::of(Code::SlowDown, detail).header(RETRY_AFTER, seconds(wait).to_string()));
    }
    Ok(())
}

/// Whole seconds, rounded up.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Gives the publication to the core, and waits for its replies.
async fn send(
    hub: &Arc<Hub>,
    user: &Arc<str>,
    publication: &Publication<'_>,
    options: &Options,
    (call, id): (Call, &str),
) -> std::result::Result<Result, Problem> {
    let wait_until = options.wait.map(|wait| Instant::now() + wait);
    let Call { id: caller, answer, outcome } = call;
    let _waiting = Waiting { hub, caller };
    let publish = Publish {
        origin: None,
        user,
        reply_to: ReplyTo::Caller(caller),
        publication,
        receivers: options.receivers,
        id: Some(PublicationId::new(user, id)),
        answer: true,
        watch: wait_until.is_some(),
        ttl: options.ttl,
        delay: options.delay,
    };
    hub.handle_event(Event::Publish(&publish));
    // An error of the channel means that the broker is going down.
    let Ok(Ok(reply)) = timeout(limits::HTTP_ANSWER, answer).await else {
        return Err(Problem::of(Code::Unavailable, replies::NOT_YET_SAFE));
    };
    let (receivers, stored, duplicate) = match reply {
        Reply::Accepted { receivers, stored, duplicate, .. } => (receivers, stored, duplicate),
        Reply::Refused { refusal, .. } => {
            let channel = &*publication.channel;
            let max_backlog = |channel: &ChannelName| hub.options().policies.of(channel).max_backlog;
            let (code, detail) = replies::refused(refusal, Some(channel), max_backlog);
            let problem = Problem::of(code, detail);
            return Err(if code == Code::Expired { problem.member("outcome", "expired") } else { problem });
        }
        Reply::Settled(_) | Reply::UnknownDelivery { .. } | Reply::TooManyChannels => {
            return Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the broker gave an answer to another question",
            ));
        }
    };
    let safe = accepted(hub, publication, options, (receivers, stored, duplicate));
    match wait_until {
        Some(until) if stored && !duplicate => tokio::select! {
            biased;
            outcome = outcome => Ok(outcome.map_or(safe, |outcome| settled(outcome, receivers))),
            () = hub.stop.begun() => Ok(safe),
            () = sleep_until(until) => Ok(safe),
        },
        _ => Ok(safe),
    }
}

/// The result of a publication that is safe.
fn accepted(
    hub: &Hub,
    publication: &Publication<'_>,
    options: &Options,
    (receivers, stored, duplicate): (u32, bool, bool),
) -> Result {
    let is_delayed = options.delay.is_some_and(|delay| !delay.is_zero());
    let is_kept = || hub.options().policies.of(&publication.channel).keep;
    let (outcome, status) = if stored {
        ("stored", StatusCode::ACCEPTED)
    } else if is_delayed && !duplicate {
        ("delayed", StatusCode::ACCEPTED)
    } else if receivers == 0 && !duplicate {
        // A kept message that is neither stored nor confirmed was given up in the meantime.
        if is_kept() { ("dropped", StatusCode::GONE) } else { ("nobody", StatusCode::NOT_FOUND) }
    } else {
        ("delivered", StatusCode::OK)
    };
    Result { outcome, status, receivers, duplicate }
}

/// The result of a stored publication that is settled. `receivers`: how many receivers had it when it was stored.
fn settled(outcome: Outcome, receivers: u32) -> Result {
    let (outcome, status) = match outcome {
        Outcome::Delivered => ("delivered", StatusCode::OK),
        Outcome::Expired => ("expired", StatusCode::GONE),
        Outcome::DeadLettered => ("dead", StatusCode::GONE),
        Outcome::Dropped => ("dropped", StatusCode::GONE),
        Outcome::Purged => ("purged", StatusCode::GONE),
    };
    let receivers = if status == StatusCode::OK { receivers.max(1) } else { receivers };
    Result { outcome, status, receivers, duplicate: false }
}

fn respond(id: &str, result: Result) -> Response<Body> {
    let Result { outcome, status, receivers, duplicate } = result;
    let detail = match outcome {
        "nobody" => "the channel keeps no messages, and nobody receives from it: the message is gone",
        "expired" => "the time to live ran out before a receiver confirmed the message",
        "dead" => "the message was given up, and is in the dead-letter channel",
        "dropped" => "the message was given up, and the channel has no dead-letter channel with room",
        "purged" => "an administrator has removed the message",
        _ => {
            let mut value = json!({ "id": id, "outcome": outcome, "receivers": receivers });
            if let (true, Value::Object(members)) = (duplicate, &mut value) {
                members.insert("duplicate".to_owned(), true.into());
            }
            return response::json(status, &value);
        }
    };
    Problem::new(status, detail).member("id", id).member("outcome", outcome).member("receivers", receivers).into()
}
