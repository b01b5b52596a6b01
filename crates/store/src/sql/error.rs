//! Translates the errors of database servers.

use std::io::ErrorKind;

use sqlx::Error;
use sqlx::error::DatabaseError;

use super::super::{Backend, StoreError};

/// The reaction to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Retry: the server has rolled the transaction back because of a conflict with another session.
    Retry,
    /// Reconnect and retry.
    Reconnect,
    /// No retry; the connection is still usable.
    None,
}

/// The server's error code, as text: a number for MySQL, a SQLSTATE for PostgreSQL.
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

/// Whether a row with this id already exists.
pub(super) fn is_collision(error: &Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}

/// Returns the reaction to an error.
pub(super) fn recovery(backend: Backend, error: &Error) -> Recovery {
    // Errors without a server's code are errors of the connection.
    code(backend, error).map_or(Recovery::Reconnect, |code| recovery_of(backend, &code))
}

fn recovery_of(backend: Backend, code: &str) -> Recovery {
    match (backend, code) {
        // Deadlock, lock wait.
        (Backend::MySql, "1213" | "1205") | (Backend::Postgres, "40P01" | "40001" | "55P03") => Recovery::Retry,
        // The server or an administrator ends the connection; or the table has changed, and a new connection reads it again.
        (
            Backend::MySql,
            "1053" | "1054" | "1077" | "1078" | "1079" | "1080" | "1146" | "1152" | "1153" | "1159" | "1161" | "1176"
            | "1184" | "1615" | "1927" | "4031",
        )
        | (Backend::Postgres, "0A000" | "26000" | "42703" | "42P01") => Recovery::Reconnect,
        (Backend::Postgres, code) if code.starts_with("57P") || code.starts_with("08") || code.starts_with("25P") => {
            Recovery::Reconnect
        }
        _ => Recovery::None,
    }
}

/// Translates an error.
pub(super) fn classify(backend: Backend, place: &str, error: &Error) -> StoreError {
    if let Some(code) = code(backend, error) {
        return meaning(backend, place, &code, server_message(error));
    }
    let (place, detail) = (place.to_owned(), server_message(error));
    match error {
        Error::Configuration(_) => StoreError::BadUrl { reason: format!("can't be used ({detail})") },
        Error::Tls(_) => StoreError::Denied { place, detail: format!("no encrypted connection: {detail}") },
        Error::Io(cause) if cause.kind() == ErrorKind::InvalidData => {
            StoreError::Denied { place, detail: format!("no encrypted connection: {detail}") }
        }
        Error::ColumnDecode { .. } | Error::Decode(_) => StoreError::Damaged { place, detail },
        _ => StoreError::Unreachable { place, detail },
    }
}

