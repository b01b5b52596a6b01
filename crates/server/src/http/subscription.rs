//! What a receiver asks for: the channels and options in the query of a request, and the format in `Accept` (SPEC section 9.4).

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::ACCEPT;

use super::response::Problem;
use crate::limits;
use wsmb_core::duration::{format_duration, parse_duration};
use wsmb_core::message::{ChannelName, DeliveryName, GroupName, Order};
use wsmb_protocol::handshake::pairs;

/// The format of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `text/event-stream`: a stream for `EventSource`.
    Events,
    /// `application/x-ndjson`: a stream of lines.
    Lines,
    /// JSON: one batch, when there are deliveries.
    Batch,
}

/// The request of a receiver.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) format: Format,
    pub(super) channels: Vec<ChannelName>,
    pub(super) order: Order,
    pub(super) group: Option<GroupName>,
    pub(super) receiver: Option<Arc<str>>,
    /// The most deliveries that may be unacknowledged.
    pub(super) prefetch: Option<u32>,
    /// The most deliveries of a batch.
    pub(super) max: u32,
    /// How long a batch waits for its first delivery.
    pub(super) wait: Duration,
    /// All deliveries up to this one are acknowledged.
    pub(super) after: Option<DeliveryName>,
}

impl Subscription {
    /// Reads the request. `channel`: the channel in the path.
    ///
    /// # Errors
    /// A parameter is unknown or invalid, or no channel is named.
    pub(super) fn read(channel: Option<ChannelName>, query: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut subscription = Self {
            format: format(headers),
            channels: channel.into_iter().collect(),
            order: Order::default(),
            group: None,
            receiver: None,
            prefetch: None,
            max: limits::HTTP_BATCH,
            wait: Duration::ZERO,
            after: None,
        };
        for (name, value) in pairs(query) {
            let (Some(name), Some(value)) = (name, value) else {
                return Err(Problem::malformed("the query is not percent-encoded UTF-8"));
            };
            subscription.set(&name.to_ascii_lowercase(), &value)?;
        }
        if let Some(value) = headers.get("last-event-id").filter(|_| subscription.after.is_none()) {
            // A stream of another broker may have given it; then it names no delivery of this one.
            subscription.after = value.to_str().ok().and_then(DeliveryName::parse);
        }
        if subscription.channels.is_empty() {
            return Err(Problem::malformed("name a channel: ?channel=NAME, also several times"));
        }
        Ok(subscription)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        match name {
            "channel" => {
                let channel = ChannelName::parse(value).map_err(|bad| Problem::malformed(bad.to_string()))?;
                if self.channels.len() >= wsmb_core::limits::SUBSCRIPTIONS {
                    let most = wsmb_core::limits::SUBSCRIPTIONS;
                    return Err(Problem::malformed(format!("the query names more than {most} channels")));
                }
                if !self.channels.contains(&channel) {
                    self.channels.push(channel);
                }
            }
            "ticket" => {}
            "order" => {
                self.order = match value {
                    "list" => Order::List,
                    "fair" => Order::Fair,
                    _ => return Err(Problem::malformed("'order' must be list or fair")),
                }
            }
            "group" => self.group = Some(short(name, value)?),
            "receiver" => self.receiver = Some(short(name, value)?),
            "prefetch" => self.prefetch = Some(count(name, value, wsmb_core::limits::MAX_PREFETCH)?),
            "max" => self.max = count(name, value, limits::HTTP_BATCH_MAX)?,
            "wait" => {
                let wait = parse_duration(value).filter(|wait| *wait <= limits::HTTP_WAIT);
                let most = format_duration(limits::HTTP_WAIT);
                self.wait = wait.ok_or_else(|| Problem::malformed(format!("'wait' must be a time, at most {most}")))?;
            }
            "after" => {
                let name = DeliveryName::parse(value);
                self.after = Some(
                    name.ok_or_else(|| Problem::malformed("'after' must be the member 'delivery' of a delivery"))?,
                );
            }
            _ => {
                let known = "channel, order, group, receiver, prefetch, max, wait and after";
                return Err(Problem::malformed(format!(
                    "the query has an unknown parameter; the parameters are {known}"
                )));
            }
        }
        Ok(())
    }
}

fn short(name: &str, value: &str) -> Result<Arc<str>, Problem> {
    let most = wsmb_core::limits::NAME_BYTES;
    if value.is_empty() || value.len() > most {
        return Err(Problem::malformed(format!("'{name}' must have 1 to {most} bytes")));
    }
    Ok(value.into())
}

fn count(name: &str, value: &str, most: u32) -> Result<u32, Problem> {
    let count = value.parse::<u32>().ok().filter(|count| (1..=most).contains(count));
    count.ok_or_else(|| Problem::malformed(format!("'{name}' must be a whole number from 1 to {most}")))
}

/// Returns the format that the client prefers. A client that takes anything gets a batch.
fn format(headers: &HeaderMap) -> Format {
    let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    for media in accepted.flat_map(|value| value.split(',')) {
        match media.split(';').next().unwrap_or_default().trim() {
            "text/event-stream" => return Format::Events,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => return Format::Lines,
            "application/json" => return Format::Batch,
            _ => {}
        }
    }
    Format::Batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(channel: Option<&str>, query: &str, accept: &'static str) -> Result<Subscription, Problem> {
        let headers = [(ACCEPT, accept.parse().unwrap())].into_iter().collect();
        Subscription::read(channel.map(|name| ChannelName::parse(name).unwrap()), query, &headers)
    }

    #[test]
    fn the_query_names_channels_and_options() {
        let read = read(
            None,
            "channel=a%2Fb&channel=c&channel=c&order=fair&group=g&receiver=pi&prefetch=5&max=3&wait=30s&after=a1-7",
            "*/*",
        )
        .unwrap();
        assert_eq!(read.channels.iter().map(ChannelName::as_str).collect::<Vec<_>>(), ["a/b", "c"]);
        assert_eq!((read.order, read.group.as_deref(), read.receiver.as_deref()), (Order::Fair, Some("g"), Some("pi")));
        assert_eq!((read.prefetch, read.max, read.wait), (Some(5), 3, Duration::from_secs(30)));
        assert_eq!(read.after.map(|name| name.sequence), Some(7));
    }

    #[test]
    fn accept_decides_the_format() {
        for (accept, format) in [
            ("text/event-stream", Format::Events),
            ("application/x-ndjson, application/json", Format::Lines),
            ("text/html,application/json;q=0.9,*/*", Format::Batch),
            ("*/*", Format::Batch),
        ] {
            assert_eq!(read(Some("sms"), "", accept).unwrap().format, format, "{accept}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_an_error() {
        for query in [
            "x=1",
            "order=x",
            "group=",
            "receiver=",
            "prefetch=0",
            "prefetch=x",
            "max=0",
            "max=1001",
            "wait=61s",
            "wait=",
            "after=x",
            "channel=",
            "channel=%ff",
        ] {
            assert!(read(Some("sms"), query, "*/*").is_err(), "{query}");
        }
        assert!(read(None, "", "*/*").is_err());
    }
}
