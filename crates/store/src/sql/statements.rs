//! The SQL statements, built once for each table as found, from validated names; values are always bound.
//!
//! A statement handles many rows. Their number is a power of two, so that there are few statements, and the server prepares each once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::super::{Backend, Prefix};
use super::table::MessageTable;

/// A statement for several rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Batch {
    /// Inserts rows; an existing id is an error.
    Insert,
    /// Deletes rows.
    Delete,
    /// Sets the delivery counts of rows.
    Count,
    /// Selects the contents of rows, to compare them.
    Contents,
}

/// The names of the tables, quoted.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) backend: Backend,
    pub(super) data: String,
    pub(super) meta: String,
    /// `data` without quotes.
    pub(super) data_plain: String,
    pub(super) meta_plain: String,
}

impl Names {
    pub(super) fn new(backend: Backend, prefix: &Prefix) -> Self {
        let plain = |table: &str| format!("{}{table}", prefix.as_str());
        let [data, meta] = ["data", "meta"].map(plain);
        Self { backend, data: quoted(backend, &data), meta: quoted(backend, &meta), data_plain: data, meta_plain: meta }
    }
}

/// Quotes a name for the SQL dialect. The name must not contain quotes.
pub(super) fn quoted(backend: Backend, name: &str) -> String {
    match backend {
        Backend::MySql => format!("`{name}`"),
        Backend::Postgres => format!("\"{name}\""),
    }
}

/// The placeholder of the `n`th value (from 1); PostgreSQL needs its type.
pub(super) fn placeholder(backend: Backend, n: usize, cast: &str) -> String {
    match backend {
        Backend::MySql => "?".to_owned(),
        Backend::Postgres => format!("${n}::{cast}"),
    }
}

/// Every statement for messages.
#[derive(Debug)]
pub(super) struct Statements {
    backend: Backend,
    /// The type to which each value of a new row is cast.
    casts: Vec<String>,
    columns: Vec<String>,
    data: String,
    /// The columns that show whether a row is the broker's own.
    contents: String,
    batch: HashMap<(Batch, usize), Arc<str>>,
    pub(super) load: Arc<str>,
    pub(super) scan: Arc<str>,
    pub(super) delayed: Arc<str>,
    pub(super) expired: Arc<str>,
    /// Takes the current time, the expiry to continue after, twice, the id to continue after at that expiry, and a number of rows.
    pub(super) spared: Arc<str>,
    /// `None`: the table has no column `expires`.
    pub(super) expiry_bounds: Option<Arc<str>>,
    pub(super) expiries: Arc<str>,
    pub(super) purge: Arc<str>,
    pub(super) channels: Arc<str>,
    pub(super) newest: Arc<str>,
    pub(super) last_id: Arc<str>,
    pub(super) move_away: Arc<str>,
}

impl Statements {
    pub(super) fn new(backend: Backend, names: &Names, table: &MessageTable) -> Self {
        let data = names.data.clone();
        let (columns, casts) = columns(backend, table);
        let parts = Fragments::new(backend, table);
        let Fragments { selected, of_channel, name, not_delayed, .. } = &parts;
        let at = |n| placeholder(backend, n, "bigint");
        // MySQL's placeholders have no numbers, so a value that is used twice is bound twice; `Fragments::of_channel` takes two values.
        let channel = channel_index(backend, table);
        Self {
            backend,
            batch: HashMap::new(),
            load: format!(
                "SELECT {selected} FROM {data} {channel}WHERE {of_channel} AND data_id > {} {not_delayed} ORDER BY {data}.data_id LIMIT {}",
                at(3),
                at(4)
            )
            .into(),
            scan: format!(
                "SELECT {selected} FROM {data} WHERE data_id > {} ORDER BY {data}.data_id LIMIT {}",
                at(1),
                at(2)
            )
            .into(),
            delayed: parts.delayed(&data, table).into(),
            expired: parts.expired(&data, table).into(),
            spared: parts.spared(&data, table).into(),
            expiry_bounds: parts.expiry_bounds(&data, table).map(Into::into),
            expiries: parts.expiries(&data).into(),
            purge: format!(
                "SELECT {} FROM {data} {channel}WHERE {of_channel} AND data_id <= {} ORDER BY {data}.data_id LIMIT {}",
                parts.id,
                at(3),
                at(4)
            )
            .into(),
            channels: parts.channels(&data, &channel, not_delayed).into(),
            newest: format!(
                "SELECT {}, {name}, {}, {}, {} FROM {data} WHERE data_id < {} ORDER BY {data}.data_id DESC LIMIT {}",
                parts.id,
                if table.has("dead_channel") { "dead_channel" } else { "NULL" },
                if table.has("publication") { "publication" } else { "NULL" },
                parts.created,
                at(1),
                at(2)
            )
            .into(),
            last_id: format!("SELECT {} FROM {data}", parts.text("MAX(data_id)")).into(),
            move_away: format!("UPDATE {data} SET data_id = {} WHERE data_id = {}", at(1), at(2)).into(),
            contents: format!("{}, {name}, data, {}", parts.id, parts.created),
            casts,
            columns,
            data,
        }
    }

