//! Reads the JSON objects of a token. An object with two members of one name is refused, because two readers could take different ones.
//!
//! Only the members of the outermost object are checked: nothing reads members of inner objects.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

/// The error of an object with two members of one name.
const DUPLICATE: &str = "duplicate member";

/// The members of a JSON object.
#[derive(Clone, Debug, Default)]
pub(super) struct Object(pub(super) BTreeMap<String, Value>);

/// Why a text is no usable object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadObject {
    /// The text is not a JSON object.
    NotAnObject,
    /// Two members have the same name.
    Duplicate,
}

impl Object {
    /// Parses a JSON object.
    pub(super) fn parse(json: &[u8]) -> Result<Self, BadObject> {
        serde_json::from_slice(json).map_err(|error| {
            // The error has no type of its own, and its text begins with the text of `Error::custom`.
            if error.to_string().starts_with(DUPLICATE) { BadObject::Duplicate } else { BadObject::NotAnObject }
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom(DUPLICATE));
            }
        }
        Ok(Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_members_of_one_name_are_refused_however_they_are_written() {
        assert_eq!(Object::parse(br#"{"a":1,"b":{"a":2}}"#).unwrap().get("a"), Some(&Value::from(1)));
        for json in [&br#"{"a":1,"a":1}"#[..], br#"{"a":1,"b":2,"\u0061":3}"#] {
            assert_eq!(Object::parse(json).unwrap_err(), BadObject::Duplicate);
        }
        for json in [&b"[]"[..], b"", b"{", b"{}x", b"\"{}\"", b"{\"a\":\"\xff\"}", br#"{"duplicate member":}"#] {
            assert_eq!(Object::parse(json).unwrap_err(), BadObject::NotAnObject);
        }
    }
}
