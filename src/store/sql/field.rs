//! User-defined columns: what type the table gives them, and which values fit.
//!
//! A field holds the whole value or nothing: what does not fit is NULL, and the message is stored all the same. So no value may ever get as far as a
//! server that refuses it, because the fields of its whole group would go with it.

use std::borrow::Cow;

use super::super::{Backend, ColumnValue, StoreError};
use super::iso;
use super::number::Exact;
use super::text::Charset;
use crate::limits;

/// From here on a JSON reader's digits of a number that is not whole, or too large, need not be those that were sent.
const INEXACT: f64 = 9_007_199_254_740_992.0;

/// The last second of MySQL's `timestamp`; its first is 1.
const LAST_TIMESTAMP: i64 = 2_147_483_647;

/// What a column takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FieldType {
    /// Whole numbers from the first to the last.
    Integer(i128, i128),
    /// Exact numbers.
    Decimal {
        /// Digits before the point.
        before: i64,
        /// Digits behind it.
        behind: i64,
        /// Negative ones, too.
        signed: bool,
    },
    /// Any number, but whole ones only if they stay what they are.
    Float {
        /// Of four bytes.
        single: bool,
        /// Negative ones, too.
        signed: bool,
    },
    /// True or false.
    Boolean,
    /// Text.
    Text(Length, Charset),
    /// JSON.
    Json(Backend, Charset),
    /// A moment, to the second, from the first to the last.
    Moment(i64, i64),
    /// A day.
    Day,
}

/// How long a text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Any,
    Characters(u64),
    /// In the column's character set.
    Bytes(u64),
}

/// A column as the database describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) name: String,
    /// `information_schema.columns.data_type`, in lower case; `json` where MariaDB only checks that a text is.
    pub(super) data_type: String,
    /// With everything that belongs to the type: `decimal(10,2) unsigned`.
    pub(super) full_type: String,
    pub(super) characters: Option<u64>,
    pub(super) charset: Option<String>,
    pub(super) nullable: bool,
    /// Filled by the database if nothing is given.
    pub(super) filled: bool,
    /// Always filled by the database, and by nobody else.
    pub(super) computed: bool,
}

impl Described {
    fn is_signed(&self) -> bool {
        // MySQL's zerofill is always unsigned, and says so.
        !self.full_type.contains("unsigned")
    }

    /// The numbers in the parentheses of the type.
    fn digits(&self) -> Option<(i64, i64)> {
        let (_, rest) = self.full_type.split_once('(')?;
        let (inner, _) = rest.split_once(')')?;
        let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
        Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))
    }

    /// To what PostgreSQL casts a text for this column.
    pub(super) fn cast(&self) -> String {
        // Without a length the standard's `character` is one character, and casts cut.
        if self.data_type == "character" { "bpchar".to_owned() } else { self.data_type.clone() }
    }
}

impl FieldType {
    /// `None` for a type that no value of a message can have.
    pub(super) fn parse(backend: Backend, column: &Described) -> Option<Self> {
        let charset = Charset::of(backend, column.charset.as_deref());
        let signed = column.is_signed();
        let integer = |bits: u32| {
            if signed {
                Self::Integer(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
            } else {
                Self::Integer(0, (1 << bits) - 1)
            }
        };
        let decimal = |digits: Option<(i64, i64)>| {
            let most = i64::try_from(limits::STORE_NUMBER_CHARS).unwrap_or(i64::MAX);
            let (before, behind) = digits.map_or((most, most), |(precision, scale)| (precision - scale, scale));
            Self::Decimal { before, behind, signed }
        };
        Some(match column.data_type.as_str() {
            "tinyint" => integer(8),
            "smallint" => integer(16),
            "mediumint" => integer(24),
            "int" | "integer" => integer(32),
            "bigint" => integer(64),
            "decimal" | "numeric" => decimal(column.digits()),
            // MySQL rounds what is declared with digits.
            "float" | "double" if column.full_type.contains(',') => decimal(column.digits()),
            "float" | "real" => Self::Float { single: true, signed },
            "double" | "double precision" => Self::Float { single: false, signed },
            "boolean" => Self::Boolean,
            "char" | "varchar" | "character varying" | "character" => {
                Self::Text(column.characters.map_or(Length::Any, Length::Characters), charset)
            }
            "tinytext" | "text" | "mediumtext" | "longtext" => {
                Self::Text(column.characters.map_or(Length::Any, Length::Bytes), charset)
            }
            "json" | "jsonb" => Self::Json(backend, charset),
            "timestamp" => Self::Moment(1, LAST_TIMESTAMP),
            "datetime" | "timestamp without time zone" | "timestamp with time zone" => {
                Self::Moment(iso::FIRST, iso::LAST)
            }
            "date" => Self::Day,
            _ => return None,
        })
    }

    /// The value as the text that the column takes; `None` if it does not fit.
    pub(super) fn fit(self, value: &ColumnValue) -> Option<Cow<'_, str>> {
        match self {
            Self::Integer(least, most) => {
                let whole = match value {
                    ColumnValue::Boolean(truth) => i128::from(*truth),
                    _ => exact(value)?.whole()?,
                };
                (least..=most).contains(&whole).then(|| Cow::Owned(whole.to_string()))
            }
            Self::Decimal { before, behind, signed } => {
                let number = exact(value)?;
                let fits = number.fits(before, behind) && (signed || !number.is_negative());
                fits.then(|| Cow::Owned(number.plain()))
            }
            Self::Float { single, signed } => float(value, single, signed),
            Self::Boolean => match value {
                ColumnValue::Boolean(_) => written(value),
                ColumnValue::Text(text) => matches!(text.as_str(), "true" | "false").then_some(Cow::Borrowed(text)),
                _ => None,
            },
            Self::Text(length, charset) => {
                let text = written(value)?;
                let fits = match length {
                    Length::Any => true,
                    Length::Characters(most) => text.chars().count() as u64 <= most,
                    Length::Bytes(most) => charset.bytes(&text) <= most,
                };
                (fits && charset.holds(&text)).then_some(text)
            }
            Self::Json(backend, charset) => json(value, backend).filter(|text| charset.holds(text)),
            Self::Moment(first, last) => moment(value)
                .filter(|second| (first..=last).contains(second))
                .and_then(iso::seconds_to_text)
                .map(Cow::Owned),
            Self::Day => Some(Cow::Owned(iso::seconds_to_text(moment(value)?)?.get(..10)?.to_owned())),
        }
    }
}

