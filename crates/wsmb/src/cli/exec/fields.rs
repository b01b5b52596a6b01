//! Converts the fields of a message into environment variables.
//!
//! A field that cannot become a variable is omitted, with a note; the other fields are not affected. The name of a variable always begins with `WSMB_`.
//! A field never gets the name of a variable that the gateway sets itself.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::cli::output;
use crate::limits;
use crate::platform::variable_key;

/// The beginning of the name of every variable.
pub(super) const PREFIX: &str = "WSMB_";

/// Names that a message cannot set, without `WSMB_`: variables that the gateway sets for the command, and settings of this program.
const RESERVED: [&str; 13] = [
    "ID",
    "CHANNEL",
    "ATTEMPT",
    "REDELIVERED",
    "URL",
    "USER",
    "PASSWORD",
    "PASSWORD_FILE",
    "TOKEN",
    "TOKEN_FILE",
    "CONFIG",
    "CONTEXT",
    "GROUP",
];

/// The variables of a message.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub variables: Vec<(String, OsString)>,
    /// A note for each omitted field. Control characters of the message are escaped, so the notes can be printed on a terminal.
    pub notes: Vec<String>,
}

/// Returns the variables for the fields of a message.
pub(super) fn variables(json: &str) -> Fields {
    if !json.trim_start().starts_with('{') {
        let note = "the message is not a JSON object, so the command gets no fields".to_owned();
        return Fields { variables: Vec::new(), notes: vec![note] };
    }
    let mut collector = Collector::default();
    collector.object("", "", json, 0);
    let Collector { found, mut notes, omitted_notes, .. } = collector;
    if omitted_notes > 0 {
        notes.push(format!("{omitted_notes} more fields are omitted"));
    }
    Fields { variables: found.into_iter().map(|field| (field.name, field.value.into())).collect(), notes }
}

struct Field {
    name: String,
    /// The names of the objects around the field and its own name, with a NUL between them.
    path: String,
    value: String,
}

#[derive(Default)]
struct Collector {
    found: Vec<Field>,
    by_name: HashMap<String, usize>,
    bytes: usize,
    notes: Vec<String>,
    /// The number of notes beyond [`limits::EXEC_NOTES`].
    omitted_notes: usize,
}

impl Collector {
    /// Collects the members of an object. `name`: the variable name of the object; `path`: the path of the object in the message.
    fn object(&mut self, path: &str, name: &str, json: &str, depth: usize) {
        if depth == limits::EXEC_FIELD_DEPTH {
            self.omit(path, format_args!("it is nested in more than {} objects", limits::EXEC_FIELD_DEPTH));
            return;
        }
        let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(json) else {
            self.omit(path, format_args!("it is not valid JSON"));
            return;
        };
        for (key, value) in members {
            let path = if path.is_empty() { key.clone() } else { format!("{path}\0{key}") };
            let clean = clean(&key);
            let name = match (name.is_empty(), clean.is_empty()) {
                (_, true) => {
                    self.omit(&path, format_args!("its name has no letter from A to Z and no digit"));
                    continue;
                }
                (true, false) => clean,
                (false, false) => format!("{name}_{clean}"),
            };
            match value.get().as_bytes().first() {
                Some(b'{') => self.object(&path, &name, value.get(), depth + 1),
                // The elements of a list have no names. The command can read the list from the message.
                Some(b'[') => {}
                _ => self.scalar(path, &name, value.get()),
            }
        }
    }

    fn scalar(&mut self, path: String, name: &str, json: &str) {
        if name.len() > limits::EXEC_FIELD_NAME {
            self.omit(&path, format_args!("its name is longer than {} characters", limits::EXEC_FIELD_NAME));
            return;
        }
        if RESERVED.iter().any(|reserved| variable_key(reserved) == variable_key(name)) {
            self.omit(&path, format_args!("a message cannot set {PREFIX}{name}"));
            return;
        }
        let value = match json.as_bytes().first() {
            Some(b'"') => serde_json::from_str::<Lossy>(json).map(|text| text.0).unwrap_or_default(),
            Some(b'n') => String::new(),
            // Unchanged: a number may have more digits than any number type, or end in a significant zero.
            _ => json.to_owned(),
        };
        if value.contains('\0') {
            self.omit(&path, format_args!("a variable cannot contain a NUL"));
            return;
        }
        let name = format!("{PREFIX}{name}");
        let known = self.by_name.get(&*variable_key(&name)).copied();
        match known {
            // Two members with the same name: the last one counts, as in most JSON parsers.
            Some(index) if self.found[index].path == path => {
                self.note(format_args!("the field {} appears twice; the last one counts", quoted(&path)));
            }
            Some(index) => {
                let first = quoted(&self.found[index].path);
                self.note(format_args!(
                    "the fields {first} and {} have the same variable name, {name}; the first one counts",
                    quoted(&path)
                ));
                return;
            }
            None => {}
        }
        let old = known.map_or(0, |index| self.found[index].value.len());
        let bytes = self.bytes - old + value.len() + if known.is_none() { name.len() + 2 } else { 0 };
        if value.len() > limits::EXEC_FIELD_BYTES || bytes > limits::EXEC_ENVIRONMENT_BYTES {
            self.omit(&path, format_args!("it is too long for the environment"));
            return;
        }
        match known {
            Some(index) => self.found[index].value = value,
            None if self.found.len() == limits::EXEC_FIELDS => {
                self.omit(&path, format_args!("there are more than {} fields", limits::EXEC_FIELDS));
                return;
            }
            None => {
                self.by_name.insert(variable_key(&name).into_owned(), self.found.len());
                self.found.push(Field { name, path, value });
            }
        }
        self.bytes = bytes;
    }