    /// The number of values of a new row.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Returns the statement for `rows` rows.
    pub(super) fn batch(&mut self, what: Batch, rows: usize) -> Arc<str> {
        if let Some(statement) = self.batch.get(&(what, rows)) {
            return Arc::clone(statement);
        }
        let statement: Arc<str> = match what {
            Batch::Insert => self.insert(rows),
            Batch::Delete => format!("DELETE FROM {} WHERE data_id IN ({})", self.data, self.ids(1, rows)),
            Batch::Count => self.count(rows),
            Batch::Contents => self.select(&self.contents, rows),
        }
        .into();
        self.batch.insert((what, rows), Arc::clone(&statement));
        statement
    }

    fn insert(&self, rows: usize) -> String {
        let width = self.width();
        let mut text = format!("INSERT INTO {} ({}) VALUES ", self.data, self.columns.join(", "));
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for (index, cast) in self.casts.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let _infallible = write!(text, "{comma}{}", placeholder(self.backend, row * width + index + 1, cast));
            }
            text.push(')');
        }
        text
    }

    fn select(&self, what: &str, rows: usize) -> String {
        format!("SELECT {what} FROM {} WHERE data_id IN ({})", self.data, self.ids(1, rows))
    }

    fn count(&self, rows: usize) -> String {
        let mut text = format!("UPDATE {} SET deliveries = CASE data_id", self.data);
        for row in 0..rows {
            let (id, count) =
                (placeholder(self.backend, 2 * row + 1, "bigint"), placeholder(self.backend, 2 * row + 2, "bigint"));
            let _infallible = write!(text, " WHEN {id} THEN {count}");
        }
        text + &format!(" END WHERE data_id IN ({})", self.ids(2 * rows + 1, rows))
    }

    fn ids(&self, first: usize, count: usize) -> String {
        let places: Vec<String> = (first..first + count).map(|n| placeholder(self.backend, n, "bigint")).collect();
        places.join(", ")
    }
}

/// The hint that makes MySQL use the index on channels: without it, MySQL prefers the condition `due IS NULL`, which nearly every row meets.
fn channel_index(backend: Backend, table: &MessageTable) -> String {
    let index = table.channel_index.as_ref().filter(|_| backend == Backend::MySql);
    index.map(|name| format!("FORCE INDEX (`{}`) ", name.replace('`', "``"))).unwrap_or_default()
}

/// The columns of a new row, and the types to which PostgreSQL casts their values.
fn columns(backend: Backend, table: &MessageTable) -> (Vec<String>, Vec<String>) {
    let required = [("data_id", "bigint"), ("channel", "text"), ("data", "text"), ("created", "text::timestamp")];
    let optional = table.optional().map(|(name, cast, _)| (name, cast));
    let own = required.into_iter().chain(optional).map(|(name, cast)| (name.to_owned(), cast.to_owned()));
    let fields = table.fields.iter().map(|field| (quoted(backend, &field.name), format!("text::{}", field.cast)));
    own.chain(fields).unzip()
}

/// Fragments that several statements share.
struct Fragments {
    backend: Backend,
    id: String,
    created: String,
    /// The channel's name, as bytes.
    name: String,
    /// All columns of a message.
    selected: String,
    /// The condition for a channel, which is bound twice: once for the index's comparison, once for the exact comparison.
    of_channel: String,
    /// The condition that a message has no due time.
    not_delayed: &'static str,
}

