//! User-defined fields: extra columns of the message table, filled from the message through JSON pointers (RFC 6901), so that an application can
//! query its own table.
//!
//! A message is never refused because of a field: a missing value, or a payload that is not JSON, becomes NULL.

use std::fmt;

use serde_json::Value;

/// The broker's own columns, in lower case.
pub(super) use wsmb_core::limits::STORE_OWN_COLUMNS as OWN;

/// The required columns of a message table: those of the original PHP broker's table.
pub(super) const REQUIRED: [&str; 4] = ["data_id", "channel", "data", "created"];

/// The value of a user-defined column.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnValue {
    /// No value, or JSON's `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number in the range of `i64`.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// A text.
    Text(String),
    /// The JSON text of an object, an array, or a whole number out of the range of `i64`.
    Json(String),
}

/// The validated columns of `[store.columns]`, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<(String, String)>);

/// The reason why `[store.columns]` is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadColumn {
    /// The name is not a letter or underscore followed by letters, digits and underscores, or is too long.
    Name(String),
    /// The name is one of the broker's own columns.
    Own(String),
    /// The name occurs twice (SQL ignores case).
    Twice(String),
    /// The pointer is neither empty nor begins with `/`, or contains a `~` that is not followed by `0` or `1`.
    Pointer {
        /// The column's name.
        name: String,
        /// The column's pointer.
        pointer: String,
    },
    /// There are more columns than [`wsmb_core::limits::STORE_COLUMNS`].
    TooMany(usize),
}

impl fmt::Display for BadColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "store.columns: {name:?} can't be a column; use a letter, then letters, digits and underscores, at most {} characters",
                wsmb_core::limits::STORE_COLUMN_CHARS
            ),
            Self::Own(name) => write!(f, "store.columns: {name} is the broker's own column; choose another name"),
            Self::Twice(name) => write!(f, "store.columns: {name} occurs twice (case is ignored); remove one"),
            Self::Pointer { name, pointer } => write!(
                f,
                "store.columns: {pointer:?} for {name} is not a JSON pointer; write it like \"/data/receiver\", with ~1 for / and ~0 for ~"
            ),
            Self::TooMany(count) => {
                write!(
                    f,
                    "store.columns: {count} columns are too many; use at most {}",
                    wsmb_core::limits::STORE_COLUMNS
                )
            }
        }
    }
}

impl std::error::Error for BadColumn {}

impl Columns {
    /// Validates pairs of a column's name and its JSON pointer.
    ///
    /// # Errors
    /// [`BadColumn`] names the first invalid column.
    pub fn parse<N: Into<String>, P: Into<String>>(pairs: impl IntoIterator<Item = (N, P)>) -> Result<Self, BadColumn> {
        let pairs: Vec<(String, String)> =
            pairs.into_iter().map(|(name, pointer)| (name.into(), pointer.into())).collect();
        if pairs.len() > wsmb_core::limits::STORE_COLUMNS {
            return Err(BadColumn::TooMany(pairs.len()));
        }
        for (index, (name, pointer)) in pairs.iter().enumerate() {
            if !is_name(name) {
                return Err(BadColumn::Name(name.clone()));
            }
            if OWN.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                return Err(BadColumn::Own(name.clone()));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
                return Err(BadColumn::Twice(name.clone()));
            }
            if !is_pointer(pointer) {
                return Err(BadColumn::Pointer { name: name.clone(), pointer: pointer.clone() });
            }
        }
        Ok(Self(pairs))
    }

    /// Whether there are no user-defined columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The columns' names, each safe inside SQL's double quotes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The value of each column for a message with this payload, in the order of [`Self::names`].
    #[must_use]
    pub fn values(&self, payload: &[u8]) -> Vec<ColumnValue> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let document: Option<Value> = serde_json::from_slice(payload).ok();
        self.0
            .iter()
            .map(|(_, pointer)| {
                document.as_ref().and_then(|value| value.pointer(pointer)).map_or(ColumnValue::Null, value_of)
            })
            .collect()
    }
}

