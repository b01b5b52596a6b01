//! User-defined columns (`store.columns`) on an existing table: types, NULL, values that do not fit, and errors at the start.

use serde_json::{Value, json};
use wsmb_store::{Columns, StoreError, StoreSettings};

use crate::servers::{Database, Kind, Server};
use crate::{appends, assert_says, message, open, refusal, texts};

/// Creates a message table with further columns.
fn table(kind: Kind, columns: &str) -> Database {
    let server = Server::shared(kind);
    let database = server.database();
    let own = kind.pick(
        "data_id bigint PRIMARY KEY AUTO_INCREMENT, channel varchar(100), data longtext, created datetime",
        "data_id bigserial PRIMARY KEY, channel text, data text, created timestamp",
    );
    let owner = kind.pick(String::new(), format!("; ALTER TABLE mq_data OWNER TO {}", database.name));
    server.sql_in(Some(&database), &format!("CREATE TABLE mq_data ({own}, {columns}){owner}"));
    database
}

fn with(database: &Database, pairs: &[(&str, &str)]) -> StoreSettings {
    let columns = Columns::parse(pairs.iter().copied()).expect("valid columns");
    StoreSettings { columns, ..database.settings() }
}

#[test]
fn values_of_every_type_are_stored_and_values_that_do_not_fit_are_null() {
    for kind in Kind::all() {
        let types = kind.pick(
            "short varchar(5), whole int, tiny tinyint(1), real_number double, told datetime, on_day date, anything json",
            "short varchar(5), whole int, tiny boolean, real_number double precision, told timestamp, on_day date, anything jsonb",
        );
        let database = table(kind, types);
        let pairs = ["short", "whole", "tiny", "real_number", "told", "on_day", "anything"]
            .map(|name| (name, format!("/{name}")));
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, pointer)| (*name, pointer.as_str())).collect();
        let mut store = open(&with(&database, &pairs));
        let documents = [
            json!({"short": "abc", "whole": 7, "tiny": true, "real_number": 1.5, "told": 1_763_800_000, "on_day": "2025-11-22", "anything": {"a": [1]}}),
            json!({"short": "too long", "whole": 1u64 << 40, "tiny": "maybe", "real_number": "x", "told": "soon", "on_day": -1, "anything": null}),
            json!({"short": 12345, "whole": "42", "tiny": false, "real_number": 3, "told": "2025-11-22T08:26:40Z", "anything": "a\"b"}),
            json!([1, 2]),
            json!("'); DROP TABLE mq_data; --"),
        ];
        let mut sent: Vec<String> = documents.iter().map(ToString::to_string).collect();
        sent.push("no JSON".to_owned());
        let messages = sent.iter().zip(1..).map(|(text, id)| message(id, text)).collect();
        store.commit(&appends(messages)).expect("invalid fields refuse no message");
        assert_eq!(texts(&mut *store, "sms"), sent);
        let query = "SELECT short, whole, tiny, real_number, told, on_day, anything FROM mq_data ORDER BY data_id";
        let rows = Server::shared(kind).sql_in(Some(&database), query);
        let (yes, no) = kind.pick(("1", "0"), ("t", "f"));
        let null = ["NULL"; 7].join("\t");
        let expected = [
            format!(
                "abc\t7\t{yes}\t1.5\t2025-11-22 08:26:40\t2025-11-22\t{}",
                kind.pick(r#"{"a":[1]}"#, r#"{"a": [1]}"#)
            ),
            null.clone(),
            format!("12345\t42\t{no}\t3\t2025-11-22 08:26:40\tNULL\t\"a\\\"b\""),
            null.clone(),
            null.clone(),
            null,
        ];
        assert_eq!(rows.lines().collect::<Vec<_>>(), expected, "{kind:?}");
    }
}

/// The type in MySQL and in PostgreSQL, a value, and the beginning of the stored value in MySQL and in PostgreSQL (`None`: NULL).
type Edge = (&'static str, &'static str, Value, Option<&'static str>, Option<&'static str>);

