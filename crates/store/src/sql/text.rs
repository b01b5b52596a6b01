//! Converts payloads to text for a column, and back; byte for byte if the column allows it.
//!
//! Text is stored as it is. A payload that the column cannot hold is wrapped as a data URL (RFC 2397): binary payloads in every column; text with a
//! NUL character in PostgreSQL; in a column that is not Unicode, text that is not ASCII, unless it is JSON, which allows `\uXXXX` escapes. A text
//! that begins like such a URL is wrapped too, so that it is read as it was written. No conversion fails.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;

use super::super::Backend;
use wsmb_core::message::{Kind, Payload};

const BINARY: &str = "data:application/octet-stream;base64,";
const TEXT: &str = "data:text/plain;charset=utf-8;base64,";

/// The characters that a column can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charset {
    /// Every text.
    Unicode,
    /// Every text without a NUL character.
    UnicodeWithoutNul,
    /// The characters of the Basic Multilingual Plane.
    Utf8Mb3,
    /// The upper half of ISO 8859-1, and ASCII except the NUL character.
    Latin1,
    /// As `Latin1`, and rows whose bytes are UTF-8: see [`super::spelling`].
    MySqlLatin1,
    /// At least ASCII, except the NUL character.
    Other,
}

impl Charset {
    /// Returns the character set for its name: the column's in MySQL (`None` is a column of bytes), the database's in PostgreSQL.
    pub(super) fn of(backend: Backend, name: Option<&str>) -> Self {
        match (backend, name) {
            (Backend::Postgres, Some("UTF8" | "SQL_ASCII")) => Self::UnicodeWithoutNul,
            (Backend::Postgres, Some("LATIN1")) => Self::Latin1,
            (Backend::Postgres, _) => Self::Other,
            (Backend::MySql, None | Some("utf8mb4")) => Self::Unicode,
            (Backend::MySql, Some("utf8" | "utf8mb3")) => Self::Utf8Mb3,
            (Backend::MySql, Some("latin1")) => Self::MySqlLatin1,
            (Backend::MySql, Some(_)) => Self::Other,
        }
    }

    /// Whether the column can hold this text as it is.
    pub(super) fn holds(self, text: &str) -> bool {
        match self {
            Self::Unicode => true,
            Self::UnicodeWithoutNul => !text.contains('\0'),
            Self::Utf8Mb3 => text.chars().all(|character| character <= '\u{ffff}'),
            Self::Latin1 | Self::MySqlLatin1 => {
                text.chars().all(|character| matches!(character, '\x01'..='\x7f' | '\u{a0}'..='\u{ff}'))
            }
            Self::Other => is_plain(text),
        }
    }

    fn is_unicode(self) -> bool {
        matches!(self, Self::Unicode | Self::UnicodeWithoutNul)
    }
}

/// Encodes a payload for the column.
pub(super) fn encode(payload: &Payload, column: Charset) -> Cow<'_, str> {
    let text = match payload.kind {
        Kind::Text => std::str::from_utf8(&payload.bytes).ok(),
        Kind::Binary => None,
    };
    let Some(text) = text else {
        return Cow::Owned(BINARY.to_owned() + &STANDARD.encode(&payload.bytes));
    };
    let is_like_ours = text.starts_with(BINARY) || text.starts_with(TEXT);
    let fits = if column.is_unicode() { column.holds(text) } else { is_plain(text) };
    if fits && !is_like_ours {
        Cow::Borrowed(text)
    } else if !column.is_unicode() && !is_like_ours && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        Cow::Owned(escaped(text))
    } else {
        Cow::Owned(TEXT.to_owned() + &STANDARD.encode(text))
    }
}

/// Whether every column can hold the text.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 1..=0x7f))
}

