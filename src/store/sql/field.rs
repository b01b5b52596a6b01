//! User-defined columns: what type the table gives them, and which values fit.
//!
//! A field holds the whole value or nothing: what does not fit is NULL, and the message is stored all the same.

use std::borrow::Cow;

use super::super::{Backend, ColumnValue, StoreError, datetime};
use super::text::Charset;
use crate::message::Timestamp;

/// What a column takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FieldType {
    /// Whole numbers from the first to the last.
    Integer(i64, i64),
    /// Any number.
    Number,
    /// True or false.
    Boolean,
    /// Text of at most so many characters.
    Text(Option<u64>, Charset),
    /// JSON.
    Json,
    /// A moment, to the second.
    Moment,
    /// A day.
    Day,
}

/// A column as the database describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) name: String,
    /// `information_schema.columns.data_type`, in lower case.
    pub(super) data_type: String,
    /// MySQL's `column_type`, which says `unsigned`.
    pub(super) full_type: String,
    pub(super) characters: Option<u64>,
    pub(super) charset: Option<String>,
    pub(super) nullable: bool,
    /// Filled by the database if nothing is given.
    pub(super) filled: bool,
}

impl FieldType {
    /// `None` for a type that no value of a message can have.
    pub(super) fn parse(backend: Backend, column: &Described) -> Option<Self> {
        let charset = Charset::of(backend, column.charset.as_deref());
        let signed = !column.full_type.contains("unsigned");
        let integer = |bits: u32| {
            let half = 1_i64 << (bits - 1);
            if signed { Self::Integer(-half, half - 1) } else { Self::Integer(0, (half - 1).saturating_mul(2) + 1) }
        };
        Some(match column.data_type.as_str() {
            "tinyint" if column.full_type.starts_with("tinyint(1)") && signed => Self::Integer(-128, 127),
            "tinyint" => integer(8),
            "smallint" => integer(16),
            "mediumint" => integer(24),
            "int" | "integer" => integer(32),
            "bigint" => Self::Integer(if signed { i64::MIN } else { 0 }, i64::MAX),
            "float" | "double" | "real" | "double precision" => Self::Number,
            "boolean" => Self::Boolean,
            "char" | "varchar" | "character varying" | "character" => Self::Text(column.characters, charset),
            // MySQL counts their bytes; what may not fit is left out.
            "tinytext" | "text" | "mediumtext" | "longtext" => {
                Self::Text(column.characters.map(|bytes| bytes / 4), charset)
            }
            "json" | "jsonb" => Self::Json,
            "datetime" | "timestamp" | "timestamp without time zone" | "timestamp with time zone" => Self::Moment,
            "date" => Self::Day,
            _ => return None,
        })
    }

    /// The value as the text that the column takes; `None` if it does not fit.
    pub(super) fn fit(self, value: &ColumnValue) -> Option<Cow<'_, str>> {
        let text = match value {
            ColumnValue::Null => return None,
            ColumnValue::Boolean(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
            ColumnValue::Integer(whole) => Cow::Owned(whole.to_string()),
            ColumnValue::Real(real) => Cow::Owned(real.to_string()),
            ColumnValue::Text(text) | ColumnValue::Json(text) => Cow::Borrowed(text.as_str()),
        };
        match self {
            Self::Integer(least, most) => {
                let whole = match value {
                    ColumnValue::Boolean(truth) => i64::from(*truth),
                    _ => text.parse().ok()?,
                };
                (least..=most).contains(&whole).then(|| Cow::Owned(whole.to_string()))
            }
            Self::Number => match value {
                ColumnValue::Boolean(_) => None,
                _ => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| text),
            },
            Self::Boolean => matches!(&*text, "true" | "false").then_some(text),
            Self::Text(most, charset) => {
                let fits = most.is_none_or(|most| text.chars().count() as u64 <= most);
                (fits && charset.holds(&text)).then_some(text)
            }
            Self::Json => match value {
                ColumnValue::Text(inner) => {
                    let quoted = serde_json::Value::String(inner.clone()).to_string();
                    // PostgreSQL's jsonb can't hold that character.
                    (!inner.contains('\0')).then_some(Cow::Owned(quoted))
                }
                // Within strings of it, the same character has this form.
                _ => Some(text).filter(|text| !text.contains("\\u0000")),
            },
            Self::Moment => moment(value).map(Cow::Owned),
            Self::Day => moment(value).and_then(|text| text.get(..10).map(str::to_owned)).map(Cow::Owned),
        }
    }
}

/// Seconds since 1970, or a date and a time, as the database writes it, in UTC.
fn moment(value: &ColumnValue) -> Option<String> {
    let moment = match value {
        ColumnValue::Integer(seconds) => Timestamp(u64::try_from(*seconds).ok()?.checked_mul(1_000)?),
        ColumnValue::Text(text) => {
            let text = text.strip_suffix('Z').unwrap_or(text);
            // A day begins with its first second.
            datetime::from_text(text).or_else(|| datetime::from_text(&format!("{text} 00:00:00")))?
        }
        _ => return None,
    };
    // What the format has no room for would be another moment.
    let text = datetime::to_text(moment);
    (datetime::from_text(&text)?.0 / 1_000 == moment.0 / 1_000).then_some(text)
}

