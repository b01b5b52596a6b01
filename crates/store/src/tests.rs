//! Unit tests that concern stores of every kind.

use std::path::PathBuf;

use super::*;
use crate::settings::Location;
use wsmb_core::broker::StoreFailure;

#[test]
fn urls_name_a_place_or_say_why_not() {
    for (url, expected) in [
        ("sqlite:a/b.db", Location::Sqlite(PathBuf::from("a/b.db"))),
        ("sqlite:/a/b.db", Location::Sqlite(PathBuf::from("/a/b.db"))),
        ("sqlite:///a/b.db", Location::Sqlite(PathBuf::from("/a/b.db"))),
        ("SQLite:b.db", Location::Sqlite(PathBuf::from("b.db"))),
        ("memory:", Location::Memory),
        ("memory://", Location::Memory),
        ("mysql://u@h/d", Location::Server(Backend::MySql)),
        ("mariadb://u@h/d", Location::Server(Backend::MySql)),
        ("postgres://u@h/d", Location::Server(Backend::Postgres)),
        ("postgresql://u@h/d", Location::Server(Backend::Postgres)),
    ] {
        assert_eq!(Location::parse(url), Ok(expected), "{url}");
    }
    for (url, part) in [
        ("", "has no scheme"),
        ("wsmb.db", "has no scheme"),
        ("sqlite:", "names no file"),
        ("sqlite::memory:", "names no file"),
        ("memory:x", "takes nothing"),
        ("redis://u:secret@h/d", "does not know"),
    ] {
        let text = Location::parse(url).expect_err(url).to_string();
        assert!(text.contains(part), "{url}: {text}");
        assert!(!text.contains("secret"), "a password in {text}");
    }
}

#[test]
fn a_prefix_that_could_break_out_of_a_name_is_refused() {
    let long = "x".repeat(limits::STORE_PREFIX_CHARS + 1);
    for prefix in ["a\"b", "a b", "a-b", "é", "a;", "sqlite_", "SQLITE_x", long.as_str()] {
        assert!(matches!(Prefix::parse(prefix), Err(StoreError::BadPrefix { .. })), "{prefix}");
    }
    for prefix in ["", "mq_", "1", &long[1..]] {
        assert!(Prefix::parse(prefix).is_ok(), "{prefix}");
    }
}

#[test]
fn every_error_names_the_place_and_what_to_do() {
    let place = "/var/lib/wsmb.db".to_owned();
    let detail = "disk I/O error".to_owned();
    let errors = [
        StoreError::Missing { place: place.clone() },
        StoreError::Locked { place: place.clone(), holder: Some("process 7".to_owned()) },
        StoreError::Newer { place: place.clone(), found: 2, known: 1 },
        StoreError::Schema { place: place.clone(), table: "mq_data".to_owned(), column: "data" },
        StoreError::Full { place: place.clone() },
        StoreError::OverBudget { place: place.clone() },
        StoreError::Busy { place: place.clone() },
        StoreError::ReadOnly { place: place.clone() },
        StoreError::Damaged { place: place.clone(), detail: detail.clone() },
        StoreError::System { place: place.clone(), doing: "written", errno: 5 },
        StoreError::TornJournal { place: place.clone(), readable: 1, committed: 2 },
        StoreError::Unavailable { place: place.clone(), detail },
        StoreError::Served { place: place.clone(), holder: None },
        StoreError::Journal { place: place.clone(), database: "mysql://u@h/d".to_owned() },
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.contains(&place) && text.contains("; "), "{text}");
        assert_eq!(error.kind() == StoreFailure::Full, matches!(error, StoreError::OverBudget { .. }));
    }
}