/// Escapes JSON to ASCII: other characters occur only within its strings (RFC 8259 section 7).
fn escaped(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _infallible = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// Decodes a cell of the column. NULL is `null`, as the PHP broker sends it; bytes that are not UTF-8 are a binary payload.
pub(super) fn decode(stored: Option<Vec<u8>>, column: Charset) -> Payload {
    let Some(stored) = stored else { return Payload::text("null") };
    let text = match String::from_utf8(stored) {
        Ok(text) => column.read(text),
        Err(error) => return Payload { bytes: error.into_bytes().into(), kind: Kind::Binary },
    };
    let unwrapped = |prefix: &str| text.strip_prefix(prefix).and_then(|code| STANDARD.decode(code).ok());
    if let Some(bytes) = unwrapped(BINARY) {
        return Payload { bytes: bytes.into(), kind: Kind::Binary };
    }
    match unwrapped(TEXT).and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(inner) => Payload::text(inner),
        None => Payload::text(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Charset; 6] = [
        Charset::Unicode,
        Charset::UnicodeWithoutNul,
        Charset::Utf8Mb3,
        Charset::Latin1,
        Charset::MySqlLatin1,
        Charset::Other,
    ];

    fn round(payload: &Payload, column: Charset) -> Payload {
        let stored = encode(payload, column);
        assert!(column.holds(&stored), "{stored:?} does not fit {column:?}");
        decode(Some(stored.into_owned().into_bytes()), column)
    }

    #[test]
    fn json_in_a_column_that_is_not_unicode_is_escaped_and_stays_json() {
        let json = r#"{"text":"caf\u00e9 é 😀 \" \\ ü","ü":1}"#;
        let stored = encode(&Payload::text(json), Charset::Latin1).into_owned();
        assert_eq!(stored, r#"{"text":"caf\u00e9 \u00e9 \ud83d\ude00 \" \\ \u00fc","\u00fc":1}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(value(&stored), value(json));
        assert_eq!(encode(&Payload::text(json), Charset::Unicode), json, "elsewhere it is as it was sent");
    }

    #[test]
    fn what_is_like_ours_comes_back_as_it_was() {
        let like = format!("{BINARY}AAAA");
        for text in [like.as_str(), TEXT, "data:text/plain;charset=utf-8;base64,w6k=", "data:,x", " data:"] {
            for column in ALL {
                assert_eq!(round(&Payload::text(text), column), Payload::text(text), "{text}");
            }
        }
        let foreign = format!("{BINARY}no base64");
        assert_eq!(decode(Some(foreign.clone().into_bytes()), Charset::Unicode), Payload::text(foreign));
        assert_eq!(decode(None, Charset::Unicode), Payload::text("null"));
        let bytes = Payload { bytes: vec![0xff, 0].into(), kind: Kind::Binary };
        assert_eq!(decode(Some(vec![0xff, 0]), Charset::Unicode), bytes);
    }

    proptest! {
        #[test]
        fn json_is_escaped_wherever_it_must_be(key in "(?s).{0,8}", text in "(?s).{0,8}[é😀]", number: f64) {
            let sent = serde_json::json!({ key: [text, number] });
            for column in [Charset::Utf8Mb3, Charset::Latin1, Charset::MySqlLatin1, Charset::Other] {
                let stored = encode(&Payload::text(sent.to_string()), column).into_owned();
                prop_assert!(stored.is_ascii());
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&stored).expect("JSON"), &sent);
            }
        }

        #[test]
        fn every_payload_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "(?s).{0,24}") {
            let binary = Payload { bytes: bytes.into(), kind: Kind::Binary };
            for column in ALL {
                prop_assert_eq!(&round(&binary, column), &binary);
            }
            let sent = Payload::text(text);
            for column in [Charset::Unicode, Charset::UnicodeWithoutNul] {
                prop_assert_eq!(&round(&sent, column), &sent);
            }
            for column in ALL {
                let came = round(&sent, column);
                let json = |payload: &Payload| serde_json::from_slice::<serde_json::Value>(&payload.bytes).ok();
                prop_assert!(came == sent || (json(&sent).is_some() && json(&came) == json(&sent)));
            }
        }
    }
}