/// A text as it is, everything else as JSON; `None` for nothing.
fn written(value: &ColumnValue) -> Option<Cow<'_, str>> {
    match value {
        ColumnValue::Null => None,
        ColumnValue::Boolean(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        ColumnValue::Integer(whole) => Some(Cow::Owned(whole.to_string())),
        ColumnValue::Real(real) => serde_json::Number::from_f64(*real).map(|number| Cow::Owned(number.to_string())),
        ColumnValue::Text(text) | ColumnValue::Json(text) => Some(Cow::Borrowed(text)),
    }
}

/// A number, or a text that is that number exactly.
fn exact(value: &ColumnValue) -> Option<Exact> {
    match value {
        ColumnValue::Boolean(_) => None,
        ColumnValue::Real(real) if real.abs() >= INEXACT => None,
        _ => Exact::parse(&written(value)?),
    }
}

fn float(value: &ColumnValue, single: bool, signed: bool) -> Option<Cow<'_, str>> {
    if matches!(value, ColumnValue::Boolean(_)) {
        return None;
    }
    let text = written(value)?;
    let number = Exact::parse(&text)?;
    let nearest = if single { f64::from(text.parse::<f32>().ok()?) } else { text.parse::<f64>().ok()? };
    // Servers refuse what becomes infinite, and some of them what becomes nothing.
    let in_range = nearest.is_finite() && (nearest != 0.0 || number.is_zero()) && (signed || !number.is_negative());
    let stays = match (value, number.whole()) {
        (ColumnValue::Real(_), _) | (_, None) => true,
        // In both, 128 bits have room for every whole number that was read.
        (_, Some(whole)) => nearest as i128 == whole,
    };
    (in_range && stays).then_some(text)
}

fn json(value: &ColumnValue, backend: Backend) -> Option<Cow<'_, str>> {
    let text = match value {
        ColumnValue::Text(text) => Cow::Owned(serde_json::Value::from(text.as_str()).to_string()),
        _ => written(value)?,
    };
    let fits = match backend {
        Backend::MySql => depth(&text) <= limits::STORE_JSON_DEPTH,
        // PostgreSQL's jsonb has no NUL character. A backslash before the escape makes it something else, which is left out, too.
        Backend::Postgres => !text.contains("\\u0000"),
    };
    fits.then_some(text)
}

/// How deep JSON is nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Seconds since 1970, or a date and a time.
fn moment(value: &ColumnValue) -> Option<i64> {
    match value {
        ColumnValue::Integer(seconds) => Some(*seconds).filter(|seconds| *seconds >= 0),
        // A part of a second is dropped. The range is checked by whoever asks, and what is out of it becomes the last number of all.
        ColumnValue::Real(seconds) => Some(*seconds as i64).filter(|_| *seconds >= 0.0),
        // A day begins with its first second.
        ColumnValue::Text(text) if iso::is_date(text) => iso::seconds_from_iso(&format!("{text}T00:00")),
        ColumnValue::Text(text) => iso::seconds_from_iso(text),
        _ => None,
    }
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
            "is not there; make it, for example with: ALTER TABLE {table} ADD COLUMN {name} text; or remove it from store.columns"
        )));
    };
    if found.computed {
        let problem = "is computed by the database, and can't be given a value; name another column in store.columns";
        return Err(error(problem.to_owned()));
    }
    let Some(field) = FieldType::parse(backend, found) else {
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
    Ok(field)
}

#[cfg(test)]
mod tests;
