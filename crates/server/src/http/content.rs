//! Turns a body and its content type into a publication (SPEC section 9.3).

use bytes::Bytes;
use hyper::StatusCode;

use super::response::Problem;
use wsmb_core::message::{ChannelName, Kind, Publication};
use wsmb_protocol::envelope::{self, Code};
use wsmb_protocol::topic;

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// One JSON value.
    Json,
    /// A JSON value on each line.
    JsonLines,
    Text,
    Binary,
    /// The type of curl's `-d` and of HTML forms: JSON, or an error.
    Form,
    /// No content type: JSON if it is JSON, else text if it is UTF-8, else bytes.
    Unknown,
}

const NO_JSON: &str =
    "the body has the type application/json and is not one JSON value; send a text with 'Content-Type: text/plain'";

/// Returns the publication of a body.
///
/// # Errors
/// The body does not have its content type's format, or the type is not supported.
pub(super) fn publication<'a>(
    channel: &'a ChannelName,
    content_type: Option<&str>,
    body: &'a Bytes,
) -> Result<Publication<'a>, Problem> {
    if body.is_empty() {
        return Err(Problem::malformed("the body is empty; the body is the message"));
    }
    let text = std::str::from_utf8(body).ok();
    let kind = match (format(content_type)?, text) {
        (Format::Json, _) if topic::is_json(body) => Kind::Text,
        (Format::Json, _) => return Err(Problem::malformed(NO_JSON)),
        (Format::JsonLines, Some(text)) => return lines(channel, text),
        (Format::JsonLines | Format::Text, None) => return Err(Problem::malformed("the body is not UTF-8")),
        (Format::Form, _) if topic::is_json(body) => Kind::Text,
        (Format::Form, _) => {
            let detail =
                "the body has the type of a form and is not JSON; send JSON, or a text with 'Content-Type: text/plain'";
            return Err(unsupported(detail));
        }
        (Format::Text | Format::Unknown, Some(_)) => Kind::Text,
        (Format::Binary | Format::Unknown, _) => Kind::Binary,
    };
    Ok(topic::publication_of(channel, kind, body))
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

/// Returns the format of a content type.
fn format(content_type: Option<&str>) -> Result<Format, Problem> {
    let Some(content_type) = content_type else { return Ok(Format::Unknown) };
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            ["utf-8", "utf8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known))
        }
        _ => true,
    });
    let format = match &*media {
        "" => Format::Unknown,
        "application/json" => Format::Json,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Format::JsonLines,
        "application/x-www-form-urlencoded" => Format::Form,
        "multipart/form-data" => {
            return Err(unsupported("the body is a form; send the message itself as the body, for example as JSON"));
        }
        media if media.ends_with("+json") => Format::Json,
        media if media.starts_with("text/") => Format::Text,
        _ => Format::Binary,
    };
    if !is_utf8 && format != Format::Binary {
        return Err(unsupported("the body must be UTF-8 (charset=utf-8)"));
    }
    Ok(format)
}

/// Returns the publication of one message on each line. Empty lines are ignored.
fn lines<'a>(channel: &'a ChannelName, text: &str) -> Result<Publication<'a>, Problem> {
    let mut messages = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if !topic::is_json(line.as_bytes()) {
            return Err(Problem::malformed(format!("line {} of the body is not one JSON value", number + 1)));
        }
        if messages.len() >= wsmb_core::limits::PUBLICATION_MESSAGES {
            let most = wsmb_core::limits::PUBLICATION_MESSAGES;
            return Err(Problem::of(Code::TooLarge, format!("the body has more than {most} messages")));
        }
        messages.push(line);
    }
    if messages.is_empty() {
        return Err(Problem::malformed("the body has no messages; each line is one"));
    }
    Ok(envelope::publication_of(channel, &messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: Option<&str>, body: &'static [u8]) -> Result<(Kind, Vec<Vec<u8>>), u16> {
        let channel = ChannelName::parse("sms").unwrap();
        let body = Bytes::from_static(body);
        let publication = publication(&channel, content_type, &body).map_err(|problem| problem.status.as_u16())?;
        Ok((publication.kind, publication.bodies().map(<[u8]>::to_vec).collect()))
    }

    #[test]
    fn the_content_type_decides_what_a_body_is() {
        let one = |kind, body: &[u8]| Ok((kind, vec![body.to_vec()]));
        for (content_type, body, expected) in [
            (Some("application/json"), &b"{\"a\":1}"[..], one(Kind::Text, b"{\"a\":1}")),
            (Some("application/json; charset=UTF-8"), b"7", one(Kind::Text, b"7")),
            (Some("application/vnd.x+json"), b"[]", one(Kind::Text, b"[]")),
            (Some("application/json"), b"{", Err(400)),
            (Some("application/json"), b"{} {}", Err(400)),
            (Some("application/json; charset=latin1"), b"{}", Err(415)),
            (Some("text/plain"), b"{", one(Kind::Text, b"{")),
            (Some("text/plain"), b"\xff", Err(400)),
            (Some("application/octet-stream"), b"\xff", one(Kind::Binary, b"\xff")),
            (Some("application/octet-stream"), b"{}", one(Kind::Binary, b"{}")),
            (Some("application/x-www-form-urlencoded"), b"{\"a\":1}", one(Kind::Text, b"{\"a\":1}")),
            (Some("application/x-www-form-urlencoded"), b"a=1", Err(415)),
            (Some("multipart/form-data; boundary=x"), b"--x", Err(415)),
            (
                Some("application/x-ndjson"),
                b"1\n\n{\"a\":2}\r\n",
                Ok((Kind::Text, vec![b"1".to_vec(), b"{\"a\":2}".to_vec()])),
            ),
            (Some("application/x-ndjson"), b"1\n],\"channel\":\"x\",\"data\":[2\n", Err(400)),
            (Some("application/x-ndjson"), b"\n \n", Err(400)),
            (None, b"hello", one(Kind::Text, b"hello")),
            (None, b"\xff", one(Kind::Binary, b"\xff")),
            (None, b"", Err(400)),
        ] {
            assert_eq!(read(content_type, body), expected, "{content_type:?} {body:?}");
        }
    }
}
