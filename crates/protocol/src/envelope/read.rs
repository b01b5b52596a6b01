//! Finds the JSON text of each field of a command in one pass over the object, and checks the grammar of the whole object.
//!
//! Never parses the contents of a field, except the elements of `data`. Error messages come from `serde_json` (see [`explain`](super::explain)).

use std::borrow::Cow;

use super::explain;
use crate::json::{NotJson, Scanner, unescaped};
use crate::limits;
use wsmb_core::message::{Kind, Spans};

/// The JSON text of each field. Of two fields with the same name the last one counts.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) command: Option<&'a [u8]>,
    pub(super) channel: Option<&'a [u8]>,
    pub(super) number_of_receiver: Option<&'a [u8]>,
    pub(super) data: Option<Elements>,
    pub(super) id: Option<&'a [u8]>,
    pub(super) ttl: Option<&'a [u8]>,
    pub(super) delay: Option<&'a [u8]>,
    pub(super) ack: Option<&'a [u8]>,
    pub(super) prefetch: Option<&'a [u8]>,
    pub(super) receiver: Option<&'a [u8]>,
    pub(super) group: Option<&'a [u8]>,
    pub(super) order: Option<&'a [u8]>,
    pub(super) delivery: Option<&'a [u8]>,
    pub(super) retry_after: Option<&'a [u8]>,
    pub(super) reject: Option<&'a [u8]>,
    pub(super) reason: Option<&'a [u8]>,
    pub(super) token: Option<&'a [u8]>,
    /// Whether a receiver could misunderstand the object as a `send-message`: it has two members `command`, `channel` or `data`, of which some parsers take the
    /// first and some the last; or it has a member that only frames from the broker have.
    pub(super) ambiguous: bool,
}

/// The ranges of the elements of a list in the frame.
#[derive(Default)]
pub(super) struct Elements {
    pub(super) spans: Spans,
    pub(super) too_many: bool,
}

/// Finds the fields of the command in `frame`, whose payload begins at `start`. After an error, `fields` has the fields before it, so that the answer can name
/// them.
///
/// # Errors
/// The frame is not a JSON object; the message says why.
pub(super) fn read<'a>(kind: Kind, frame: &'a [u8], start: usize, fields: &mut Fields<'a>) -> Result<(), String> {
    let payload = frame.get(start..).unwrap_or_default();
    // The decoder has already checked the payload of a text frame.
    let is_text = kind == Kind::Text || std::str::from_utf8(payload).is_ok();
    if is_text && scan(frame, start, fields).is_ok() {
        return Ok(());
    }
    Err(match explain::text_of(payload) {
        Err(what) => {
            // The answer to such a frame names no fields.
            *fields = Fields::default();
            what
        }
        Ok(text) => explain::not_an_object(text),
    })
}

#[inline]
fn scan<'a>(frame: &'a [u8], start: usize, fields: &mut Fields<'a>) -> Result<(), NotJson> {
    let mut scanner = Scanner::starting_at(start, frame, limits::JSON_DEPTH);
    scanner.object(|scanner, name| member(frame, scanner, name, fields))?;
    scanner.end()
}

/// Reads the value of the member `name`.
#[inline]
fn member<'a>(frame: &'a [u8], scanner: &mut Scanner<'a>, name: &[u8], fields: &mut Fields<'a>) -> Result<(), NotJson> {
    let slot = match name {
        b"command" => {
            fields.ambiguous |= fields.command.is_some();
            &mut fields.command
        }
        b"channel" => {
            fields.ambiguous |= fields.channel.is_some();
            &mut fields.channel
        }
        b"number_of_receiver" => &mut fields.number_of_receiver,
        b"data" => {
            fields.ambiguous |= fields.data.is_some();
            let found = fields.data.insert(Elements::default());
            if scanner.peek() == b'[' {
                return elements(scanner, wsmb_core::limits::PUBLICATION_MESSAGES, found);
            }
            found.spans.push(scanner.value()?);
            return Ok(());
        }
        b"id" => &mut fields.id,
        b"ttl" => &mut fields.ttl,
        b"delay" => &mut fields.delay,
        b"ack" => &mut fields.ack,
        b"prefetch" => &mut fields.prefetch,
        b"receiver" => &mut fields.receiver,
        b"retry_after" => &mut fields.retry_after,
        b"reject" => &mut fields.reject,
        b"reason" => &mut fields.reason,
        b"delivery" => {
            fields.ambiguous = true;
            &mut fields.delivery
        }
        _ => return other_member(frame, scanner, name, fields),
    };
    *slot = frame.get(scanner.value()?);
    Ok(())
}

/// Reads the value of a member whose name is rare, unknown, or written with escapes.
#[inline(never)]
fn other_member<'a>(
    frame: &'a [u8],
    scanner: &mut Scanner<'a>,
    name: &[u8],
    fields: &mut Fields<'a>,
) -> Result<(), NotJson> {
    match unescaped(name)? {
        // A name that still has a backslash is unknown.
        Cow::Owned(name) if !name.contains(&b'\\') => member(frame, scanner, &name, fields),
        Cow::Borrowed(b"group") => {
            fields.group = frame.get(scanner.value()?);
            Ok(())
        }
        Cow::Borrowed(b"token") => {
            fields.token = frame.get(scanner.value()?);
            Ok(())
        }
        Cow::Borrowed(b"order") => {
            fields.order = frame.get(scanner.value()?);
            Ok(())
        }
        name => {
            fields.ambiguous |=
                [&b"response_code"[..], b"message_id", b"redelivered", b"attempt", b"dead_letter"].contains(&&*name);
            scanner.value().map(|_| ())
        }
    }
}

/// Reads the elements of the next list. Elements beyond `limit` are skipped.
#[inline]
pub(super) fn elements(scanner: &mut Scanner<'_>, limit: usize, found: &mut Elements) -> Result<(), NotJson> {
    scanner.list(|scanner| {
        let span = scanner.value()?;
        if found.spans.len() < limit {
            found.spans.push(span);
        } else {
            found.too_many = true;
        }
        Ok(())
    })
}