/// Translates a server's code; `message` is the server's message.
fn meaning(backend: Backend, place: &str, code: &str, message: String) -> StoreError {
    let place = place.to_owned();
    // The server's message for such an error quotes a part of the message, which must not be logged.
    let detail = refusal_of(backend, code).map_or(message, |why| format!("its rows {why}"));
    match (backend, code) {
        (Backend::MySql, "1213" | "1205") | (Backend::Postgres, "40P01" | "40001" | "55P03") => {
            StoreError::Busy { place }
        }
        (Backend::MySql, "1290" | "1792" | "1836") | (Backend::Postgres, "25006") => StoreError::ReadOnly { place },
        (Backend::MySql, "1021" | "1114" | "3") | (Backend::Postgres, "53100" | "53200") => StoreError::Full { place },
        (Backend::MySql, "1044" | "1045" | "1049" | "1130" | "1141" | "1142" | "1143" | "1227" | "1251" | "1698")
        | (Backend::Postgres, "28P01" | "28000" | "3D000" | "42501") => StoreError::Denied { place, detail },
        // A table that the user may not see looks missing, until the broker tries to create it.
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

/// The reason why the table refuses a row, if the row's values are the reason: other rows may be accepted.
pub(super) fn refusal(backend: Backend, error: &Error) -> Option<String> {
    code(backend, error).and_then(|code| refusal_of(backend, &code))
}

fn refusal_of(backend: Backend, code: &str) -> Option<String> {
    let why = match (backend, code) {
        (Backend::MySql, "1118" | "1406") | (Backend::Postgres, "22001" | "54000") => "are too long for a column",
        (Backend::MySql, "1300" | "1366" | "3988") | (Backend::Postgres, "22P05" | "22021") => {
            "have characters that a column can't hold"
        }
        (Backend::MySql, "1264" | "1265" | "1292" | "1367" | "1411" | "1690" | "3140" | "3157") => {
            "have a value that a column can't hold"
        }
        (Backend::MySql, "1048" | "1062" | "1216" | "1452" | "1644" | "3819" | "4025") => {
            "violate a constraint of the table"
        }
        (Backend::Postgres, "P0001") => "violate a constraint of the table",
        (Backend::Postgres, code) if code.starts_with("23") || code.starts_with("44") => {
            "violate a constraint of the table"
        }
        (Backend::Postgres, code) if code.starts_with("22") => "have a value that a column can't hold",
        _ => return None,
    };
    Some(format!("{why} (code {code})"))
}

/// The server's message, at most 200 characters.
fn server_message(error: &Error) -> String {
    match error {
        Error::Database(error) => error.message().chars().take(200).collect(),
        Error::Io(error) => error.to_string(),
        other => other.to_string().chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_by_what_helps() {
        use Backend::{MySql, Postgres};
        let kind = |backend, code: &str| {
            let error = format!("{:?}", meaning(backend, "mysql://u@h/d", code, "words".to_owned()));
            error.split([' ', '{']).next().unwrap_or_default().to_owned()
        };
        for (backend, codes, expected) in [
            (MySql, "1213 1205", "Busy"),
            (Postgres, "40P01 40001 55P03", "Busy"),
            (MySql, "1290 1792 1836", "ReadOnly"),
            (Postgres, "25006", "ReadOnly"),
            (MySql, "1021 1114", "Full"),
            (Postgres, "53100", "Full"),
            (MySql, "1044 1045 1049 1142 1143", "Denied"),
            (Postgres, "28P01 28000 3D000 42501", "Denied"),
            (MySql, "1040 1053 1317 1927", "Unreachable"),
            (Postgres, "53300 57P01 57P03 57014 08006", "Unreachable"),
            (MySql, "145 1194", "Damaged"),
            (Postgres, "XX001", "Damaged"),
            (MySql, "1064 1146 1406", "Unavailable"),
            (Postgres, "42601 42P01 22001", "Unavailable"),
        ] {
            for code in codes.split(' ') {
                assert_eq!(kind(backend, code), expected, "{code} of {backend:?}");
            }
        }
    }

    #[test]
    fn what_quotes_a_message_is_told_in_other_words() {
        for (backend, code) in [(Backend::MySql, "1062"), (Backend::MySql, "1366"), (Backend::Postgres, "23505")] {
            let said = meaning(backend, "mysql://u@h/d", code, "Duplicate entry 'secret'".to_owned()).to_string();
            assert!(!said.contains("secret") && said.contains(code), "{said}");
        }
    }

    #[test]
    fn what_another_session_or_a_lost_connection_spoilt_is_tried_again() {
        for (backend, code, expected) in [
            (Backend::MySql, "1213", Recovery::Retry),
            (Backend::Postgres, "40001", Recovery::Retry),
            (Backend::MySql, "1927", Recovery::Reconnect),
            (Backend::MySql, "1615", Recovery::Reconnect),
            (Backend::MySql, "1176", Recovery::Reconnect),
            (Backend::Postgres, "42703", Recovery::Reconnect),
            (Backend::Postgres, "57P01", Recovery::Reconnect),
            (Backend::Postgres, "0A000", Recovery::Reconnect),
            (Backend::MySql, "1406", Recovery::None),
            (Backend::Postgres, "23514", Recovery::None),
        ] {
            assert_eq!(recovery_of(backend, code), expected, "{code}");
        }
        let lost = Error::Io(std::io::Error::from(ErrorKind::ConnectionReset));
        assert_eq!(recovery(Backend::MySql, &lost), Recovery::Reconnect);
        assert!(classify(Backend::MySql, "mysql://u@h/d", &lost).is_outage());
    }
}
