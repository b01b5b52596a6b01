//! The tables: creates missing tables, uses tables of other programs as they are, refuses tables of a newer version.
//!
//! The message table of another program (the PHP broker's table has four columns) is never altered. A warning names each column that is missing,
//! once, with the statement that adds it.

use super::super::{Backend, Columns, StoreError};
use super::connect::Access;
use super::describe::{channel_index, describe, has_unique_ids, packet};
use super::driver::{Driver, Value};
use super::error::classify;
use super::field::{self, Described};
use super::statements::{Names, placeholder, quoted};
use super::table::{Field, MessageTable, OPTIONAL};
use super::text::Charset;
use crate::columns::REQUIRED;

/// The layout that this version writes and the highest that it reads.
const LAYOUT: i64 = 1;

/// Reads the tables, creates missing tables, and returns the message table as found.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Schema`], [`StoreError::Column`], and the server's errors.
pub(super) async fn prepare(
    driver: &mut Driver,
    access: &Access,
    names: &Names,
    columns: &Columns,
) -> Result<MessageTable, StoreError> {
    let failed = |error: sqlx::Error| classify(access.backend, &access.place, &error);
    check_layout(driver, access, names).await?;
    let own = migrate(driver, access, names).await.map_err(failed)?;
    let mut found = describe(driver, names, &names.data_plain).await.map_err(failed)?;
    if own {
        // Columns of this version that an earlier version did not have are added once; a column that an administrator drops is not added again.
        let is_known = read_note(driver, names, "dead_letters").await.map_err(failed)?.is_some();
        let newer = OPTIONAL.iter().filter(|(name, ..)| !is_known && name.starts_with("dead_"));
        let newer = newer.map(|(name, kind, _)| (*name, *kind));
        let all = newer.chain(columns.names().map(|name| (name, "text")));
        let missing: Vec<_> = all.filter(|(name, _)| find(&found, name).is_none()).collect();
        for (name, kind) in &missing {
            let column = quoted(access.backend, name);
            let add = format!("ALTER TABLE {} ADD COLUMN {column} {kind} NULL", names.data);
            driver.run(&add).await.map_err(failed)?;
        }
        if !is_known {
            write_note(driver, names, "dead_letters", "1").await.map_err(failed)?;
        }
        if !missing.is_empty() {
            found = describe(driver, names, &names.data_plain).await.map_err(failed)?;
        }
    }
    let mut table = message_table(access, names, columns, &found)?;
    // A row that is written again must collide with itself.
    if !has_unique_ids(driver, names).await.map_err(failed)? {
        let remedy = format!("ALTER TABLE {} ADD PRIMARY KEY (data_id)", names.data_plain);
        return Err(column_error(access, names, "data_id", format!("must be unique; make it so with: {remedy}")));
    }
    table.channel_index = channel_index(driver, names).await.map_err(failed)?;
    table.packet = packet(driver, access.backend).await.map_err(failed)?;
    Ok(table)
}

/// As [`prepare`], for an inspection: creates nothing.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Newer`], [`StoreError::Schema`], [`StoreError::Column`], and the server's errors.
pub(super) async fn inspect(
    driver: &mut Driver,
    access: &Access,
    names: &Names,
    columns: &Columns,
) -> Result<MessageTable, StoreError> {
    let failed = |error: sqlx::Error| classify(access.backend, &access.place, &error);
    check_layout(driver, access, names).await?;
    let found = describe(driver, names, &names.data_plain).await.map_err(failed)?;
    if found.is_empty() {
        return Err(StoreError::Missing { place: format!("{} (table {})", access.place, names.data_plain) });
    }
    let is_incomplete = columns.names().any(|name| find(&found, name).is_none());
    // The next start adds the columns to a table that a broker has created.
    let none = Columns::default();
    let columns = if is_incomplete && is_made(driver, names).await.map_err(failed)? { &none } else { columns };
    let mut table = message_table(access, names, columns, &found)?;
    table.channel_index = channel_index(driver, names).await.map_err(failed)?;
    Ok(table)
}

/// Whether a broker has created the message table.
async fn is_made(driver: &mut Driver, names: &Names) -> sqlx::Result<bool> {
    let has_notes = !describe(driver, names, &names.meta_plain).await?.is_empty();
    Ok(has_notes && read_note(driver, names, "made").await?.is_some())
}