impl Fragments {
    fn new(backend: Backend, table: &MessageTable) -> Self {
        let text = |column: &str| as_text(backend, column);
        let (created, name, of_channel) = match backend {
            Backend::MySql => (
                "CAST(created AS CHAR)".to_owned(),
                "CAST(CONVERT(channel USING utf8mb4) AS BINARY)".to_owned(),
                "channel = ? AND CAST(CONVERT(channel USING utf8mb4) AS BINARY) = CAST(? AS BINARY)".to_owned(),
            ),
            Backend::Postgres => (
                "to_char(created, 'YYYY-MM-DD HH24:MI:SS')".to_owned(),
                "channel::text".to_owned(),
                "channel = $1::text AND channel::text COLLATE \"C\" = $2::text".to_owned(),
            ),
        };
        let optional = |column: &str| if table.has(column) { text(column) } else { "NULL".to_owned() };
        let id = text("data_id");
        let plain = |column: &'static str| if table.has(column) { column } else { "NULL" };
        let publication = plain("publication");
        let selected = format!(
            "{id}, {name}, data, {created}, {}, {}, {}, {publication}, {}, {}, {}, {}, {}",
            optional("expires"),
            optional("due"),
            optional("receivers"),
            optional("deliveries"),
            plain("dead_why"),
            plain("dead_channel"),
            optional("dead_attempts"),
            plain("dead_reason")
        );
        let not_delayed = if table.has("due") { "AND due IS NULL" } else { "" };
        Self { backend, id, created, name, selected, of_channel, not_delayed }
    }

    fn text(&self, expression: &str) -> String {
        as_text(self.backend, expression)
    }

    fn delayed(&self, data: &str, table: &MessageTable) -> String {
        let selected = &self.selected;
        let (after, limit) = (placeholder(self.backend, 1, "bigint"), placeholder(self.backend, 2, "bigint"));
        let is_delayed = if table.has("due") { "due IS NOT NULL" } else { "1 = 0" };
        format!(
            "SELECT {selected} FROM {data} WHERE {is_delayed} AND data_id > {after} ORDER BY {data}.data_id LIMIT {limit}"
        )
    }

    fn expired(&self, data: &str, table: &MessageTable) -> String {
        let Self { id, name, not_delayed, .. } = self;
        let (now, limit) = (placeholder(self.backend, 1, "bigint"), placeholder(self.backend, 2, "bigint"));
        if !table.has("expires") {
            return format!("SELECT {id}, {name} FROM {data} WHERE 1 = 0 AND data_id > {now} LIMIT {limit}");
        }
        format!(
            "SELECT {id}, {name} FROM {data} WHERE expires IS NOT NULL AND expires <= {now} {not_delayed} \
             ORDER BY {data}.expires LIMIT {limit} FOR UPDATE"
        )
    }

    fn spared(&self, data: &str, table: &MessageTable) -> String {
        let Self { selected, not_delayed, .. } = self;
        if !table.has("expires") {
            return String::new();
        }
        let at = |number| placeholder(self.backend, number, "bigint");
        format!(
            "SELECT {selected} FROM {data} WHERE expires IS NOT NULL AND expires <= {} {not_delayed} AND data_id > 0 \
             AND (expires > {} OR (expires = {} AND data_id > {})) ORDER BY {data}.expires, {data}.data_id LIMIT {} FOR UPDATE",
            at(1),
            at(2),
            at(3),
            at(4),
            at(5)
        )
    }

    /// Selects the first and the last expiry.
    fn expiry_bounds(&self, data: &str, table: &MessageTable) -> Option<String> {
        let (first, last, not_delayed) = (self.text("MIN(expires)"), self.text("MAX(expires)"), self.not_delayed);
        let query =
            format!("SELECT {first}, {last} FROM {data} WHERE expires IS NOT NULL AND data_id > 0 {not_delayed}");
        table.has("expires").then_some(query)
    }

    /// Selects the expiries by channel and interval. The statement takes the length of the interval.
    fn expiries(&self, data: &str) -> String {
        let Self { name, not_delayed, .. } = self;
        let (first, count) = (self.text("MIN(expires)"), self.text("COUNT(*)"));
        let span = match self.backend {
            Backend::MySql => "expires DIV ?".to_owned(),
            Backend::Postgres => format!("expires / {}", placeholder(self.backend, 1, "bigint")),
        };
        format!(
            "SELECT {name}, {first}, {count} FROM {data} WHERE expires IS NOT NULL AND data_id > 0 {not_delayed} GROUP BY {name}, {span}"
        )
    }