/// Values at the limits of their types and just beyond. A server that refused a value would refuse the message.
fn edges() -> Vec<Edge> {
    let at = |mysql, postgres, value, shown| (mysql, postgres, value, Some(shown), Some(shown));
    let beyond = |mysql, postgres, value| (mysql, postgres, value, None, None);
    vec![
        at("char(5)", "char(5)", json!("abcde"), "abcde"),
        at("smallint", "smallint", json!(-32_768), "-32768"),
        beyond("smallint", "smallint", json!(32_768)),
        ("bigint unsigned", "bigint", json!(18_446_744_073_709_551_615_u64), Some("18446744073709551615"), None),
        beyond("int", "int", json!("007")),
        at("decimal(5,2)", "numeric(5,2)", json!(-999.99), "-999.99"),
        beyond("decimal(5,2)", "numeric(5,2)", json!(1_000)),
        beyond("decimal(5,2)", "numeric(5,2)", json!(0.125)),
        ("decimal(65,30)", "numeric", json!(format!("0.{}1", "0".repeat(100))), None, Some("0.00000")),
        at("float", "real", json!(0.5), "0.5"),
        beyond("float", "real", json!(1e300)),
        // MySQL stores the nearest number. PostgreSQL refuses the value.
        ("float", "real", json!("1e-300"), Some("0"), None),
        ("double", "double precision", json!("1e-400"), Some("0"), None),
        at("double", "double precision", json!(-1.5e308), "-1.5e"),
        ("timestamp NULL", "timestamptz", json!(0), None, Some("1970-")),
        at("timestamp NULL", "timestamptz", json!(2_147_483_647), "2038-"),
        ("timestamp NULL", "timestamptz", json!("2050-01-01T00:00:00Z"), None, Some("2050-")),
        at("datetime", "timestamp", json!("0001-01-01T00:00:00Z"), "0001-"),
        at("datetime", "timestamp", json!("9999-12-31T23:59:59.999Z"), "9999-"),
        beyond("datetime", "timestamp", json!("2026-02-31T00:00:00Z")),
        at("date", "date", json!("1985-04-12"), "1985-"),
        beyond("date", "date", json!("1985-04-31")),
        ("json", "jsonb", json!({"a": "\0"}), Some("{\"a\":"), None),
        at("json", "jsonb", nested(30), "[[[[["),
        ("json", "json", nested(40), None, Some("[[[[[")),
        ("tinytext CHARACTER SET utf8mb4", "text", json!("é".repeat(128)), None, Some("ééééé")),
        at("tinytext CHARACTER SET utf8mb4", "text", json!("é".repeat(127)), "ééééé"),
        at("tinytext CHARACTER SET latin1", "text", json!("é".repeat(255)), "ééééé"),
        ("varchar(9) CHARACTER SET latin1", "varchar(9)", json!("😀"), None, Some("😀")),
        ("varchar(9) CHARACTER SET utf8mb4", "varchar(9)", json!("a\0b"), Some("a\0b"), None),
    ]
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn no_value_at_the_limit_of_a_type_refuses_a_message() {
    for kind in Kind::all() {
        let edges = edges();
        let types: Vec<String> =
            edges.iter().enumerate().map(|(index, edge)| format!("f{index} {}", kind.pick(edge.0, edge.1))).collect();
        let database = table(kind, &types.join(", "));
        let pairs: Vec<(String, String)> =
            (0..edges.len()).map(|index| (format!("f{index}"), format!("/{index}"))).collect();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, pointer)| (&name[..], &pointer[..])).collect();
        let mut store = open(&with(&database, &pairs));
        let values: Vec<&Value> = edges.iter().map(|edge| &edge.2).collect();
        let sent = json!(values);
        store.commit(&appends(vec![message(1, &sent.to_string())])).expect("invalid fields refuse no message");
        let came = texts(&mut *store, "sms").pop().expect("the message");
        assert_eq!(serde_json::from_str::<Value>(&came).expect("JSON"), sent);
        for ((name, _), edge) in pairs.iter().zip(&edges) {
            let text = kind.pick("char", "text");
            let query = format!("SELECT coalesce(left(cast({name} as {text}), 40), 'none') FROM mq_data");
            let row = Server::shared(kind).sql_in(Some(&database), &query);
            let expected = kind.pick(edge.3, edge.4).unwrap_or("none");
            assert!(row.starts_with(expected), "{kind:?}: {} in {} is {row}", edge.2, kind.pick(edge.0, edge.1));
        }
    }
}