    fn omit(&mut self, path: &str, why: fmt::Arguments<'_>) {
        self.note(format_args!("the field {} is omitted: {why}", quoted(path)));
    }

    fn note(&mut self, note: fmt::Arguments<'_>) {
        if self.notes.len() < limits::EXEC_NOTES {
            self.notes.push(note.to_string());
        } else {
            self.omitted_notes += 1;
        }
    }
}

/// Replaces each run of characters other than ASCII letters and digits with one `_`, and removes such runs at the beginning and at the end. So no name
/// has two `_` in a row: the broker's own settings have such names (`WSMB_SERVER__LISTEN`).
fn clean(key: &str) -> String {
    let words = key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

/// Returns a name from the message for a note: in quotes, at most [`limits::EXEC_NOTE_CHARS`] characters, control characters escaped.
fn quoted(path: &str) -> String {
    let mut text: String = path.chars().take(limits::EXEC_NOTE_CHARS).collect();
    if text.len() < path.len() {
        text.push('…');
    }
    let text = text.replace('\0', ".");
    format!("\"{}\"", output::printable(&text))
}

/// A JSON string. An unpaired surrogate, which is no character, becomes U+FFFD.
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

        // As bytes, `serde_json` gives an unpaired surrogate as three bytes that are not valid UTF-8. As text, it would be an error.
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Converts bytes into text. Unpaired surrogates, encoded like characters (WTF-8), become U+FFFD.
fn lossy(bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len() {
        if let [first @ 0xed, second @ 0xa0..=0xbf, third, ..] = &mut bytes[at..] {
            (*first, *second, *third) = (0xef, 0xbf, 0xbd);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The members of an object in their order. Each value is unparsed JSON text.
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
        variables(json).variables.into_iter().map(pair).collect()
    }

    #[track_caller]
    fn expect(json: &str, expected: &[(&str, &str)], notes: &[&str]) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        assert_eq!(named(json), expected.iter().map(own).collect::<Vec<_>>(), "{json}");
        let said = variables(json).notes;
        assert_eq!(said.len(), notes.len(), "{said:?}");
        for (said, note) in said.iter().zip(notes) {
            assert!(said.contains(note), "expected `{note}` in `{said}`");
        }
    }

    #[test]
    fn scalars_become_variables_unchanged() {
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
    fn a_field_that_is_omitted_does_not_affect_the_others() {
        expect(
            r#"{"a":"half \ud83d!","b\udc00":"\ude00","nul":"x\u0000y","ok":"caf\u00e9 \ud83d\ude00","deep":{"x":{"y":2.50}}}"#,
            &[
                ("WSMB_a", "half \u{fffd}!"),
                ("WSMB_b", "\u{fffd}"),
                ("WSMB_ok", "caf\u{e9} \u{1f600}"),
                ("WSMB_deep_x_y", "2.50"),
            ],
            &["\"nul\" is omitted: a variable cannot contain a NUL"],
        );
    }

    #[test]
    fn a_message_that_is_not_an_object_gives_a_note_and_no_variables() {
        for json in ["5", "\"x\"", "[{\"a\":1}]", "null"] {
            expect(json, &[], &["is not a JSON object"]);
        }
    }

    #[test]
    fn a_message_cannot_set_reserved_variables() {
        let reserved = RESERVED.map(|name| format!(r#""{name}":"x""#)).join(",");
        let found = variables(&format!("{{{reserved},\"PATH\":\"/evil\",\"Server--Listen\":\"y\",\"日\":1}}"));
        let names: Vec<&str> = found.variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["WSMB_PATH", "WSMB_Server_Listen"]);
        assert!(found.notes[0].contains("a message cannot set WSMB_ID"), "{:?}", found.notes);
        assert!(found.notes.last().unwrap().contains("more fields are omitted"), "{:?}", found.notes);
        expect(r#"{"a":{"日":1}}"#, &[], &["\"a.日\" is omitted: its name has no letter"]);
    }

    #[test]
    fn of_two_fields_with_the_same_name_one_counts_and_a_note_says_which() {
        expect(
            r#"{"a.b":1,"a-b":2,"a":{"b":3},"c":4,"c":"5"}"#,
            &[("WSMB_a_b", "1"), ("WSMB_c", "5")],
            &[
                "\"a.b\" and \"a-b\" have the same variable name, WSMB_a_b",
                "have the same variable name",
                "\"c\" appears twice",
            ],
        );
    }

    #[test]
    fn fields_are_bounded_in_number_size_and_depth() {
        let many = (0..500).map(|number| format!(r#""f{number}":1"#)).collect::<Vec<_>>().join(",");
        let found = variables(&format!("{{{many}}}"));
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
        expect(&deep, &[], &["nested in more than"]);
        let name = "n".repeat(limits::EXEC_FIELD_NAME + 1);
        expect(&format!(r#"{{"{name}":1}}"#), &[], &["its name is longer"]);
    }

    #[test]
    fn notes_contain_no_control_characters() {
        let notes = variables(&format!(r#"{{"\u001b[2J{}":"\u0000"}}"#, "n".repeat(60))).notes;
        assert!(notes[0].contains("\\u{1b}[2J") && notes[0].contains('…') && !notes[0].contains('\u{1b}'), "{notes:?}");
    }

    proptest! {
        #[test]
        fn every_name_is_a_valid_shell_variable(keys in prop::collection::vec(".*", 1..4)) {
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
