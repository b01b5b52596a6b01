//! What fits into which column, and which columns can serve.

use ColumnValue::{Boolean, Integer, Json, Null, Real, Text};
use proptest::prelude::*;

use super::*;

const BACKENDS: &[Backend] = &[Backend::MySql, Backend::Postgres];

/// A column as the backend describes it: of this type, of five characters or bytes if it is a text.
fn described(backend: Backend, full_type: &str) -> Described {
    let data_type = full_type.split_once('(').map_or(full_type, |(data_type, _)| data_type);
    let data_type = data_type.strip_suffix(" unsigned").unwrap_or(data_type);
    Described {
        name: "field".to_owned(),
        data_type: data_type.to_owned(),
        full_type: full_type.to_owned(),
        characters: Some(5).filter(|_| data_type.contains("text") || data_type.contains("char")),
        charset: Some(if backend == Backend::MySql { "latin1" } else { "UTF8" }.to_owned()),
        nullable: true,
        filled: true,
        computed: false,
    }
}

fn assert_fits(backends: &[Backend], rows: &[(&str, ColumnValue, Option<&str>)]) {
    for backend in backends {
        for (full_type, value, expected) in rows {
            let column = FieldType::parse(*backend, &described(*backend, full_type)).expect(full_type);
            assert_eq!(column.fit(value).as_deref(), *expected, "{value:?} in {full_type} of {backend:?}");
        }
    }
}

fn told(text: &str) -> ColumnValue {
    Text(text.to_owned())
}

#[test]
fn whole_numbers() {
    assert_fits(
        BACKENDS,
        &[
            ("int(11)", Integer(7), Some("7")),
            ("int(11)", Integer(1 << 40), None),
            ("int(10) unsigned", Integer(4_294_967_295), Some("4294967295")),
            ("int(10) unsigned", Integer(-1), None),
            ("int(11)", told("42"), Some("42")),
            ("int(11)", told("4 2"), None),
            ("int(11)", told("007"), None),
            ("int(11)", told("+7"), None),
            ("int(11)", Real(1.5), None),
            ("int(11)", Real(1e3), Some("1000")),
            ("int(11)", Boolean(true), Some("1")),
            ("int(11)", Null, None),
            ("int(11)", Json("[1]".to_owned()), None),
            ("tinyint(1)", Boolean(false), Some("0")),
            ("tinyint(4)", Integer(128), None),
            ("smallint", Integer(-32_768), Some("-32768")),
            ("mediumint unsigned", Integer(16_777_216), None),
            ("bigint(20)", Integer(i64::MIN), Some("-9223372036854775808")),
            ("bigint(20)", Json("18446744073709551615".to_owned()), None),
            ("bigint unsigned", Json("18446744073709551615".to_owned()), Some("18446744073709551615")),
            ("bigint(20)", Real(1e16), None),
        ],
    );
}

#[test]
fn other_numbers() {
    assert_fits(
        BACKENDS,
        &[
            ("decimal(5,2)", Real(12.5), Some("12.5")),
            ("decimal(5,2)", Integer(999), Some("999")),
            ("decimal(5,2)", Integer(1_000), None),
            ("decimal(5,2)", told("-0.125"), None),
            ("decimal(5,2) unsigned", told("-1"), None),
            ("decimal(4)", Integer(-1_000), Some("-1000")),
            ("numeric", told("0.00000000000000000001"), Some("0.00000000000000000001")),
            ("numeric(3,-2)", Integer(12_300), Some("12300")),
            ("numeric(3,-2)", Integer(12_340), None),
            ("float(5,2)", Real(1.234), None),
            ("double", Real(1.5), Some("1.5")),
            ("double", Real(1e300), Some("1e+300")),
            ("double", told("inf"), None),
            ("double", told("1e-400"), None),
            ("double", told("0e-400"), Some("0e-400")),
            ("double", Boolean(true), None),
            ("double", Integer((1 << 53) + 1), None),
            ("float", Real(0.1), Some("0.1")),
            ("float", Real(1e300), None),
            ("float", Real(1e-300), None),
            ("float", Integer((1 << 24) + 1), None),
            ("float unsigned", Real(-0.5), None),
            ("real", Real(1e300), None),
        ],
    );
}

