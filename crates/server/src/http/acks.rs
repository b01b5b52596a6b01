//! `POST /api/v1/acks`: a receiver answers its deliveries (SPEC section 9.4).

use std::sync::Arc;
use std::time::Duration;

use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::asked::Asked;
use super::body::Body;
use super::receiver;
use super::response::{self, Problem};
use crate::access::Identity;
use crate::hub::Hub;
use crate::limits;
use wsmb_core::message::{Answer, DeliveryName, Nack};

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    #[serde(default)]
    ack: Vec<String>,
    #[serde(default)]
    nack: Vec<Nacked>,
    #[serde(default)]
    extend: Vec<String>,
    up_to: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nacked {
    delivery: String,
    retry_after: Option<f64>,
    #[serde(default)]
    reject: bool,
    reason: Option<String>,
}

impl Nacked {
    fn answer(&self) -> Result<Answer, Problem> {
        let seconds = self.retry_after.map(Duration::try_from_secs_f64).transpose();
        let retry_after =
            seconds.map_err(|_| Problem::malformed("'retry_after' must be a number of seconds, 0 or more"))?;
        if self.reject && retry_after.is_some() {
            return Err(Problem::malformed("'retry_after' and 'reject' exclude each other"));
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        let reason = &reason[..reason.floor_char_boundary(wsmb_core::limits::REASON_BYTES)];
        Ok(Answer::Nack(Nack {
            retry_after: retry_after.map(|time| time.min(wsmb_core::limits::RETRY_AFTER)),
            reject: self.reject,
            reason: Some(reason).filter(|reason| !reason.is_empty()).map(Box::from),
        }))
    }
}

/// Answers a request.
pub(super) async fn answer(hub: &Arc<Hub>, asked: Asked, identity: &Identity) -> Result<Response<Body>, Problem> {
    let body = asked.into_body(hub, limits::HTTP_ACKS).await?;
    let answers: Answers = serde_json::from_slice(&body).map_err(|error| {
        // Not the error's text, which may repeat the body.
        Problem::malformed(format!(
            "line {}, column {}: the body must be like {{\"ack\":[\"DELIVERY\"]}} or {{\"up_to\":\"DELIVERY\"}}",
            error.line(),
            error.column()
        ))
    })?;
    let (mut known, mut unknown) = (0, Vec::new());
    let nacks =
        answers.nack.iter().map(|nack| Ok((&nack.delivery, nack.answer()?))).collect::<Result<Vec<_>, Problem>>()?;
    let acks = answers.ack.iter().map(|delivery| (delivery, Answer::Ack));
    let extends = answers.extend.iter().map(|delivery| (delivery, Answer::Extend));
    for (delivery, answer) in acks.chain(nacks).chain(extends) {
        let is_known = DeliveryName::parse(delivery).is_some_and(|name| receiver::answer(hub, identity, name, answer));
        if is_known { known += 1 } else { unknown.push(delivery.clone()) }
    }
    if let Some(delivery) = answers.up_to {
        let mailbox = DeliveryName::parse(&delivery)
            .and_then(|name| Some((hub.mailboxes.of(name.connection)?, name.sequence)))
            .filter(|(mailbox, _)| mailbox.session.profile.user() == identity.user());
        match mailbox {
            Some((mailbox, sequence)) => known += receiver::acknowledge_up_to(hub, &mailbox, sequence),
            None => unknown.push(delivery),
        }
    }
    Ok(response::json(StatusCode::OK, &json!({ "answered": known, "unknown": unknown })))
}