    fn channels(&self, data: &str, index: &str, not_delayed: &str) -> String {
        let (count, last) = (self.text("COUNT(*)"), self.text("MAX(data_id)"));
        let name = &self.name;
        format!("SELECT {name}, {count}, {last} FROM {data} {index}WHERE data_id > 0 {not_delayed} GROUP BY {name}")
    }
}

/// Casts an expression to text.
pub(super) fn as_text(backend: Backend, expression: &str) -> String {
    match backend {
        Backend::MySql => format!("CAST({expression} AS CHAR)"),
        Backend::Postgres => format!("({expression})::text"),
    }
}

/// Splits `total` into powers of two, the largest first, none above `most`.
pub(super) fn batch_sizes(mut total: usize, most: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let size = [total, most].into_iter().min().filter(|size| *size > 0)?;
        let part = 1 << size.ilog2();
        total -= part;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(backend: Backend, present: bool) -> Statements {
        let prefix = Prefix::parse("mq_").expect("a valid prefix");
        Statements::new(backend, &Names::new(backend, &prefix), &MessageTable::plain(present))
    }

    #[test]
    fn rows_share_a_statement() {
        let mut mysql = statements(Backend::MySql, false);
        let insert = mysql.batch(Batch::Insert, 2);
        assert_eq!(
            &*insert,
            "INSERT INTO `mq_data` (data_id, channel, data, created) VALUES (?, ?, ?, ?), (?, ?, ?, ?)"
        );
        assert!(Arc::ptr_eq(&insert, &mysql.batch(Batch::Insert, 2)), "it is made once");
        assert_eq!(&*mysql.batch(Batch::Delete, 2), "DELETE FROM `mq_data` WHERE data_id IN (?, ?)");
        let mut postgres = statements(Backend::Postgres, false);
        assert_eq!(
            &*postgres.batch(Batch::Insert, 2),
            "INSERT INTO \"mq_data\" (data_id, channel, data, created) VALUES \
             ($1::bigint, $2::text, $3::text, $4::text::timestamp), ($5::bigint, $6::text, $7::text, $8::text::timestamp)"
        );
        assert_eq!(
            &*postgres.batch(Batch::Count, 1),
            "UPDATE \"mq_data\" SET deliveries = CASE data_id WHEN $1::bigint THEN $2::bigint END WHERE data_id IN ($3::bigint)"
        );
    }

    #[test]
    fn mysql_is_told_which_index_serves() {
        let mut named = MessageTable::plain(true);
        named.channel_index = Some("odd`name".to_owned());
        let prefix = Prefix::parse("mq_").expect("a valid prefix");
        let load = |backend, table: &MessageTable| {
            Statements::new(backend, &Names::new(backend, &prefix), table).load.to_string()
        };
        assert!(load(Backend::MySql, &named).contains("FROM `mq_data` FORCE INDEX (`odd``name`) WHERE channel = ?"));
        assert!(!load(Backend::MySql, &MessageTable::plain(true)).contains("INDEX"));
        assert!(!load(Backend::Postgres, &named).contains("INDEX"));
    }

    #[test]
    fn columns_that_are_not_there_are_not_named() {
        for backend in [Backend::MySql, Backend::Postgres] {
            let texts = |present| {
                let statements = statements(backend, present);
                let Statements { load, scan, delayed, expired, purge, channels, newest, .. } = &statements;
                [load, scan, delayed, expired, purge, channels, newest].map(|text| text.to_string()).join("; ")
            };
            for name in ["expires", "due", "receivers", "publication", "deliveries"] {
                assert!(texts(true).contains(name) && !texts(false).contains(name), "{name} on {backend:?}");
            }
        }
    }

    #[test]
    fn parts_are_powers_of_two_and_add_up() {
        for (total, most, expected) in
            [(0, 256, vec![]), (1, 256, vec![1]), (7, 256, vec![4, 2, 1]), (600, 256, vec![256, 256, 64, 16, 8])]
        {
            assert_eq!(batch_sizes(total, most).collect::<Vec<_>>(), expected);
        }
    }
}
