//! Writes the answers of the broker. Each one is a JSON object, with its members in the order of SPEC section 4.

use std::fmt::Write as _;

use super::Code;
use super::time::iso8601;
use crate::json::{push_number, push_string};
use wsmb_core::message::Timestamp;

/// Returns a connect reply; also the answer to `ping`, and the body of a 401. `detail`: text after the text of the code; may be empty.
#[must_use]
pub fn connect_reply(now: Timestamp, code: Code, detail: &str) -> String {
    let mut out = head(Some("connect"), code, detail);
    // Writing to a `String` cannot fail.
    let _ = write!(out, r#","data":[{{"time_stamp":"{}"}}]}}"#, iso8601(now));
    out
}

/// Returns the answer to a `send-message` with an `id`, when the publication is safe. The answer has the member `duplicate` only if it is true.
#[must_use]
pub fn accepted(id: &str, receivers: u32, stored: bool, duplicate: bool) -> String {
    const HEAD: &str = r#"{"command":"send-message","response_code":"00","response_text":"Accepted","id":"#;
    // 64 bytes are enough for the members after the id.
    let mut out = String::with_capacity(HEAD.len() + id.len() + 64);
    out.push_str(HEAD);
    push_string(&mut out, id);
    out.push_str(r#","receivers":"#);
    push_number(&mut out, receivers.into());
    out.push_str(if stored { r#","stored":true"# } else { r#","stored":false"# });
    if duplicate {
        out.push_str(r#","duplicate":true"#);
    }
    out.push('}');
    out
}

/// Returns the answer to a `refresh` whose token is accepted.
#[must_use]
pub fn refreshed(id: Option<&str>) -> String {
    refusal(Some("refresh"), Code::Accepted, "", id)
}

/// Returns the answer to a refused command. The answer has the members `command` and `id` only if they could be read. `detail`: text after the text of the
/// code; may be empty.
#[must_use]
pub fn refusal(command: Option<&str>, code: Code, detail: &str, id: Option<&str>) -> String {
    let mut out = head(command, code, detail);
    if let Some(id) = id {
        out.push_str(r#","id":"#);
        push_string(&mut out, id);
    }
    out.push('}');
    out
}

fn head(command: Option<&str>, code: Code, detail: &str) -> String {
    let mut out = String::with_capacity(128 + detail.len());
    out.push('{');
    if let Some(command) = command {
        out.push_str(r#""command":"#);
        push_string(&mut out, command);
        out.push(',');
    }
    // Writing to a `String` cannot fail.
    let _ = write!(out, r#""response_code":"{}","response_text":"#, code.as_str());
    if detail.is_empty() {
        push_string(&mut out, code.text());
    } else {
        push_string(&mut out, &format!("{}: {detail}", code.text()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_reply_is_byte_for_byte_as_specified() {
        assert_eq!(
            connect_reply(Timestamp(1_795_341_600_000), Code::Accepted, ""),
            r#"{"command":"connect","response_code":"00","response_text":"Accepted","data":[{"time_stamp":"2026-11-22T10:00:00.000Z"}]}"#
        );
        assert!(
            connect_reply(Timestamp(0), Code::Rejected, "")
                .contains(r#""response_code":"01","response_text":"Rejected""#)
        );
    }

    #[test]
    fn a_connect_reply_has_the_reason_for_a_refused_first_frame() {
        assert_eq!(
            connect_reply(Timestamp(0), Code::Full, "say \"no\""),
            r#"{"command":"connect","response_code":"06","response_text":"Full: say \"no\"","data":[{"time_stamp":"1970-01-01T00:00:00.000Z"}]}"#
        );
    }

    #[test]
    fn an_acceptance_is_byte_for_byte_as_specified() {
        assert_eq!(
            accepted("a\"b", 1, false, false),
            r#"{"command":"send-message","response_code":"00","response_text":"Accepted","id":"a\"b","receivers":1,"stored":false}"#
        );
        assert_eq!(
            accepted("7", u32::MAX, true, true),
            r#"{"command":"send-message","response_code":"00","response_text":"Accepted","id":"7","receivers":4294967295,"stored":true,"duplicate":true}"#
        );
        assert!(accepted("7", 0, true, true).ends_with(r#""receivers":0,"stored":true,"duplicate":true}"#));
    }

    #[test]
    fn a_refusal_names_command_and_id_if_they_could_be_read() {
        assert_eq!(
            refusal(Some("send-message"), Code::Malformed, "'data' is missing", Some("x")),
            r#"{"command":"send-message","response_code":"02","response_text":"Malformed: 'data' is missing","id":"x"}"#
        );
        assert_eq!(
            refreshed(Some("7")),
            r#"{"command":"refresh","response_code":"00","response_text":"Accepted","id":"7"}"#
        );
        assert_eq!(refusal(None, Code::Full, "", None), r#"{"response_code":"06","response_text":"Full"}"#);
    }

    #[test]
    fn codes_and_texts_are_as_specified() {
        let table = [
            (Code::Accepted, "00", "Accepted"),
            (Code::Rejected, "01", "Rejected"),
            (Code::Malformed, "02", "Malformed"),
            (Code::Forbidden, "03", "Forbidden"),
            (Code::TooLarge, "04", "Too large"),
            (Code::Unavailable, "05", "Unavailable"),
            (Code::Full, "06", "Full"),
            (Code::UnknownCommand, "07", "Unknown command"),
            (Code::Expired, "08", "Expired"),
        ];
        for (code, number, text) in table {
            assert_eq!((code.as_str(), code.text()), (number, text));
        }
    }
}
