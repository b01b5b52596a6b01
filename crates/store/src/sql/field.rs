//! User-defined columns: converts a value of a message for the type of a column.
//!
//! The database server decides whether a value fits: its strict mode refuses a value that is too long, out of range or of another kind, and
//! [`super::write`] then writes NULL into the column. This file withholds only values that a server would change without an error: digits that it
//! would round away, blanks that it would cut.

use std::borrow::Cow;

use super::super::{Backend, ColumnValue, StoreError};
use super::iso;

/// Reals from here on are whole, and have more digits than a JSON parser keeps.
const INEXACT: f64 = 9_007_199_254_740_992.0;

/// The form in which values are written to a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Text of at most this many characters.
    Text(Option<u64>),
    /// An exact number with at most this many digits after the decimal point.
    Number(Option<u64>),
    /// A number; the column holds the nearest number of its type.
    Float,
    /// `true` or `false`.
    Boolean,
    /// JSON.
    Json,
    /// A date and time in UTC, to the second.
    Moment,
    /// A date in UTC.
    Day,
}

/// The database's description of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) name: String,
    /// `information_schema.columns.data_type`, in lower case; `json` for a MariaDB column that checks its text for valid JSON.
    pub(super) data_type: String,
    /// The type with its parameters: `decimal(10,2) unsigned`.
    pub(super) full_type: String,
    pub(super) characters: Option<u64>,
    pub(super) charset: Option<String>,
    pub(super) nullable: bool,
    /// The column has a default.
    pub(super) filled: bool,
    /// The database computes the value; no statement may set it.
    pub(super) computed: bool,
}

impl Described {
    /// Digits after the decimal point: the second number in the parentheses of the type. A negative number, which PostgreSQL allows, counts as none.
    fn scale(&self) -> Option<u64> {
        let (_, rest) = self.full_type.split_once('(')?;
        let (inner, _) = rest.split_once(')')?;
        Some(inner.split_once(',').and_then(|(_, scale)| scale.trim().parse().ok()).unwrap_or(0))
    }

    /// The type to which PostgreSQL casts a text for this column.
    pub(super) fn cast(&self) -> String {
        // Without a length, the SQL type `character` is one character, and casts cut.
        if self.data_type == "character" { "bpchar".to_owned() } else { self.data_type.clone() }
    }
}

impl Form {
    /// Returns the form for a column; `None` for a type that no value of a message can have.
    pub(super) fn of(column: &Described) -> Option<Self> {
        Some(match column.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" => Self::Number(Some(0)),
            "decimal" | "numeric" => Self::Number(column.scale()),
            // MySQL rounds values of columns that are declared with digits.
            "float" | "double" if column.full_type.contains(',') => Self::Number(column.scale()),
            "float" | "double" | "real" | "double precision" => Self::Float,
            "boolean" => Self::Boolean,
            "char" | "varchar" | "character varying" | "character" | "tinytext" | "text" | "mediumtext"
            | "longtext" => Self::Text(column.characters),
            "json" | "jsonb" => Self::Json,
            "datetime" | "timestamp" | "timestamp without time zone" | "timestamp with time zone" => Self::Moment,
            "date" => Self::Day,
            _ => return None,
        })
    }

    /// Returns the text that is sent for the value; `None` for no value, and for a value that the server would change without an error.
    pub(super) fn write(self, value: &ColumnValue) -> Option<Cow<'_, str>> {
        match (self, value) {
            (_, ColumnValue::Null) => None,
            (Self::Text(most), _) => Some(plain(value)).filter(|text| !is_cut(text, most)),
            // `007` is not written as a number: a numeric column could not return it.
            (Self::Float | Self::Number(_), ColumnValue::Text(text)) if !is_number(text) => None,
            (Self::Float, _) => Some(plain(value)),
            (Self::Number(_), ColumnValue::Boolean(truth)) => Some(Cow::Borrowed(if *truth { "1" } else { "0" })),
            (Self::Number(_), ColumnValue::Real(real)) if real.abs() >= INEXACT => None,
            (Self::Number(scale), _) => Some(plain(value))
                .map(|text| text.strip_suffix(".0").map(str::to_owned).map_or(text, Cow::Owned))
                .filter(|text| scale.is_none_or(|scale| has_scale(text, scale))),
            (Self::Boolean, _) => Some(plain(value)).filter(|text| matches!(&**text, "true" | "false")),
            (Self::Json, ColumnValue::Text(text)) => Some(serde_json::Value::from(text.as_str()).to_string().into()),
            (Self::Json, _) => Some(plain(value)),
            (Self::Moment, _) => moment(value).and_then(iso::seconds_to_text).map(Cow::Owned),
            (Self::Day, _) => Some(Cow::Owned(iso::seconds_to_text(moment(value)?)?.get(..10)?.to_owned())),
        }
    }
}

