//! Unique indexes that somebody has put on the message table.
//!
//! Messages repeat themselves. One that is refused for it would stop all others, and MySQL would even replace the earlier one instead
//! (`ON DUPLICATE KEY` means every key). So an index that messages can violate is refused at start.

use super::super::{Backend, Columns, StoreError};
use super::connect::Access;
use super::driver::{Driver, Value, number, text};
use super::error::classify;
use super::field::Described;
use super::statements::Names;

/// A unique index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unique {
    name: String,
    /// PostgreSQL knows it as a constraint.
    is_constraint: bool,
    /// `None` is an expression.
    columns: Vec<Option<String>>,
}

impl Unique {
    /// Whether it is the messages that decide about everything in it. What the database fills in it knows to be unique, and NULL always is.
    fn is_of_messages(&self, ours: &dyn Fn(&str) -> bool, found: &[Described]) -> bool {
        self.columns.iter().flatten().all(|name| {
            let is_computed = || found.iter().any(|column| column.computed && column.name == *name);
            !name.eq_ignore_ascii_case("data_id") && (ours(name) || is_computed())
        })
    }

    fn removal(&self, backend: Backend, table: &str) -> String {
        let name = &self.name;
        match backend {
            Backend::MySql if name == "PRIMARY" => format!("ALTER TABLE {table} DROP PRIMARY KEY"),
            Backend::MySql => format!("ALTER TABLE {table} DROP INDEX {name}"),
            Backend::Postgres if self.is_constraint => format!("ALTER TABLE {table} DROP CONSTRAINT {name}"),
            Backend::Postgres => format!("DROP INDEX {name}"),
        }
    }
}

/// Refuses a message table with a unique index that messages can violate.
///
/// # Errors
/// [`StoreError::Column`], and whatever the server says.
pub(super) async fn check(
    driver: &mut Driver,
    access: &Access,
    names: &Names,
    columns: &Columns,
    found: &[Described],
) -> Result<(), StoreError> {
    let indexes = uniques(driver, access.backend, &names.data_plain)
        .await
        .map_err(|error| classify(access.backend, &access.place, &error))?;
    let ours = |name: &str| super::schema::is_ours(name, columns);
    let Some(index) = indexes.iter().find(|index| index.is_of_messages(&ours, found)) else {
        return Ok(());
    };
    let column = index.columns.iter().flatten().next().map_or("an expression", String::as_str).to_owned();
    let (name, removal) = (&index.name, index.removal(access.backend, &names.data_plain));
    let problem = format!(
        "is in the unique index {name}, so that a message could not be kept beside an earlier one with the same value; drop the index: {removal}"
    );
    Err(StoreError::Column { place: access.place.clone(), table: names.data_plain.clone(), column, problem })
}

async fn uniques(driver: &mut Driver, backend: Backend, table: &str) -> sqlx::Result<Vec<Unique>> {
    let query = match backend {
        Backend::MySql => {
            "SELECT CAST(INDEX_NAME AS CHAR), '0', CAST(COLUMN_NAME AS CHAR) FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME, SEQ_IN_INDEX"
        }
        Backend::Postgres => {
            "SELECT c.relname::text, (EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u')))::int::text, \
             a.attname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid \
             JOIN pg_namespace n ON n.oid = t.relnamespace CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS u(number, place) \
             LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.number AND u.number > 0 \
             WHERE n.nspname = current_schema() AND t.relname = $1::text AND i.indisunique AND u.place <= i.indnkeyatts \
             ORDER BY c.relname, u.place"
        }
    };
    let mut indexes: Vec<Unique> = Vec::new();
    for row in driver.fetch(&query.into(), &[Value::from(table)]).await? {
        let mut cells = row.into_iter();
        let name = text(cells.next().flatten()).unwrap_or_default();
        let is_constraint = number(cells.next().flatten()) == Some(1);
        let column = text(cells.next().flatten());
        match indexes.last_mut().filter(|last| last.name == name) {
            Some(last) => last.columns.push(column),
            None => indexes.push(Unique { name, is_constraint, columns: vec![column] }),
        }
    }
    Ok(indexes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_in_the_way_if_messages_decide_about_all_of_it() {
        let column = |name: &str, computed| Described { name: name.to_owned(), computed, ..Described::default() };
        let found = [column("receiver", false), column("number", false), column("hash", true)];
        let ours = |name: &str| ["channel", "data", "data_id", "receiver"].contains(&name);
        for (columns, expected) in [
            (vec![Some("data_id")], false),
            (vec![Some("channel"), Some("data_id")], false),
            (vec![Some("channel")], true),
            (vec![Some("receiver"), Some("channel")], true),
            (vec![Some("number")], false),
            (vec![Some("receiver"), Some("number")], false),
            (vec![Some("hash")], true),
            (vec![None], true),
        ] {
            let columns = columns.into_iter().map(|name| name.map(str::to_owned)).collect();
            let index = Unique { name: "u".to_owned(), columns, is_constraint: true };
            assert_eq!(index.is_of_messages(&ours, &found), expected, "{:?}", index.columns);
        }
    }

    #[test]
    fn the_statement_that_removes_it_is_told() {
        let index = |name: &str, is_constraint| Unique { name: name.to_owned(), is_constraint, columns: Vec::new() };
        for (backend, index, expected) in [
            (Backend::MySql, index("once", false), "ALTER TABLE mq_data DROP INDEX once"),
            (Backend::MySql, index("PRIMARY", false), "ALTER TABLE mq_data DROP PRIMARY KEY"),
            (Backend::Postgres, index("once", true), "ALTER TABLE mq_data DROP CONSTRAINT once"),
            (Backend::Postgres, index("once", false), "DROP INDEX once"),
        ] {
            assert_eq!(index.removal(backend, "mq_data"), expected);
        }
    }
}