#[test]
fn unusable_columns_are_named_at_the_start() {
    for kind in Kind::all() {
        let database = table(
            kind,
            kind.pick(
                "raw blob, strict varchar(9) NOT NULL DEFAULT 'x', twice varchar(9) AS (channel) VIRTUAL",
                "raw bytea, strict text NOT NULL DEFAULT 'x', twice text GENERATED ALWAYS AS (channel) STORED",
            ),
        );
        for (name, wanted) in [
            ("missing", ["missing in the table mq_data", "does not exist", "ADD COLUMN missing"]),
            ("raw", ["raw in the table mq_data", "has the type", "number"]),
            ("strict", ["strict in the table mq_data", "ALTER TABLE mq_data ", "store.columns"]),
            ("twice", ["twice in the table mq_data", "is computed", "store.columns"]),
        ] {
            let error = refusal(&with(&database, &[(name, "/x")]));
            assert!(matches!(&error, StoreError::Column { column, .. } if column == name), "{error:?}");
            assert_says(&error, &database, &wanted);
        }
        // A foreign column with a default is allowed; a column that needs a value is an error.
        open(&database.settings()).commit(&appends(vec![message(1, "1")])).expect("stored");
        let server = Server::shared(kind);
        server.sql_in(Some(&database), "DELETE FROM mq_data; ALTER TABLE mq_data ADD COLUMN wanted int NOT NULL");
        assert_says(&refusal(&database.settings()), &database, &["wanted", "must have a value", "default"]);
    }
}

#[test]
fn missing_columns_are_added_to_a_table_that_the_broker_created() {
    for kind in Kind::all() {
        let database = Server::shared(kind).database();
        open(&database.settings()).commit(&appends(vec![message(1, r#"{"receiver":"0812"}"#)])).expect("stored");
        let mut store = open(&with(&database, &[("receiver", "/receiver"), ("Order", "/order")]));
        store.commit(&appends(vec![message(2, r#"{"receiver":"0813","order":5}"#)])).expect("stored");
        let query = kind.pick(
            "SELECT receiver, `Order` FROM mq_data ORDER BY data_id",
            "SELECT receiver, \"Order\" FROM mq_data ORDER BY data_id",
        );
        assert_eq!(Server::shared(kind).sql_in(Some(&database), query), "NULL\tNULL\n0813\t5\n");
    }
}

#[test]
fn constraints_of_columns_refuse_no_other_message() {
    for kind in Kind::all() {
        let database = table(kind, "once varchar(9) UNIQUE, small int CHECK (small < 10)");
        let mut store = open(&with(&database, &[("once", "/once"), ("small", "/small")]));
        let sent = [
            json!({"once": "a", "small": 1}),
            json!({"once": "a", "small": 2}),
            json!({"once": "b", "small": 77}),
            json!({"once": "c", "small": 3}),
        ];
        let group = |ids: &[u64]| {
            let at = |id: u64| usize::try_from(id - 1).expect("a short list");
            appends(ids.iter().map(|id| message(*id, &sent[at(*id)].to_string())).collect())
        };
        // The store either omits the fields or names the rows. It must not refuse the whole group again and again.
        let unfit = match store.commit(&group(&[1, 2, 3, 4])) {
            Ok(()) => Vec::new(),
            Err(StoreError::Unfit { ids, .. }) => ids.iter().map(|id| id.0).collect(),
            Err(error) => panic!("{kind:?}: {error:?}"),
        };
        assert!(unfit.iter().all(|id| [2, 3].contains(id)), "{kind:?}: {unfit:?}");
        let others: Vec<u64> = (1..=4).filter(|id| !unfit.contains(id)).collect();
        store.commit(&group(&others)).expect("the others");
        assert_eq!(crate::ids(&mut *store, "sms"), others, "{kind:?}");
    }
}
