//! The fields of a message as environment variables.
//!
//! Each field stands for itself: one that cannot be a variable is left out and told, and no other one suffers from it. A field never gets a name
//! that is not `WSMB_` and more, nor the name of a variable that the gateway sets itself.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::cli::output;
use crate::limits;

/// Begins the name of every variable.
pub(super) const PREFIX: &str = "WSMB_";

/// What the gateway itself tells the command, and settings of this program: a message does not get to set these.
const RESERVED: [&str; 11] = [
    "ID",
    "CHANNEL",
    "ATTEMPT",
    "REDELIVERED",
    "URL",
    "USER",
    "PASSWORD",
    "PASSWORD_FILE",
    "CONFIG",
    "CONTEXT",
    "GROUP",
];

/// What became of a message's fields.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub variables: Vec<(String, OsString)>,
    /// Sentences about fields that are left out. Texts of the message in them are safe to print.
    pub notes: Vec<String>,
}

/// The fields of a message.
pub(super) fn fields(json: &str) -> Fields {
    if !json.trim_start().starts_with('{') {
        let note = "the message is no object, so the command gets no fields of it".to_owned();
        return Fields { variables: Vec::new(), notes: vec![note] };
    }
    let mut collector = Collector::default();
    collector.object("", "", json, 0);
    let Collector { found, mut notes, unsaid, .. } = collector;
    if unsaid > 0 {
        notes.push(format!("{unsaid} more fields are left out"));
    }
    Fields { variables: found.into_iter().map(|field| (field.name, field.value.into())).collect(), notes }
}

struct Field {
    name: String,
    /// Where it stands in the message: the names of the objects around it and its own, with a NUL between them.
    path: String,
    value: String,
}

#[derive(Default)]
struct Collector {
    found: Vec<Field>,
    by_name: HashMap<String, usize>,
    bytes: usize,
    notes: Vec<String>,
    /// Notes that there was no room for.
    unsaid: usize,
}

impl Collector {
    /// Takes the members of an object whose own name is `name` and stands at `path`.
    fn object(&mut self, path: &str, name: &str, json: &str, depth: usize) {
        if depth == limits::EXEC_FIELD_DEPTH {
            self.leave_out(path, format_args!("it is nested more than {} deep", limits::EXEC_FIELD_DEPTH));
            return;
        }
        let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(json) else {
            self.leave_out(path, format_args!("it is not JSON"));
            return;
        };
        for (key, value) in members {
            let path = if path.is_empty() { key.clone() } else { format!("{path}\0{key}") };
            let clean = clean(&key);
            let name = match (name.is_empty(), clean.is_empty()) {
                (_, true) => {
                    self.leave_out(&path, format_args!("no letter from A to Z and no digit is in its name"));
                    continue;
                }
                (true, false) => clean,
                (false, false) => format!("{name}_{clean}"),
            };
            match value.get().as_bytes().first() {
                Some(b'{') => self.object(&path, &name, value.get(), depth + 1),
                // A list has no name for each of its elements. The command finds it in the message.
                Some(b'[') => {}
                _ => self.scalar(path, &name, value.get()),
            }
        }
    }

    fn scalar(&mut self, path: String, name: &str, json: &str) {
        if name.len() > limits::EXEC_FIELD_NAME {
            self.leave_out(&path, format_args!("its name is longer than {} characters", limits::EXEC_FIELD_NAME));
            return;
        }
        if RESERVED.iter().any(|reserved| same_name(reserved, name)) {
            self.leave_out(&path, format_args!("{PREFIX}{name} is not a message's to set"));
            return;
        }
        let value = match json.as_bytes().first() {
            Some(b'"') => serde_json::from_str::<Lossy>(json).map(|text| text.0).unwrap_or_default(),
            Some(b'n') => String::new(),
            // As it stands: a number may be longer than any number type, or end in a zero that means something.
            _ => json.to_owned(),
        };
        if value.contains('\0') {
            self.leave_out(&path, format_args!("no variable can hold a NUL"));
            return;
        }
        let name = format!("{PREFIX}{name}");
        let known = self.by_name.get(&folded(&name)).copied();
        match known {
            // Two members of one name: like most who read JSON, take the last.
            Some(index) if self.found[index].path == path => {
                self.note(format_args!("the field {} is there twice; the last one counts", quoted(&path)));
            }
            Some(index) => {
                let first = quoted(&self.found[index].path);
                self.note(format_args!(
                    "the fields {first} and {} have one name, {name}; the first one counts",
                    quoted(&path)
                ));
                return;
            }
            None => {}
        }
        let old = known.map_or(0, |index| self.found[index].value.len());
        let bytes = self.bytes - old + value.len() + if known.is_none() { name.len() + 2 } else { 0 };
        if value.len() > limits::EXEC_FIELD_BYTES || bytes > limits::EXEC_ENVIRONMENT_BYTES {
            self.leave_out(&path, format_args!("it is too long for the environment"));
            return;
        }
        match known {
            Some(index) => self.found[index].value = value,
            None if self.found.len() == limits::EXEC_FIELDS => {
                self.leave_out(&path, format_args!("there are more than {} fields", limits::EXEC_FIELDS));
                return;
            }
            None => {
                self.by_name.insert(folded(&name), self.found.len());
                self.found.push(Field { name, path, value });
            }
        }
        self.bytes = bytes;
    }

