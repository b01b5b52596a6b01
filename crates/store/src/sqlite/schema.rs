//! The tables: creates missing tables, completes tables of other programs, refuses tables of a newer version.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::columns::REQUIRED;
use crate::{Columns, Prefix, StoreError};

use super::failure::classify;

/// The layout that this version writes and the highest that it reads.
pub(super) const LAYOUT: i64 = 1;

/// The columns that the broker adds, and their types. Times are milliseconds since 1970, UTC.
const OPTIONAL: [(&str, &str); 9] = [
    ("expires", "INTEGER"),
    ("due", "INTEGER"),
    ("receivers", "INTEGER"),
    ("publication", "TEXT"),
    ("deliveries", "INTEGER"),
    ("dead_why", "TEXT"),
    ("dead_channel", "TEXT"),
    ("dead_attempts", "INTEGER"),
    ("dead_reason", "TEXT"),
];

/// The names of tables and indexes, without quotes. They are built from a valid prefix, so they are safe within double quotes.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// Messages.
    pub(crate) data: String,
    /// The layout's version, and the mark of a clean stop.
    pub(crate) meta: String,
    /// Statements that create further tables, harmless if these exist already.
    extra: String,
}

impl Tables {
    pub(crate) fn new(prefix: &Prefix) -> Self {
        let name = |table: &str| format!("{}{table}", prefix.as_str());
        Self { data: name("data"), meta: name("meta"), extra: String::new() }
    }

    /// Adds statements that create further tables, for a journal.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn with(self, extra: String) -> Self {
        Self { extra, ..self }
    }

    /// Refuses a layout that this version does not know. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Newer`], or any error that keeps the file from being read.
    pub(crate) fn check_layout(&self, connection: &Connection, place: &str) -> Result<(), StoreError> {
        let read = || -> rusqlite::Result<Option<i64>> {
            if !exists(connection, &self.meta)? {
                return Ok(None);
            }
            let query = format!("SELECT value FROM \"{}\" WHERE name = 'layout'", self.meta);
            connection.query_row(&query, [], |row| row.get(0)).optional()
        };
        match read().map_err(|error| classify(place, &error))? {
            Some(found) if found > LAYOUT => Err(StoreError::Newer { place: place.to_owned(), found, known: LAYOUT }),
            _ => Ok(()),
        }
    }

    /// Creates or completes the tables, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if a table of that name has other columns, or any error that keeps the file from being written.
    pub(super) fn prepare(
        &self,
        connection: &mut Connection,
        columns: &Columns,
        place: &str,
    ) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| classify(place, &error);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.execute_batch(&self.create()).map_err(failed)?;
        let present = column_names(&transaction, &self.data).map_err(failed)?;
        let is_missing = |name: &str| !present.iter().any(|column| column.eq_ignore_ascii_case(name));
        if let Some(column) = REQUIRED.into_iter().find(|column| is_missing(column)) {
            return Err(StoreError::Schema { place: place.to_owned(), table: self.data.clone(), column });
        }
        for (name, kind) in OPTIONAL.into_iter().filter(|(name, _)| is_missing(name)) {
            let add = format!("ALTER TABLE \"{}\" ADD COLUMN {name} {kind}", self.data);
            transaction.execute_batch(&add).map_err(failed)?;
        }
        // The columns have no type, so that a number stays a number and a text stays a text.
        for name in columns.names().filter(|name| is_missing(name)) {
            let add = format!("ALTER TABLE \"{}\" ADD COLUMN \"{name}\"", self.data);
            transaction.execute_batch(&add).map_err(failed)?;
        }
        transaction.execute_batch(&self.indexes()).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    fn create(&self) -> String {
        let Self { data, meta, extra } = self;
        format!(
            "CREATE TABLE IF NOT EXISTS \"{data}\" (
                data_id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT, data TEXT, created TEXT,
                expires INTEGER, due INTEGER, receivers INTEGER, publication TEXT, deliveries INTEGER,
                dead_why TEXT, dead_channel TEXT, dead_attempts INTEGER, dead_reason TEXT
            );
            CREATE TABLE IF NOT EXISTS \"{meta}\" (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
            INSERT OR IGNORE INTO \"{meta}\" (name, value) VALUES ('layout', {LAYOUT});
            {extra}"
        )
    }

    /// The first index serves pages, counts and purges without reading the table; the other two contain only the rows with an expiry or a due time.
    fn indexes(&self) -> String {
        let data = &self.data;
        format!(
            "CREATE INDEX IF NOT EXISTS \"{data}_channel\" ON \"{data}\" (channel, due, data_id);
            CREATE INDEX IF NOT EXISTS \"{data}_expires\" ON \"{data}\" (expires) WHERE expires IS NOT NULL AND due IS NULL;
            CREATE INDEX IF NOT EXISTS \"{data}_due\" ON \"{data}\" (due) WHERE due IS NOT NULL;"
        )
    }
}

/// Whether there is a table of this name.
pub(crate) fn exists(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let query = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    connection.query_row(query, [table], |_| Ok(())).optional().map(|found| found.is_some())
}

fn column_names(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}
