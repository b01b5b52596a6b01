//! What the errors of database servers mean to people.

use std::io::ErrorKind;

use sqlx::Error;
use sqlx::error::DatabaseError;

use super::super::{Backend, StoreError};

/// What is to be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// The same again: the server has undone the transaction to end a quarrel.
    Again,
    /// A new connection.
    Reconnect,
    /// Nothing; the connection is as good as before.
    None,
}

/// The server's own code, as text: a number of MySQL's, a SQLSTATE of PostgreSQL's.
pub(super) fn code(backend: Backend, error: &Error) -> Option<String> {
    let error = error.as_database_error()?;
    match backend {
        #[cfg(feature = "mysql")]
        Backend::MySql => mysql_number(error).map(|number| number.to_string()),
        _ => error.code().map(|code| code.into_owned()),
    }
}

#[cfg(feature = "mysql")]
fn mysql_number(error: &dyn DatabaseError) -> Option<u16> {
    error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(sqlx::mysql::MySqlDatabaseError::number)
}

/// Whether a row of this id is there already.
pub(super) fn is_collision(error: &Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}

/// Whether a value is what the server does not like.
pub(super) fn is_about_a_value(backend: Backend, error: &Error) -> bool {
    code(backend, error).is_some_and(|code| quotes_values(backend, &code))
}

/// What to do about an error.
pub(super) fn cure(backend: Backend, error: &Error) -> Cure {
    let Some(code) = code(backend, error) else {
        return Cure::Reconnect;
    };
    match (backend, code.as_str()) {
        // Deadlock, lock wait.
        (Backend::MySql, "1213" | "1205") | (Backend::Postgres, "40P01" | "40001" | "55P03") => Cure::Again,
        // The server or an administrator is ending the connection; a prepared statement does not fit the table any more.
        (
            Backend::MySql,
            "1053" | "1077" | "1078" | "1079" | "1080" | "1152" | "1159" | "1161" | "1184" | "1927" | "4031",
        ) => Cure::Reconnect,
        (Backend::Postgres, code) if code.starts_with("57P") || code.starts_with("08") || code.starts_with("25P") => {
            Cure::Reconnect
        }
        (Backend::MySql, "1615") | (Backend::Postgres, "0A000" | "26000") => Cure::Reconnect,
        _ => Cure::None,
    }
}

/// What an error means.
pub(super) fn classify(backend: Backend, place: &str, error: &Error) -> StoreError {
    let place = place.to_owned();
    let Some(code) = code(backend, error) else {
        let detail = told(error);
        return match error {
            Error::Configuration(_) => StoreError::BadUrl { reason: format!("can't be used ({detail})") },
            Error::Tls(_) => StoreError::Denied { place, detail: format!("no encrypted connection: {detail}") },
            Error::Io(cause) if cause.kind() == ErrorKind::InvalidData => {
                StoreError::Denied { place, detail: format!("no encrypted connection: {detail}") }
            }
            Error::ColumnDecode { .. } | Error::Decode(_) => StoreError::Damaged { place, detail },
            _ => StoreError::Unreachable { place, detail },
        };
    };
    let detail = if quotes_values(backend, &code) {
        format!("a value does not fit its column, code {code}")
    } else {
        told(error)
    };
    match (backend, code.as_str()) {
        (Backend::MySql, "1213" | "1205") | (Backend::Postgres, "40P01" | "40001" | "55P03") => {
            StoreError::Busy { place }
        }
        (Backend::MySql, "1290" | "1792" | "1836") | (Backend::Postgres, "25006") => StoreError::ReadOnly { place },
        (Backend::MySql, "1021" | "1114" | "3") | (Backend::Postgres, "53100" | "53200") => StoreError::Full { place },
        (Backend::MySql, "1044" | "1045" | "1049" | "1130" | "1141" | "1142" | "1143" | "1227" | "1251" | "1698") => {
            StoreError::Denied { place, detail }
        }
        (Backend::Postgres, "28P01" | "28000" | "3D000" | "42501") => StoreError::Denied { place, detail },
        // A table that its user may not see is as good as none, until it is to be made.
        (Backend::MySql, "1050") | (Backend::Postgres, "42P07") => {
            StoreError::Denied { place, detail: format!("access denied: {detail}, but this user has no rights on it") }
        }
        (Backend::MySql, "126" | "127" | "144" | "145" | "1034" | "1194" | "1195") => {
            StoreError::Damaged { place, detail }
        }
        (Backend::Postgres, code) if code.starts_with("XX") => StoreError::Damaged { place, detail },
        // Too many connections, shutting down, killed.
        (Backend::MySql, "1040" | "1203" | "1226" | "1053" | "1077" | "1079" | "1317" | "1927" | "4031") => {
            StoreError::Unreachable { place, detail }
        }
        (Backend::Postgres, code) if code.starts_with("53") || code.starts_with("57") || code.starts_with("08") => {
            StoreError::Unreachable { place, detail }
        }
        _ => StoreError::Unavailable { place, detail },
    }
}

/// Whether the server's words for this error hold a part of a message, which belongs into no log.
fn quotes_values(backend: Backend, code: &str) -> bool {
    match backend {
        Backend::MySql => {
            matches!(
                code,
                "1062" | "1264" | "1265" | "1292" | "1300" | "1366" | "1406" | "1411" | "3140" | "3988" | "4025"
            )
        }
        Backend::Postgres => code.starts_with("22") || code.starts_with("23"),
    }
}

/// The server's own words.
fn told(error: &Error) -> String {
    match error {
        Error::Database(error) => error.message().chars().take(200).collect(),
        Error::Io(error) => error.to_string(),
        other => other.to_string().chars().take(200).collect(),
    }
}