    fn leave_out(&mut self, path: &str, why: fmt::Arguments<'_>) {
        self.note(format_args!("the field {} is left out: {why}", quoted(path)));
    }

    fn note(&mut self, note: fmt::Arguments<'_>) {
        if self.notes.len() < limits::EXEC_NOTES {
            self.notes.push(note.to_string());
        } else {
            self.unsaid += 1;
        }
    }
}

/// The key with everything but ASCII letters and digits replaced: a run of other characters becomes one `_`, none at the beginning or end. So no
/// name has two `_` in a row, which is how the broker's own settings are named (`WSMB_SERVER__LISTEN`).
fn clean(key: &str) -> String {
    let words = key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

/// Windows does not tell `User` from `USER`.
fn folded(name: &str) -> String {
    if cfg!(windows) { name.to_ascii_uppercase() } else { name.to_owned() }
}

fn same_name(a: &str, b: &str) -> bool {
    if cfg!(windows) { a.eq_ignore_ascii_case(b) } else { a == b }
}

/// A text of the message for a sentence: bounded, and without control characters.
fn quoted(path: &str) -> String {
    let mut text: String = path.chars().take(limits::EXEC_NOTE_CHARS).collect();
    if text.len() < path.len() {
        text.push('…');
    }
    let text = text.replace('\0', ".");
    format!("\"{}\"", output::printable(&text))
}

/// A JSON string. Half of a surrogate pair, which is no character, becomes U+FFFD.
struct Lossy(String);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Lossy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Lossy, E> {
                Ok(Lossy(lossy(bytes)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Lossy, E> {
                Ok(Lossy(text.to_owned()))
            }
        }

        // As bytes, a half of a surrogate pair is three bytes that no UTF-8 has; as text it would be an error.
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Bytes in which halves of surrogate pairs stand as if they were characters, as text.
fn lossy(bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len() {
        if let [first @ 0xed, second @ 0xa0..=0xbf, third, ..] = &mut bytes[at..] {
            (*first, *second, *third) = (0xef, 0xbf, 0xbd);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The members of an object in their order, each value as it stands.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Pairs<'a> {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
                let mut members = Vec::new();
                while let Some((Lossy(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Pairs(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(json: &str) -> Vec<(String, String)> {
        let pair = |(name, value): (String, OsString)| (name, value.into_string().unwrap());
        fields(json).variables.into_iter().map(pair).collect()
    }

    #[track_caller]
    fn expect(json: &str, expected: &[(&str, &str)], notes: &[&str]) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        assert_eq!(named(json), expected.iter().map(own).collect::<Vec<_>>(), "{json}");
        let said = fields(json).notes;
        assert_eq!(said.len(), notes.len(), "{said:?}");
        for (said, note) in said.iter().zip(notes) {
            assert!(said.contains(note), "expected `{note}` in `{said}`");
        }
    }

    #[test]
    fn scalars_become_variables_as_they_stand() {
        expect(
            r#"{"receiver":"0812","id":89620012345678901234,"urgent":true,"note":null,"price":1.10,"huge":1e400,"list":[1]}"#,
            &[
                ("WSMB_receiver", "0812"),
                ("WSMB_id", "89620012345678901234"),
                ("WSMB_urgent", "true"),
                ("WSMB_note", ""),
                ("WSMB_price", "1.10"),
                ("WSMB_huge", "1e400"),
            ],
            &[],
        );
    }

    #[test]
    fn an_odd_field_costs_no_other_one() {
        expect(
            r#"{"a":"half \ud83d!","b\udc00":"\ude00","nul":"x\u0000y","ok":"caf\u00e9 \ud83d\ude00","deep":{"x":{"y":2.50}}}"#,
            &[
                ("WSMB_a", "half \u{fffd}!"),
                ("WSMB_b", "\u{fffd}"),
                ("WSMB_ok", "caf\u{e9} \u{1f600}"),
                ("WSMB_deep_x_y", "2.50"),
            ],
            &["\"nul\" is left out: no variable can hold a NUL"],
        );
    }

    #[test]
    fn a_message_that_is_no_object_has_no_fields_and_that_is_said() {
        for json in ["5", "\"x\"", "[{\"a\":1}]", "null"] {
            expect(json, &[], &["is no object"]);
        }
    }

    #[test]
    fn a_message_cannot_set_what_is_not_its_own() {
        let reserved = RESERVED.map(|name| format!(r#""{name}":"x""#)).join(",");
        let found = fields(&format!("{{{reserved},\"PATH\":\"/evil\",\"Server--Listen\":\"y\",\"日\":1}}"));
        let names: Vec<&str> = found.variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["WSMB_PATH", "WSMB_Server_Listen"]);
        assert!(found.notes[0].contains("WSMB_ID is not a message's to set"), "{:?}", found.notes);
        assert!(found.notes.last().unwrap().contains("more fields are left out"), "{:?}", found.notes);
        expect(r#"{"a":{"日":1}}"#, &[], &["\"a.日\" is left out: no letter"]);
    }

    #[test]
    fn of_two_fields_with_one_name_one_counts_and_that_is_said() {
        expect(
            r#"{"a.b":1,"a-b":2,"a":{"b":3},"c":4,"c":"5"}"#,
            &[("WSMB_a_b", "1"), ("WSMB_c", "5")],
            &["\"a.b\" and \"a-b\" have one name, WSMB_a_b", "have one name", "\"c\" is there twice"],
        );
    }

    #[test]
    fn fields_are_bounded_in_number_size_and_depth() {
        let many = (0..500).map(|number| format!(r#""f{number}":1"#)).collect::<Vec<_>>().join(",");
        let found = fields(&format!("{{{many}}}"));
        assert_eq!((found.variables.len(), found.notes.len()), (limits::EXEC_FIELDS, limits::EXEC_NOTES + 1));
        let long = "x".repeat(limits::EXEC_FIELD_BYTES + 1);
        expect(&format!(r#"{{"long":"{long}","short":"x"}}"#), &[("WSMB_short", "x")], &["too long"]);
        let sum = (0..50)
            .map(|number| format!(r#""f{number}":"{}""#, "x".repeat(limits::EXEC_FIELD_BYTES)))
            .collect::<Vec<_>>()
            .join(",");
        let bytes: usize = named(&format!("{{{sum}}}")).iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(bytes <= limits::EXEC_ENVIRONMENT_BYTES && bytes > limits::EXEC_FIELD_BYTES, "{bytes}");
        let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
        expect(&deep, &[], &["nested more than"]);
        let name = "n".repeat(limits::EXEC_FIELD_NAME + 1);
        expect(&format!(r#"{{"{name}":1}}"#), &[], &["its name is longer"]);
    }

    #[test]
    fn what_is_said_of_a_field_cannot_command_a_terminal() {
        let notes = fields(&format!(r#"{{"\u001b[2J{}":"\u0000"}}"#, "n".repeat(60))).notes;
        assert!(notes[0].contains("\\u{1b}[2J") && notes[0].contains('…') && !notes[0].contains('\u{1b}'), "{notes:?}");
    }

    proptest! {
        #[test]
        fn every_name_is_one_that_a_shell_can_read(keys in prop::collection::vec(".*", 1..4)) {
            let json = keys.iter().rev().fold("1".to_owned(), |inner, key| {
                format!("{{{}:{inner}}}", serde_json::to_string(key).unwrap())
            });
            for (name, _) in named(&json) {
                prop_assert!(name.starts_with("WSMB_") && !name.contains("__"));
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
            }
        }
    }
}
