//! Random texts for the comparison of the scanner with `serde_json`: valid JSON, nearly valid JSON, and random pieces of JSON.

use proptest::prelude::*;

use crate::limits;

/// Valid and invalid pieces of JSON, and separators.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    " ",
    "\t",
    "\n",
    "\r",
    "\u{b}",
    "\u{c}",
    "\u{a0}",
    "\u{feff}",
    "\0",
    "\u{1f}",
    "\u{7f}",
    "ü",
    "😀",
    "null",
    "true",
    "false",
    "nul",
    "tru",
    "NaN",
    "Infinity",
    "0",
    "-",
    "-0",
    "01",
    "1.",
    ".5",
    "1e",
    "1e+",
    "1E-9",
    "12.50e+3",
    "9999999999999999999999",
    "1e999",
    "+1",
    "a",
    "/",
    "//",
    "'",
    "\\u0061",
    "\\u00",
    "\\ud800",
    "\\udc00",
    "\\ud83d\\ude00",
    "\\ud800\\ud800",
    "\\uD8",
    "\\uDFFFx",
    "\\x",
    "\\/",
    "\\b\\f\\n\\r\\t\\\"\\\\",
    "\\U0061",
    "\\u00g0",
    "\"\"",
    "\"a\"",
    "{}",
    "[]",
    "\"command\":\"send-message\"",
    "\"id\":\"7\"",
    "\"data\":[",
    "\"data\":",
    "\"d\\u0061ta\":[",
    "{\"command\":\"ping\"",
    ",}",
    ",]",
];

/// Names of members, mostly those that have a meaning.
const NAMES: &[&str] = &[
    "command",
    "channel",
    "number_of_receiver",
    "data",
    "id",
    "ttl",
    "delay",
    "ack",
    "prefetch",
    "receiver",
    "delivery",
    "message_id",
    "redelivered",
    "attempt",
    "response_code",
    "r\\u0065delivered",
    "d\\u0061ta",
    "\\u0069d",
    "comman\\u0064",
    "a\\\\b",
    "\\u0064\\\\ata",
    "\\ud800",
    "\\ud83d\\ude00",
    "",
    "x",
];

fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

fn number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?"
}

fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-z \\[\\]{}:,/]{0,40}",
        1 => "\\PC{0,10}".prop_map(|text: String| text.replace(['\\', '"'], "")),
        1 => "\\\\u[0-9a-fA-F]{4}",
        1 => "\\\\[\"\\\\/bfnrt]",
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

/// A JSON value with white space.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop_oneof![Just("null"), Just("true"), Just("false")].prop_map(str::to_owned),
        number(),
        string(),
        string(),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let spaced = (space(), inner, space()).prop_map(|(before, value, after)| before + &value + &after).boxed();
        prop_oneof![
            prop::collection::vec(spaced.clone(), 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
            prop::collection::vec((space(), string(), space(), spaced), 0..5).prop_map(|members| {
                let member = |(before, name, after, value)| format!("{before}{name}{after}:{value}");
                format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

/// An object with members that have a meaning; some of them appear twice.
fn command() -> impl Strategy<Value = String> {
    let name = prop::sample::select(NAMES).prop_map(|name| format!("\"{name}\""));
    let value = prop_oneof![
        4 => value(),
        1 => Just("\"send-message\"".to_owned()),
        1 => prop::collection::vec(value(), 0..3).prop_map(|list| format!("[{}]", list.join(","))),
    ];
    let member = (space(), name, space(), space(), value, space())
        .prop_map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"));
    (space(), prop::collection::vec(member, 0..8), space())
        .prop_map(|(before, members, after)| format!("{before}{{{}}}{after}", members.join(",")))
}

/// Brackets with about the allowed depth; some of them are not closed.
fn deep() -> impl Strategy<Value = String> {
    let depth = limits::JSON_DEPTH - 4..limits::JSON_DEPTH + 4;
    (depth, prop::collection::vec(any::<bool>(), limits::JSON_DEPTH + 4), 0..3_usize, any::<bool>()).prop_map(
        |(depth, kinds, missing, embed)| {
            let open =
                kinds[..depth].iter().map(|is_object| if *is_object { "{\"a\":" } else { "[" }).collect::<String>();
            let close = kinds[missing..depth].iter().rev().map(|is_object| if *is_object { "}" } else { "]" });
            let nest = format!("{open}0{}", close.collect::<String>());
            if embed { format!("{{\"command\":\"ping\",\"data\":{nest},\"id\":7}}") } else { nest }
        },
    )
}

/// Changes a text: replaces bytes with a piece, removes bytes, changes a byte, or truncates the text.
fn damaged(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0..3_usize, prop::option::of(prop::sample::select(PIECES)));
    (text, prop::collection::vec(change, 1..4), any::<u8>(), 0..8_u8).prop_map(|(text, changes, odd, which)| {
        let mut bytes = text.into_bytes();
        for (place, removed, piece) in changes {
            let at = place.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, piece.unwrap_or_default().bytes());
        }
        match which {
            0 => bytes.truncate(usize::from(odd)),
            1 if !bytes.is_empty() => {
                let at = usize::from(odd) % bytes.len();
                bytes[at] = odd;
            }
            _ => {}
        }
        bytes
    })
}

/// Any text of these strategies, or random bytes.
pub(crate) fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => command().prop_map(String::into_bytes),
        1 => value().prop_map(String::into_bytes),
        6 => damaged(command()),
        1 => damaged(value()),
        1 => deep().prop_map(String::into_bytes),
        1 => damaged(deep()),
        3 => prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}