fn value_of(value: &Value) -> ColumnValue {
    match value {
        Value::Null => ColumnValue::Null,
        Value::Bool(truth) => ColumnValue::Boolean(*truth),
        Value::Number(number) => match (number.as_i64(), number.is_f64(), number.as_f64()) {
            (Some(whole), _, _) => ColumnValue::Integer(whole),
            (None, true, Some(real)) => ColumnValue::Real(real),
            _ => ColumnValue::Json(number.to_string()),
        },
        Value::String(text) => ColumnValue::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => ColumnValue::Json(value.to_string()),
    }
}

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    let starts = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    starts
        && name.len() <= wsmb_core::limits::STORE_COLUMN_CHARS
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}

fn is_pointer(pointer: &str) -> bool {
    let is_valid_start = pointer.is_empty() || pointer.starts_with('/');
    is_valid_start && pointer.split('~').skip(1).all(|rest| rest.starts_with('0') || rest.starts_with('1'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ColumnValue::{Boolean, Integer, Json, Null, Real, Text};
    use super::*;

    fn one(pointer: &str, payload: &str) -> ColumnValue {
        let columns = Columns::parse([("field", pointer)]).expect("a valid column");
        columns.values(payload.as_bytes()).remove(0)
    }

    #[test]
    fn pointers_find_what_rfc_6901_says() {
        let document = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        for (pointer, expected) in [
            ("/foo", Json(r#"["bar","baz"]"#.to_owned())),
            ("/foo/0", Text("bar".to_owned())),
            ("/foo/2", Null),
            ("/foo/01", Null),
            ("/foo/-", Null),
            ("/", Integer(0)),
            ("/a~1b", Integer(1)),
            ("/c%d", Integer(2)),
            ("/e^f", Integer(3)),
            ("/g|h", Integer(4)),
            ("/i\\j", Integer(5)),
            ("/k\"l", Integer(6)),
            ("/ ", Integer(7)),
            ("/m~0n", Integer(8)),
            ("/nothing/there", Null),
        ] {
            assert_eq!(one(pointer, document), expected, "{pointer}");
        }
    }

    #[test]
    fn scalars_keep_their_kind() {
        for (payload, expected) in [
            ("null", Null),
            ("true", Boolean(true)),
            ("-7", Integer(-7)),
            ("9223372036854775807", Integer(i64::MAX)),
            ("18446744073709551615", Json("18446744073709551615".to_owned())),
            ("1.5", Real(1.5)),
            ("1e3", Real(1_000.0)),
            ("1.1435187537973905e287", Real(1.143_518_753_797_390_5e287)),
            (r#""caf\u00e9 \ud83d\ude00""#, Text("café 😀".to_owned())),
            (r#"{"a":[1]}"#, Json(r#"{"a":[1]}"#.to_owned())),
            ("not JSON", Null),
            ("", Null),
        ] {
            assert_eq!(one("", payload), expected, "{payload}");
        }
        let columns = Columns::parse([("field", "/a")]).expect("a valid column");
        assert_eq!(columns.values(&[0xff, 0x00]), vec![Null]);
    }

    #[test]
    fn invalid_columns_are_refused() {
        let long = "x".repeat(wsmb_core::limits::STORE_COLUMN_CHARS + 1);
        for name in ["", "1st", "a b", "a\"b", "a;b", "é", "a-b", long.as_str()] {
            assert_eq!(Columns::parse([(name, "/a")]), Err(BadColumn::Name(name.to_owned())));
        }
        assert_eq!(Columns::parse([("Data", "/a")]), Err(BadColumn::Own("Data".to_owned())));
        assert_eq!(Columns::parse([("a", "/a"), ("A", "/b")]), Err(BadColumn::Twice("A".to_owned())));
        for pointer in ["a", "a/b", "/a~", "/a~2", "~0"] {
            assert!(matches!(Columns::parse([("a", pointer)]), Err(BadColumn::Pointer { .. })), "{pointer}");
        }
        let many = (0..=wsmb_core::limits::STORE_COLUMNS).map(|number| (format!("c{number}"), "/a"));
        assert_eq!(Columns::parse(many), Err(BadColumn::TooMany(wsmb_core::limits::STORE_COLUMNS + 1)));
    }

    proptest! {
        #[test]
        fn no_payload_fails(payload in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,32}") {
            let columns = Columns::parse([("a", "/a"), ("b", "/b/0"), ("c", "")]).expect("valid columns");
            prop_assert_eq!(columns.values(&payload).len(), 3);
            prop_assert_eq!(columns.values(text.as_bytes()).len(), 3);
        }
    }
}
