//! The names of the journal's own tables, and the statements that only need names.

use crate::settings::Prefix;

/// The journal's own tables, quoted.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) data: String,
    pub(super) meta: String,
    pub(super) owed: String,
    pub(super) empty: String,
    pub(super) restamp: String,
    pub(super) backlog: String,
    /// Records the pending removal of a row; replaces a pending count.
    pub(super) add_removal: String,
    /// Records the pending delivery count of a row, unless its removal is pending.
    pub(super) add_count: String,
}

impl Names {
    pub(super) fn new(prefix: &Prefix) -> Self {
        let name = |table: &str| format!("\"{}{table}\"", prefix.as_str());
        let owed = name("owed");
        let add_removal = format!("INSERT OR REPLACE INTO {owed} (data_id, deliveries) VALUES (?1, NULL)");
        let add_count = format!(
            "INSERT INTO {owed} (data_id, deliveries) VALUES (?1, ?2) \
             ON CONFLICT DO UPDATE SET deliveries = excluded.deliveries WHERE deliveries IS NOT NULL"
        );
        let (data, meta, empty, backlog) = (name("data"), name("meta"), name("empty"), name("backlog"));
        Self { data, meta, owed, empty, restamp: name("restamp"), backlog, add_removal, add_count }
    }

    pub(super) fn create(&self) -> String {
        let Self { owed, empty, restamp, backlog, .. } = self;
        format!(
            "CREATE TABLE IF NOT EXISTS {owed} (data_id INTEGER PRIMARY KEY, deliveries INTEGER);
            CREATE TABLE IF NOT EXISTS {empty} (channel TEXT PRIMARY KEY, up_to INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS {restamp} (
                number INTEGER PRIMARY KEY AUTOINCREMENT, token INTEGER NOT NULL, above INTEGER NOT NULL, of_all INTEGER NOT NULL, by INTEGER NOT NULL
            );
            CREATE TABLE IF NOT EXISTS {backlog} (channel TEXT PRIMARY KEY, messages INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;"
        )
    }
}