/// The type of a configured column, or what keeps it from being one.
///
/// # Errors
/// [`StoreError::Column`]
pub(super) fn checked(
    backend: Backend,
    place: &str,
    table: &str,
    name: &str,
    found: Option<&Described>,
) -> Result<FieldType, StoreError> {
    let error = |problem: String| {
        let (place, table, column) = (place.to_owned(), table.to_owned(), name.to_owned());
        StoreError::Column { place, table, column, problem }
    };
    let Some(found) = found else {
        return Err(error(format!(
            "is not there; make it, for example with: ALTER TABLE {table} ADD COLUMN {name} text"
        )));
    };
    if !found.nullable {
        let problem = "must be allowed to be NULL, because a message may have no such field; change the column, or remove it from store.columns";
        return Err(error(problem.to_owned()));
    }
    FieldType::parse(backend, found).ok_or_else(|| {
        error(format!(
            "has the type {}, which no field of a message can have; give it a text, number, boolean, JSON or time type",
            found.data_type
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(data_type: &str, full_type: &str, characters: Option<u64>) -> Described {
        let charset = Some("latin1".to_owned());
        Described {
            name: "field".to_owned(),
            data_type: data_type.to_owned(),
            full_type: full_type.to_owned(),
            characters,
            charset,
            nullable: true,
            filled: true,
        }
    }

    fn fitted(data_type: &str, full_type: &str, value: &ColumnValue) -> Option<String> {
        let column = FieldType::parse(Backend::MySql, &described(data_type, full_type, Some(5))).expect("a known type");
        column.fit(value).map(Cow::into_owned)
    }

    #[test]
    fn values_fit_or_are_null() {
        use ColumnValue::{Boolean, Integer, Json, Null, Real, Text};
        let text = |text: &str| Text(text.to_owned());
        for (data_type, full_type, value, expected) in [
            ("int", "int(11)", Integer(7), Some("7")),
            ("int", "int(11)", Integer(1 << 40), None),
            ("int", "int(10) unsigned", Integer(4_294_967_295), Some("4294967295")),
            ("int", "int(10) unsigned", Integer(-1), None),
            ("int", "int(11)", text("42"), Some("42")),
            ("int", "int(11)", text("4 2"), None),
            ("int", "int(11)", Real(1.5), None),
            ("int", "int(11)", Boolean(true), Some("1")),
            ("tinyint", "tinyint(1)", Boolean(false), Some("0")),
            ("bigint", "bigint(20)", Integer(i64::MIN), Some("-9223372036854775808")),
            ("double", "double", Real(1.5), Some("1.5")),
            ("double", "double", text("inf"), None),
            ("varchar", "varchar(5)", text("12345"), Some("12345")),
            ("varchar", "varchar(5)", text("123456"), None),
            ("varchar", "varchar(5)", Integer(12), Some("12")),
            ("varchar", "varchar(5)", Null, None),
            ("boolean", "", Boolean(true), Some("true")),
            ("boolean", "", Integer(1), None),
            ("json", "", text("a\"b"), Some("\"a\\\"b\"")),
            ("json", "", Integer(1), Some("1")),
            ("json", "", Json("[1]".to_owned()), Some("[1]")),
            ("json", "", Json("[\"\\u0000\"]".to_owned()), None),
            ("varchar", "varchar(5)", Json("[1]".to_owned()), Some("[1]")),
            ("int", "int(11)", Json("18446744073709551615".to_owned()), None),
            ("datetime", "", Integer(1_763_800_000), Some("2025-11-22 08:26:40")),
            ("datetime", "", text("2025-11-22T08:26:40Z"), Some("2025-11-22 08:26:40")),
            ("datetime", "", text("yesterday"), None),
            ("datetime", "", Integer(i64::MAX), None),
            ("datetime", "", Integer(-1), None),
            ("date", "", Integer(1_763_800_000), Some("2025-11-22")),
            ("date", "", text("2025-11-22"), Some("2025-11-22")),
            ("date", "", text("2025-11-2"), None),
        ] {
            assert_eq!(fitted(data_type, full_type, &value).as_deref(), expected, "{value:?} in {data_type}");
        }
    }

    #[test]
    fn text_that_the_charset_has_not_is_null() {
        assert_eq!(fitted("varchar", "varchar(5)", &ColumnValue::Text("é".to_owned())), Some("é".to_owned()));
        assert_eq!(fitted("varchar", "varchar(5)", &ColumnValue::Text("😀".to_owned())), None);
    }

    #[test]
    fn a_column_that_can_not_serve_is_named() {
        let told = |found: Option<&Described>| {
            let error = checked(Backend::MySql, "mysql://h/d", "mq_data", "receiver", found).expect_err("it can't");
            error.to_string()
        };
        assert!(told(None).contains("ALTER TABLE mq_data ADD COLUMN receiver text"), "{}", told(None));
        let strict = Described { nullable: false, ..described("int", "int(11)", None) };
        assert!(told(Some(&strict)).contains("allowed to be NULL"));
        assert!(told(Some(&described("geometry", "geometry", None))).contains("has the type geometry"));
    }
}
