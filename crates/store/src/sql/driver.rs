//! A connection to a database server of either kind: takes statements with bound values, returns plain rows.
//!
//! Every column that is read is text or bytes (the statements cast), so that rows of other programs cannot cause decoding errors. Statements never
//! contain text that a client sent.

use std::borrow::Cow;
use std::sync::Arc;

#[cfg(feature = "mysql")]
use sqlx::MySqlConnection;
#[cfg(feature = "postgres")]
use sqlx::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

/// A bound value of a statement. NULL has a type too: a statement is prepared once, with the types of its first values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Integer(Option<i64>),
    Text(Option<Cow<'a, str>>),
}

impl From<u64> for Value<'_> {
    /// Numbers out of the columns' range become the largest number.
    fn from(number: u64) -> Self {
        Self::Integer(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(Cow::Borrowed(text)))
    }
}

/// A row of cells: UTF-8 text or other bytes, `None` for NULL.
pub(super) type Row = Vec<Option<Vec<u8>>>;

/// A connection.
#[derive(Debug)]
pub(super) enum Driver {
    #[cfg(feature = "mysql")]
    MySql(Box<MySqlConnection>),
    #[cfg(feature = "postgres")]
    Postgres(Box<PgConnection>),
}

/// Runs the same code for every driver; sqlx has different types for each.
macro_rules! on {
    ($driver:expr, $connection:ident => $work:expr) => {
        match $driver {
            #[cfg(feature = "mysql")]
            Driver::MySql($connection) => $work,
            #[cfg(feature = "postgres")]
            Driver::Postgres($connection) => $work,
        }
    };
}

/// A query with its values bound.
macro_rules! bound {
    ($statement:expr, $values:expr) => {{
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone($statement)));
        for value in $values {
            query = match value {
                Value::Integer(whole) => query.bind(*whole),
                Value::Text(text) => query.bind(text.as_deref()),
            };
        }
        query
    }};
}

impl Driver {
    /// Runs a statement with values; returns the number of affected rows.
    pub(super) async fn execute(&mut self, statement: &Arc<str>, values: &[Value<'_>]) -> sqlx::Result<u64> {
        on!(self, connection => {
            bound!(statement, values).execute(&mut **connection).await.map(|done| done.rows_affected())
        })
    }

    /// Runs a query; returns all rows.
    pub(super) async fn fetch(&mut self, statement: &Arc<str>, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        on!(self, connection => {
            let rows = bound!(statement, values).fetch_all(&mut **connection).await?;
            rows.iter().map(|row| (0..row.len()).map(|index| row.try_get_unchecked(index)).collect()).collect()
        })
    }

    /// Runs a query; returns the first value of the first row.
    pub(super) async fn value(&mut self, statement: &str, values: &[Value<'_>]) -> sqlx::Result<Option<String>> {
        let rows = self.fetch(&Arc::from(statement), values).await?;
        Ok(rows.into_iter().next().and_then(|row| text(row.into_iter().next().flatten())))
    }

    /// Closes the connection.
    pub(super) async fn close(self) -> sqlx::Result<()> {
        use sqlx::Connection as _;
        on!(self, connection => connection.close().await)
    }

    /// Runs statements without values.
    pub(super) async fn run(&mut self, script: &str) -> sqlx::Result<()> {
        on!(self, connection => {
            sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(&mut **connection).await.map(drop)
        })
    }
}

/// A cell as text; `None` for NULL and for invalid UTF-8.
pub(super) fn text(cell: Option<Vec<u8>>) -> Option<String> {
    cell.and_then(|bytes| String::from_utf8(bytes).ok())
}

/// A cell as a number; `None` if it is negative or not a number.
pub(super) fn number(cell: Option<Vec<u8>>) -> Option<u64> {
    text(cell)?.parse().ok()
}