#[test]
fn texts_booleans_and_json() {
    let object = || Json(r#"{"a":[1]}"#.to_owned());
    assert_fits(
        BACKENDS,
        &[
            ("varchar(5)", told("12345"), Some("12345")),
            ("varchar(5)", told("éèê"), Some("éèê")),
            ("varchar(5)", told("123456"), None),
            ("varchar(5)", Integer(12), Some("12")),
            ("varchar(5)", Real(100.0), Some("100.0")),
            ("varchar(5)", Boolean(true), Some("true")),
            ("varchar(5)", object(), None),
            ("varchar(5)", Null, None),
            ("json", told("a\"b"), Some("\"a\\\"b\"")),
            ("json", object(), Some(r#"{"a":[1]}"#)),
            ("json", Integer(1), Some("1")),
            ("json", Boolean(false), Some("false")),
            ("json", Null, None),
        ],
    );
    assert_fits(
        &[Backend::Postgres],
        &[
            ("text", told("a\0b"), None),
            ("boolean", Boolean(true), Some("true")),
            ("boolean", told("false"), Some("false")),
            ("boolean", Integer(1), None),
            ("jsonb", told("a\0b"), None),
        ],
    );
}

#[test]
fn what_mysql_alone_can_not_hold() {
    let nested = |depth: usize| Json("[".repeat(depth) + "\"[[\\\"[\"" + &"]".repeat(depth));
    let (deep, deeper) = (nested(limits::STORE_JSON_DEPTH), nested(limits::STORE_JSON_DEPTH + 1));
    let Json(text) = &deep else { unreachable!() };
    assert_fits(
        &[Backend::MySql],
        &[
            ("varchar(5)", told("é"), Some("é")),
            ("varchar(5)", told("😀"), None),
            ("tinytext", told("ééééé"), Some("ééééé")),
            ("tinytext", told("123456"), None),
            ("json", deep.clone(), Some(text)),
            ("json", deeper, None),
            ("timestamp", Integer(0), None),
            ("timestamp", Integer(LAST_TIMESTAMP), Some("2038-01-19 03:14:07")),
            ("timestamp", Integer(LAST_TIMESTAMP + 1), None),
        ],
    );
    let unicode = Described { charset: Some("utf8mb4".to_owned()), ..described(Backend::MySql, "tinytext") };
    let field = FieldType::parse(Backend::MySql, &unicode).expect("a type");
    assert_eq!((field.fit(&told("ééé")), field.fit(&told("éé1")).as_deref()), (None, Some("éé1")), "bytes count");
}

#[test]
fn moments_and_days() {
    for full_type in ["datetime", "timestamp without time zone", "timestamp with time zone"] {
        assert_fits(
            BACKENDS,
            &[
                (full_type, Integer(1_763_800_000), Some("2025-11-22 08:26:40")),
                (full_type, Real(1_763_800_000.75), Some("2025-11-22 08:26:40")),
                (full_type, told("2025-11-22T09:26:40.5+01:00"), Some("2025-11-22 08:26:40")),
                (full_type, told("1969-07-20 20:17:40"), Some("1969-07-20 20:17:40")),
                (full_type, told("2026-02-31T00:00:00Z"), None),
                (full_type, told("2026-02-01"), Some("2026-02-01 00:00:00")),
                (full_type, told("2026-02-1"), None),
                (full_type, told("yesterday"), None),
                (full_type, Integer(i64::MAX), None),
                (full_type, Real(1e300), None),
                (full_type, Integer(-1), None),
                (full_type, Boolean(true), None),
            ],
        );
    }
    assert_fits(
        BACKENDS,
        &[
            ("date", Integer(1_763_800_000), Some("2025-11-22")),
            ("date", told("1985-04-12"), Some("1985-04-12")),
            ("date", told("1985-02-30"), None),
            ("date", told("2025-11-22T00:30:00+01:00"), Some("2025-11-21")),
            ("date", Integer(-1), None),
        ],
    );
}

#[test]
fn a_column_that_can_not_serve_is_named() {
    let place = "mysql://h/d";
    let problem = |backend, found: Option<&Described>| {
        checked(backend, place, "mq_data", "receiver", found).expect_err("it can't").to_string()
    };
    for backend in BACKENDS {
        let missing = problem(*backend, None);
        assert!(missing.contains("ALTER TABLE mq_data ADD COLUMN receiver text"), "{missing}");
        let strict = Described { nullable: false, ..described(*backend, "int(11)") };
        let strict = problem(*backend, Some(&strict));
        let change = match backend {
            Backend::MySql => "ALTER TABLE mq_data MODIFY COLUMN receiver int(11) NULL",
            Backend::Postgres => "ALTER TABLE mq_data ALTER COLUMN receiver DROP NOT NULL",
        };
        assert!(strict.contains("allowed to be NULL") && strict.contains(change), "{strict}");
        let computed = Described { computed: true, ..described(*backend, "int(11)") };
        assert!(problem(*backend, Some(&computed)).contains("is computed"));
        for full_type in ["geometry", "enum('a','b')", "uuid", "bytea", "blob", "array", "time", "bit(1)"] {
            let told = problem(*backend, Some(&described(*backend, full_type)));
            assert!(told.contains("has the type"), "{told}");
        }
    }
}

#[test]
fn postgres_casts_cut_nothing() {
    assert_eq!(described(Backend::Postgres, "character(5)").cast(), "bpchar");
    assert_eq!(described(Backend::Postgres, "character varying(5)").cast(), "character varying");
}

/// Whether a text is a decimal number without an exponent, and with no more digits on either side of the point than a number may have. (Sign
/// and point come on top, so that the longest are longer than what is read.)
fn is_written_out(text: &str) -> bool {
    let digits = |text: &str| {
        (1..=limits::STORE_NUMBER_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let text = text.strip_prefix('-').unwrap_or(text);
    text.split_once('.').map_or_else(|| digits(text), |(whole, fraction)| digits(whole) && digits(fraction))
}

#[test]
fn the_longest_fraction_is_written_out() {
    let field = FieldType::parse(Backend::Postgres, &described(Backend::Postgres, "numeric")).expect("a type");
    let behind = limits::STORE_NUMBER_CHARS;
    let least = told(&format!("-1e-{behind}"));
    let fitted = field.fit(&least).expect("it fits");
    assert!(is_written_out(&fitted) && fitted.len() == "-0.".len() + behind, "{fitted}");
    assert_eq!(field.fit(&told(&format!("-1e-{}", behind + 1))), None);
}

proptest! {
    #[test]
    fn no_value_panics_and_none_is_larger_than_its_column(
        whole: i64, real: f64, text in "(?s).{0,9}", number in "-?[0-9]{1,4}[.]?[0-9]{0,4}(e-?[0-9]{1,3})?", truth: bool
    ) {
        let json = serde_json::from_str::<serde_json::Number>(&number).map_or(Null, |_| Json(number.clone()));
        let values = [Integer(whole), Real(real), told(&text), told(&number), json, Boolean(truth), Null];
        for full_type in [
            "tinyint(4)", "bigint unsigned", "decimal(5,2)", "numeric", "float", "double unsigned", "boolean", "varchar(5)", "tinytext",
            "json", "timestamp", "datetime", "date",
        ] {
            for (backend, value) in BACKENDS.iter().flat_map(|backend| values.iter().map(move |value| (backend, value))) {
                let field = FieldType::parse(*backend, &described(*backend, full_type)).expect("a type");
                let Some(fitted) = field.fit(value) else { continue };
                let is_right = match field {
                    FieldType::Integer(least, most) => fitted.parse().is_ok_and(|whole: i128| (least..=most).contains(&whole)),
                    FieldType::Decimal { .. } => is_written_out(&fitted),
                    FieldType::Float { .. } => fitted.parse::<f64>().is_ok_and(f64::is_finite),
                    FieldType::Boolean => fitted == "true" || fitted == "false",
                    FieldType::Text(..) => fitted.chars().count() <= 5,
                    FieldType::Json(..) => serde_json::from_str::<serde_json::Value>(&fitted).is_ok(),
                    FieldType::Moment(..) => fitted.len() == 19,
                    FieldType::Day => fitted.len() == 10,
                };
                prop_assert!(is_right, "{value:?} in {full_type} is {fitted}");
            }
        }
    }
}
