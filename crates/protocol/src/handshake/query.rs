//! Parses the query of a request: `?topic=NAME`, `?channel=NAME`, `?receiver=ID`, `?ticket=TICKET`.

use super::bad_request::BadRequest;
use wsmb_core::message::ChannelName;

/// The parameters of a query that the broker uses. Other parameters are ignored.
#[derive(Debug, Default, PartialEq)]
pub(super) struct QueryParameters {
    pub(super) topic: Option<ChannelName>,
    pub(super) receiver: Option<String>,
    pub(super) ticket: Option<String>,
}

pub(super) fn parse(query: &str) -> Result<QueryParameters, BadRequest> {
    let mut parameters = QueryParameters::default();
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match decode(name).as_deref() {
            Some("topic" | "channel") => {
                if parameters.topic.is_some() {
                    return Err(BadRequest::TopicTwice);
                }
                let value = decode(value).ok_or(BadRequest::TopicEncoding)?;
                parameters.topic = Some(ChannelName::parse(&value).map_err(BadRequest::Topic)?);
            }
            Some("receiver") => {
                if parameters.receiver.is_some() {
                    return Err(BadRequest::Receiver("is given twice"));
                }
                let value = decode(value).ok_or(BadRequest::Receiver("is not percent-encoded UTF-8"))?;
                if value.is_empty() {
                    return Err(BadRequest::Receiver("is empty"));
                }
                if value.len() > wsmb_core::limits::NAME_BYTES {
                    return Err(BadRequest::ReceiverTooLong);
                }
                parameters.receiver = Some(value);
            }
            _ => {}
        }
    }
    parameters.ticket = ticket(query)?;
    Ok(parameters)
}

/// Returns the names and values of a query, decoded. An undecodable name or value is `None`.
pub fn pairs(query: &str) -> impl Iterator<Item = (Option<String>, Option<String>)> {
    query.split('&').filter(|parameter| !parameter.is_empty()).map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (decode(name), decode(value))
    })
}

/// Returns the ticket in the query of a request.
///
/// # Errors
/// There are two tickets, or a token: a token is good for long, and proxies and browsers keep addresses.
pub fn ticket(query: &str) -> Result<Option<String>, BadRequest> {
    let mut ticket = None;
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match decode(name).as_deref() {
            Some("token" | "access_token") => return Err(BadRequest::TokenInAddress),
            Some("ticket") if ticket.is_some() => return Err(BadRequest::TicketTwice),
            // A ticket that is not percent-encoded text is no ticket of this broker.
            Some("ticket") => ticket = Some(decode(value).unwrap_or_default()),
            _ => {}
        }
    }
    Ok(ticket)
}

/// Decodes text from a query, in which `+` is a blank.
fn decode(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

/// Decodes `%XX` in a part of an address. Returns `None` if a `%` is not followed by two hexadecimal digits, or if the decoded bytes are not UTF-8.
#[must_use]
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                // Two hexadecimal digits are at most 255.
                (high * 16 + low) as u8
            }
            _ => byte,
        });
    }
    String::from_utf8(out).ok()
}
