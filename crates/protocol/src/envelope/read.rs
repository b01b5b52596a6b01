//! Where each field of a command lies in its JSON text: one pass over the object, which checks all of it.
//!
//! Never looks into a field but for the elements of `data`. What is wrong with a frame is said in `serde_json`'s words.

use std::borrow::Cow;

use super::words;
use crate::json::{NotJson, Scanner, unescaped};
use crate::limits;
use wsmb_core::message::{Kind, Spans};

/// The JSON text of each field that was found; of two with one name, the last.
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
    /// As a `send-message`, the object could be read as something else: it has two members `command`, `channel` or `data`, of which readers take this one or
    /// that; or a member that only what the broker sends has.
    pub(super) ambiguous: bool,
}

/// Where in the frame the elements of a list lie.
#[derive(Default)]
pub(super) struct Elements {
    pub(super) spans: Spans,
    pub(super) too_many: bool,
}

/// Finds the fields of the command in `frame`, whose payload begins at `start`. What has been found stays in `fields` when it fails,
/// so that the answer can name it.
///
/// # Errors
/// The frame is no JSON object; the sentence says why.
pub(super) fn read<'a>(kind: Kind, frame: &'a [u8], start: usize, fields: &mut Fields<'a>) -> Result<(), String> {
    let payload = frame.get(start..).unwrap_or_default();
    // Of a text frame the decoder has made sure.
    let is_text = kind == Kind::Text || std::str::from_utf8(payload).is_ok();
    if is_text && scan(frame, start, fields).is_ok() {
        return Ok(());
    }
    Err(match words::unreadable(payload) {
        Err(what) => {
            // Nothing of such a frame is taken.
            *fields = Fields::default();
            what
        }
        Ok(text) => words::not_an_object(text),
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

/// The same for a name that is seldom there, or means nothing, at least as it stands.
#[inline(never)]
fn other_member<'a>(
    frame: &'a [u8],
    scanner: &mut Scanner<'a>,
    name: &[u8],
    fields: &mut Fields<'a>,
) -> Result<(), NotJson> {
    match unescaped(name)? {
        // A backslash that is left belongs to the name: it is nobody's.
        Cow::Owned(name) if !name.contains(&b'\\') => member(frame, scanner, &name, fields),
        Cow::Borrowed(b"group") => {
            fields.group = frame.get(scanner.value()?);
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

/// The elements of the list that comes next; those beyond `limit` are passed over.
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