/// The tables, besides the message table, that the next start creates.
///
/// # Errors
/// The server's error.
pub(super) async fn missing(driver: &mut Driver, names: &Names) -> sqlx::Result<Vec<String>> {
    let has_notes = !describe(driver, names, &names.meta_plain).await?.is_empty();
    Ok(if has_notes { Vec::new() } else { vec![names.meta_plain.clone()] })
}

fn message_table(
    access: &Access,
    names: &Names,
    columns: &Columns,
    found: &[Described],
) -> Result<MessageTable, StoreError> {
    let (backend, location, table) = (access.backend, access.place.as_str(), names.data_plain.as_str());
    if let Some(column) = REQUIRED.into_iter().find(|name| find(found, name).is_none()) {
        return Err(StoreError::Schema { place: location.to_owned(), table: table.to_owned(), column });
    }
    let ours = |name: &str| {
        REQUIRED.into_iter().chain(OPTIONAL.map(|(name, ..)| name)).any(|own| own.eq_ignore_ascii_case(name))
            || columns.names().any(|own| own.eq_ignore_ascii_case(name))
    };
    if let Some(strict) = found.iter().find(|column| !column.nullable && !column.filled && !ours(&column.name)) {
        let problem = "must have a value, and the broker has none for it; set a default, or allow NULL";
        return Err(column_error(access, names, &strict.name, problem.to_owned()));
    }
    for column in found {
        let Some(wanted) = wanted(backend, &column.name) else { continue };
        if !wanted.contains(&column.data_type.as_str()) {
            let problem = format!(
                "has the type {}, and the broker needs {}; change the type, or set another store.prefix",
                column.data_type, wanted[0]
            );
            return Err(column_error(access, names, &column.name, problem));
        }
    }
    let mut fields = Vec::new();
    for name in columns.names() {
        let column = find(found, name);
        let form = field::checked(backend, location, table, name, column)?;
        let cast = column.map(Described::cast).unwrap_or_default();
        // PostgreSQL folds unquoted names to lower case; the table has the actual spelling.
        let name = column.map_or_else(|| name.to_owned(), |column| column.name.clone());
        fields.push(Field { name, form, cast });
    }
    let charset = |name: &str| Charset::of(backend, find(found, name).and_then(|column| column.charset.as_deref()));
    let present = OPTIONAL.map(|(name, ..)| find(found, name).is_some());
    let charsets = ["data", "channel", "publication", "dead_channel", "dead_reason"].map(charset);
    let widths = ["channel", "data"].map(|name| find(found, name).and_then(|column| column.characters));
    let mut table = MessageTable::new(present, charsets, fields);
    table.widths = widths;
    Ok(table)
}

/// The accepted types of the broker's own columns, the usual type first. `char` is not accepted: it loses blanks at the end.
fn wanted(backend: Backend, column: &str) -> Option<&'static [&'static str]> {
    const TEXT: [&str; 5] = ["varchar", "text", "tinytext", "mediumtext", "longtext"];
    const BYTES: [&str; 8] =
        ["longtext", "text", "tinytext", "mediumtext", "varchar", "longblob", "mediumblob", "blob"];
    Some(match (column.to_ascii_lowercase().as_str(), backend) {
        ("data_id" | "expires" | "due" | "receivers" | "deliveries" | "dead_attempts", _) => &["bigint"],
        ("channel" | "publication" | "dead_why" | "dead_channel" | "dead_reason", Backend::MySql) => &TEXT,
        ("data", Backend::MySql) => &BYTES,
        ("channel" | "data" | "publication" | "dead_why" | "dead_channel" | "dead_reason", Backend::Postgres) => {
            &["text", "character varying"]
        }
        ("created", Backend::MySql) => &["datetime", "timestamp"],
        ("created", Backend::Postgres) => &["timestamp without time zone", "timestamp with time zone"],
        _ => return None,
    })
}

fn column_error(access: &Access, names: &Names, column: &str, problem: String) -> StoreError {
    let (place, table) = (access.place.clone(), names.data_plain.clone());
    StoreError::Column { place, table, column: column.to_owned(), problem }
}

fn find<'a>(found: &'a [Described], name: &str) -> Option<&'a Described> {
    found.iter().find(|column| column.name.eq_ignore_ascii_case(name))
}

