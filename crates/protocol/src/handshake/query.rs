//! The query of a request: `?topic=NAME`, `?channel=NAME`, `?receiver=ID`.

use super::bad_request::BadRequest;
use wsmb_core::message::ChannelName;

/// What a query says to the broker. Other parameters are somebody else's, and not looked at.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wishes {
    pub(super) topic: Option<ChannelName>,
    pub(super) receiver: Option<String>,
}

pub(super) fn parse(query: &str) -> Result<Wishes, BadRequest> {
    let mut wishes = Wishes::default();
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match decode(name).as_deref() {
            Some("topic" | "channel") => {
                if wishes.topic.is_some() {
                    return Err(BadRequest::TopicTwice);
                }
                let value = decode(value).ok_or(BadRequest::TopicEncoding)?;
                wishes.topic = Some(ChannelName::parse(&value).map_err(BadRequest::Topic)?);
            }
            Some("receiver") => {
                if wishes.receiver.is_some() {
                    return Err(BadRequest::Receiver("is given twice"));
                }
                let value = decode(value).ok_or(BadRequest::Receiver("is not percent-encoded UTF-8"))?;
                if value.is_empty() {
                    return Err(BadRequest::Receiver("is empty"));
                }
                if value.len() > wsmb_core::limits::NAME_BYTES {
                    return Err(BadRequest::ReceiverTooLong);
                }
                wishes.receiver = Some(value);
            }
            _ => {}
        }
    }
    Ok(wishes)
}

/// Text from a query, where `+` is a blank as well.
fn decode(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

/// Text from a part of an address: `%XX` is a byte of UTF-8. `None` if a `%` is not followed by two hexadecimal digits, or the bytes are not
/// UTF-8.
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