/// A text as it is, any other value as JSON.
fn plain(value: &ColumnValue) -> Cow<'_, str> {
    match value {
        ColumnValue::Text(text) | ColumnValue::Json(text) => Cow::Borrowed(text),
        ColumnValue::Null => Cow::Borrowed("null"),
        ColumnValue::Boolean(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
        ColumnValue::Integer(whole) => Cow::Owned(whole.to_string()),
        ColumnValue::Real(real) => Cow::Owned(serde_json::Value::from(*real).to_string()),
    }
}

/// Whether a text is a number in JSON.
fn is_number(text: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(text).is_ok_and(|_| !text.contains(char::is_whitespace))
}

/// Whether a number has at most `scale` digits after the decimal point. False for a number with an exponent, which is written only to columns without
/// a bound.
fn has_scale(number: &str, scale: u64) -> bool {
    let (_, behind) = number.split_once('.').unwrap_or((number, ""));
    !number.contains(['e', 'E']) && behind.trim_end_matches('0').len() as u64 <= scale
}

/// Whether a column of `most` characters would lose blanks at the end of a text: every server cuts those without an error.
pub(super) fn is_cut(text: &str, most: Option<u64>) -> bool {
    text.ends_with(' ') && most.is_some_and(|most| text.chars().count() as u64 > most)
}

/// Seconds since 1970, or a date and a time.
fn moment(value: &ColumnValue) -> Option<i64> {
    match value {
        ColumnValue::Integer(seconds) => Some(*seconds).filter(|seconds| *seconds >= 0),
        // Fractions of a second are dropped. A number out of range becomes the largest number, which is no valid date.
        ColumnValue::Real(seconds) => Some(*seconds as i64).filter(|_| *seconds >= 0.0),
        // A day begins with its first second.
        ColumnValue::Text(text) if iso::is_date(text) => iso::seconds_from_iso(&format!("{text}T00:00")),
        ColumnValue::Text(text) => iso::seconds_from_iso(text),
        _ => None,
    }
}

/// Returns the form for a configured column, or the reason why the column cannot be used.
///
/// # Errors
/// [`StoreError::Column`]
pub(super) fn checked(
    backend: Backend,
    place: &str,
    table: &str,
    name: &str,
    found: Option<&Described>,
) -> Result<Form, StoreError> {
    let error = |problem: String| {
        let (place, table, column) = (place.to_owned(), table.to_owned(), name.to_owned());
        StoreError::Column { place, table, column, problem }
    };
    let Some(found) = found else {
        return Err(error(format!(
            "does not exist; create it, for example with: ALTER TABLE {table} ADD COLUMN {name} text; or remove it from store.columns"
        )));
    };
    if found.computed {
        let problem = "is computed by the database, and can't be given a value; name another column in store.columns";
        return Err(error(problem.to_owned()));
    }
    let Some(form) = Form::of(found) else {
        return Err(error(format!(
            "has the type {}, which no field of a message can have; give it a text, number, boolean, JSON or time type",
            found.data_type
        )));
    };
    if !found.nullable {
        let change = match backend {
            Backend::MySql => format!("MODIFY COLUMN {name} {} NULL", found.full_type),
            Backend::Postgres => format!("ALTER COLUMN {name} DROP NOT NULL"),
        };
        return Err(error(format!(
            "must be allowed to be NULL, because a message may have no such field; change it, for example with: ALTER TABLE {table} {change}; \
             or remove it from store.columns"
        )));
    }
    Ok(form)
}

#[cfg(test)]
mod tests;