/// Refuses a layout that this version does not know. Changes nothing.
async fn check_layout(driver: &mut Driver, access: &Access, names: &Names) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| classify(access.backend, &access.place, &error);
    if describe(driver, names, &names.meta_plain).await.map_err(failed)?.is_empty() {
        return Ok(());
    }
    let layout = read_note(driver, names, "layout").await.map_err(failed)?;
    match layout.and_then(|layout| layout.parse().ok()) {
        Some(found) if found > LAYOUT => Err(StoreError::Newer { place: access.place.clone(), found, known: LAYOUT }),
        _ => Ok(()),
    }
}

/// Creates missing tables step by step; an interrupted start may have made some of the steps. True if a broker has created the message table.
async fn migrate(driver: &mut Driver, access: &Access, names: &Names) -> sqlx::Result<bool> {
    let backend = access.backend;
    if describe(driver, names, &names.meta_plain).await?.is_empty() {
        driver.run(&make_meta(backend, names)).await?;
    }
    if describe(driver, names, &names.data_plain).await?.is_empty() {
        // The note comes first, so that a created table is never taken for another program's.
        write_note(driver, names, "made", "1").await?;
        driver.run(&make_data(backend, names)).await?;
    }
    write_note(driver, names, "layout", &LAYOUT.to_string()).await?;
    Ok(read_note(driver, names, "made").await?.is_some())
}

fn make_meta(backend: Backend, names: &Names) -> String {
    match backend {
        Backend::MySql => format!(
            "CREATE TABLE {} (name varchar(100) NOT NULL, value text, PRIMARY KEY (name)) \
             ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
            names.meta
        ),
        Backend::Postgres => format!("CREATE TABLE {} (name text PRIMARY KEY, value text)", names.meta),
    }
}

/// The indexes serve pages, counts and purges, in the order of ids; expiry; and delayed messages.
fn make_data(backend: Backend, names: &Names) -> String {
    let (data, plain) = (&names.data, &names.data_plain);
    match backend {
        Backend::MySql => format!(
            "CREATE TABLE {data} (data_id bigint NOT NULL AUTO_INCREMENT, channel varchar(100) DEFAULT NULL, data longtext, \
             created datetime DEFAULT NULL, expires bigint DEFAULT NULL, due bigint DEFAULT NULL, receivers bigint DEFAULT NULL, \
             publication text, deliveries bigint DEFAULT NULL, dead_why text, dead_channel text, dead_attempts bigint DEFAULT NULL, \
             dead_reason text, PRIMARY KEY (data_id), KEY channel (channel, data_id, due), \
             KEY expires (expires), KEY due (due)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
        ),
        Backend::Postgres => format!(
            "CREATE TABLE {data} (data_id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, channel text, data text, created timestamp, \
             expires bigint, due bigint, receivers bigint, publication text, deliveries bigint, \
             dead_why text, dead_channel text, dead_attempts bigint, dead_reason text); \
             CREATE INDEX \"{plain}_channel\" ON {data} (channel, data_id, due); \
             CREATE INDEX \"{plain}_expires\" ON {data} (expires) WHERE expires IS NOT NULL AND due IS NULL; \
             CREATE INDEX \"{plain}_due\" ON {data} (due) WHERE due IS NOT NULL"
        ),
    }
}

/// Reads a note of the meta table.
///
/// # Errors
/// The server's error.
pub(super) async fn read_note(driver: &mut Driver, names: &Names, name: &str) -> sqlx::Result<Option<String>> {
    let query = format!("SELECT value FROM {} WHERE name = {}", names.meta, placeholder(names.backend, 1, "text"));
    driver.value(&query, &[Value::from(name)]).await
}

/// Writes a note to the meta table.
///
/// # Errors
/// The server's error.
pub(super) async fn write_note(driver: &mut Driver, names: &Names, name: &str, value: &str) -> sqlx::Result<()> {
    let meta = &names.meta;
    let statement = match names.backend {
        Backend::MySql => {
            format!("INSERT INTO {meta} (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)")
        }
        Backend::Postgres => format!(
            "INSERT INTO {meta} (name, value) VALUES ($1::text, $2::text) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
        ),
    };
    driver.execute(&statement.into(), &[Value::from(name), Value::from(value)]).await.map(drop)
}
