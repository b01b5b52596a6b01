//! Tests of the conversion of values for columns.

use super::ColumnValue::{Boolean, Integer, Json, Null, Real, Text};
use super::*;

fn column(data_type: &str, full_type: &str, characters: Option<u64>) -> Described {
    let (data_type, full_type) = (data_type.to_owned(), full_type.to_owned());
    Described { data_type, full_type, characters, nullable: true, ..Described::default() }
}

fn text(text: &str) -> ColumnValue {
    Text(text.to_owned())
}

fn written(form: Form, value: &ColumnValue) -> Option<String> {
    form.write(value).map(Cow::into_owned)
}

#[test]
fn each_type_has_its_form() {
    for (data_type, full_type, expected) in [
        ("tinyint", "tinyint(1)", Some(Form::Number(Some(0)))),
        ("bigint", "bigint(20) unsigned", Some(Form::Number(Some(0)))),
        ("decimal", "decimal(10,2)", Some(Form::Number(Some(2)))),
        ("numeric", "numeric(10,-2)", Some(Form::Number(Some(0)))),
        ("numeric", "numeric", Some(Form::Number(None))),
        ("double", "double(10,3)", Some(Form::Number(Some(3)))),
        ("double precision", "double precision", Some(Form::Float)),
        ("boolean", "boolean", Some(Form::Boolean)),
        ("jsonb", "jsonb", Some(Form::Json)),
        ("date", "date", Some(Form::Day)),
        ("timestamp", "timestamp", Some(Form::Moment)),
        ("blob", "blob", None),
        ("enum", "enum('a','b')", None),
        ("uuid", "uuid", None),
    ] {
        assert_eq!(Form::of(&column(data_type, full_type, None)), expected, "{full_type}");
    }
    assert_eq!(Form::of(&column("varchar", "varchar(9)", Some(9))), Some(Form::Text(Some(9))));
}

#[test]
fn a_value_is_written_as_its_column_takes_it() {
    let object = Json("{\"a\":1}".to_owned());
    for (form, value, expected) in [
        (Form::Text(None), text("a\"b"), Some("a\"b")),
        (Form::Text(None), Integer(7), Some("7")),
        (Form::Text(None), Boolean(true), Some("true")),
        (Form::Text(None), object.clone(), Some("{\"a\":1}")),
        (Form::Json, text("a\"b"), Some("\"a\\\"b\"")),
        (Form::Json, object, Some("{\"a\":1}")),
        (Form::Boolean, Boolean(false), Some("false")),
        (Form::Boolean, text("yes"), None),
        (Form::Number(Some(0)), Boolean(true), Some("1")),
        (Form::Number(Some(0)), text("42"), Some("42")),
        (Form::Number(Some(0)), text("99999999999999999999"), Some("99999999999999999999")),
        (Form::Number(Some(0)), text("007"), None),
        (Form::Number(Some(0)), text("+49 30"), None),
        (Form::Number(Some(0)), text(" 7"), None),
        (Form::Float, Real(-0.5), Some("-0.5")),
        (Form::Float, text("x"), None),
        (Form::Moment, Integer(1_763_800_000), Some("2025-11-22 08:26:40")),
        (Form::Moment, Integer(-1), None),
        (Form::Moment, Real(1.9), Some("1970-01-01 00:00:01")),
        (Form::Moment, text("2025-11-22T09:26:40+01:00"), Some("2025-11-22 08:26:40")),
        (Form::Moment, text("2025-11-22"), Some("2025-11-22 00:00:00")),
        (Form::Moment, text("now"), None),
        (Form::Day, text("2025-11-22T00:30:00+01:00"), Some("2025-11-21")),
    ] {
        assert_eq!(written(form, &value).as_deref(), expected, "{value:?} as {form:?}");
        assert_eq!(written(form, &Null), None);
    }
}

#[test]
fn what_a_server_would_round_or_cut_is_withheld() {
    for (scale, value, expected) in [
        (Some(2), Real(0.12), Some("0.12")),
        (Some(2), Real(0.125), None),
        (Some(2), text("7.100"), Some("7.100")),
        (Some(2), text("1e-3"), None),
        (Some(0), Real(3.0), Some("3")),
        (Some(0), Real(1.5), None),
        (Some(0), text("1.5"), None),
        (None, text("1e-3"), Some("1e-3")),
        (None, Real(9_007_199_254_740_992.0), None),
        (None, Json("18446744073709551615".to_owned()), Some("18446744073709551615")),
    ] {
        assert_eq!(written(Form::Number(scale), &value).as_deref(), expected, "{value:?} with {scale:?}");
    }
    for (value, is_cut) in [("abcd ", true), ("abc ", false), ("abcdef", false)] {
        assert_eq!(super::is_cut(value, Some(4)), is_cut, "{value:?}");
        assert_eq!(written(Form::Text(Some(4)), &text(value)).is_none(), is_cut, "{value:?}");
    }
    assert!(!super::is_cut("abcd ", None));
}
