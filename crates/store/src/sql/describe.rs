//! Reads the database's description of a table: columns, types, limits. Reads the catalogue only, never a row, and decides nothing.

use super::super::Backend;
use super::driver::{Driver, Value, number, text};
use super::field::Described;
use super::statements::Names;
use crate::limits;

/// Returns the columns of a table; empty if it does not exist. Includes a table on which the user has no rights.
///
/// # Errors
/// The server's error.
pub(super) async fn describe(driver: &mut Driver, names: &Names, table: &str) -> sqlx::Result<Vec<Described>> {
    let (query, name) = match names.backend {
        Backend::MySql => (
            "SELECT CAST(COLUMN_NAME AS CHAR), CAST(DATA_TYPE AS CHAR), CAST(COLUMN_TYPE AS CHAR), \
             CAST(CHARACTER_MAXIMUM_LENGTH AS CHAR), CAST(CHARACTER_SET_NAME AS CHAR), CAST(IS_NULLABLE = 'YES' AS CHAR), \
             CAST(COLUMN_DEFAULT IS NOT NULL OR EXTRA LIKE '%auto_increment%' OR EXTRA LIKE '%GENERATED%' AS CHAR), \
             CAST(REPLACE(EXTRA, 'DEFAULT_GENERATED', '') LIKE '%GENERATED%' AS CHAR) \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            table.to_owned(),
        ),
        // A domain is read as its base type. PostgreSQL adds 4 to the length of a varchar.
        Backend::Postgres => (
            "SELECT a.attname::text, lower(format_type(CASE WHEN t.typbasetype = 0 THEN t.oid ELSE t.typbasetype END, NULL)), \
             lower(format_type(CASE WHEN t.typbasetype = 0 THEN t.oid ELSE t.typbasetype END, CASE WHEN t.typbasetype = 0 THEN a.atttypmod ELSE t.typtypmod END)), \
             (CASE WHEN format_type(t.oid, NULL) IN ('character', 'character varying') AND a.atttypmod > 4 THEN a.atttypmod - 4 END)::text, \
             current_setting('server_encoding'), (NOT a.attnotnull)::int::text, (a.atthasdef OR a.attidentity <> '')::int::text, \
             (a.attgenerated <> '' OR a.attidentity = 'a')::int::text \
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
             WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            format!("\"{table}\""),
        ),
    };
    let rows = driver.fetch(&query.into(), &[Value::from(name.as_str())]).await?;
    let lower = |cell| text(cell).unwrap_or_default().to_ascii_lowercase();
    let described = rows.into_iter().map(|row| {
        let mut cells = row.into_iter();
        let mut next = || cells.next().flatten();
        Described {
            name: text(next()).unwrap_or_default(),
            data_type: lower(next()),
            full_type: lower(next()),
            characters: number(next()),
            charset: text(next()),
            nullable: number(next()) == Some(1),
            filled: number(next()) == Some(1),
            computed: number(next()) == Some(1),
        }
    });
    let mut described: Vec<Described> = described.collect();
    mark_json(driver, names, table, &mut described).await?;
    Ok(described)
}

/// MariaDB's type JSON is a text with a check.
async fn mark_json(driver: &mut Driver, names: &Names, table: &str, columns: &mut [Described]) -> sqlx::Result<()> {
    let is_longtext = |column: &Described| column.data_type == "longtext" && column.name != "data";
    if names.backend == Backend::Postgres || !columns.iter().any(is_longtext) {
        return Ok(());
    }
    let rows = driver.fetch(&format!("SHOW CREATE TABLE `{table}`").into(), &[]).await?;
    let definition = rows.into_iter().next().and_then(|row| text(row.into_iter().nth(1).flatten()));
    let definition = definition.unwrap_or_default().to_ascii_lowercase();
    for column in columns.iter_mut().filter(|column| is_longtext(column)) {
        if definition.contains(&format!("json_valid(`{}`)", column.name.to_ascii_lowercase())) {
            "json".clone_into(&mut column.data_type);
        }
    }
    Ok(())
}

/// Whether a unique index keeps two rows of the message table from having the same id.
///
/// # Errors
/// The server's error.
pub(super) async fn has_unique_ids(driver: &mut Driver, names: &Names) -> sqlx::Result<bool> {
    let (query, name) = match names.backend {
        Backend::MySql => (
            "SELECT CAST(COUNT(*) AS CHAR) FROM (SELECT INDEX_NAME FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND NON_UNIQUE = 0 \
             GROUP BY INDEX_NAME HAVING COUNT(*) = 1 AND MAX(COLUMN_NAME) = 'data_id') k",
            &names.data_plain,
        ),
        Backend::Postgres => (
            "SELECT COUNT(*)::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = to_regclass($1::text) AND i.indisunique AND i.indimmediate AND i.indnatts = 1 AND i.indpred IS NULL \
             AND a.attname = 'data_id'",
            &names.data,
        ),
    };
    Ok(driver.value(query, &[Value::from(name.as_str())]).await?.is_some_and(|count| count != "0"))
}

/// The name of an index of the message table that begins with the channel.
///
/// # Errors
/// The server's error.
pub(super) async fn channel_index(driver: &mut Driver, names: &Names) -> sqlx::Result<Option<String>> {
    let (query, name) = match names.backend {
        Backend::MySql => (
            "SELECT CAST(INDEX_NAME AS CHAR) FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND SEQ_IN_INDEX = 1 AND COLUMN_NAME = 'channel' AND SUB_PART IS NULL \
             AND INDEX_TYPE = 'BTREE' ORDER BY INDEX_NAME = 'channel' DESC, INDEX_NAME LIMIT 1",
            &names.data_plain,
        ),
        Backend::Postgres => (
            "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = to_regclass($1::text) AND i.indisvalid AND i.indpred IS NULL AND a.attname = 'channel' LIMIT 1",
            &names.data,
        ),
    };
    driver.value(query, &[Value::from(name.as_str())]).await
}

/// The largest statement that the server accepts, in bytes.
///
/// # Errors
/// The server's error.
pub(super) async fn packet(driver: &mut Driver, backend: Backend) -> sqlx::Result<usize> {
    if backend == Backend::Postgres {
        return Ok(limits::STORE_PACKET);
    }
    let bytes = driver.value("SELECT CAST(@@max_allowed_packet AS CHAR)", &[]).await?;
    Ok(bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(limits::STORE_PACKET))
}
