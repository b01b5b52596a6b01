//! The floor: what somebody would write who only wants these rows in and out of this table, with the same driver.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};
use tokio::runtime::Runtime;

use crate::servers::{Database, Kind};

/// Rows of one statement.
const ROWS: usize = 256;
/// Ids of one statement.
const IDS: usize = 1_024;

/// A row.
pub struct Row {
    pub id: i64,
    pub channel: &'static str,
    pub data: String,
    pub created: &'static str,
}

/// A connection of one driver or the other.
enum Driver {
    MySql(MySqlConnection),
    Postgres(PgConnection),
}

/// A client that does nothing else.
pub struct Bare {
    runtime: Runtime,
    driver: Driver,
}

impl Bare {
    pub fn connect(database: &Database) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let url = database.url_with_password();
        let driver = runtime.block_on(async {
            match database.kind {
                Kind::Postgres => Driver::Postgres(PgConnection::connect(&url).await.expect("a connection")),
                _ => Driver::MySql(MySqlConnection::connect(&url).await.expect("a connection")),
            }
        });
        Self { runtime, driver }
    }

    /// One transaction.
    pub fn commit(&mut self, rows: &[Row], removals: &[i64]) {
        self.runtime.block_on(async {
            match &mut self.driver {
                Driver::MySql(connection) => mysql(connection, rows, removals).await,
                Driver::Postgres(connection) => postgres(connection, rows, removals).await,
            }
            .expect("a transaction");
        });
    }
}

/// The places of `count` values, `width` to a row.
fn places(count: usize, width: usize, place: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for row in 0..count {
        let values: Vec<String> = (0..width).map(|column| place(row * width + column)).collect();
        let comma = if row == 0 { "" } else { "," };
        let _infallible = if width == 1 {
            write!(text, "{comma}{}", values[0])
        } else {
            write!(text, "{comma}({})", values.join(","))
        };
    }
    text
}

const COLUMNS: &str = "data_id, channel, data, created, expires, due, receivers, publication, deliveries";

async fn mysql(connection: &mut MySqlConnection, rows: &[Row], removals: &[i64]) -> sqlx::Result<()> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    for part in rows.chunks(ROWS) {
        let text = format!("INSERT INTO mq_data ({COLUMNS}) VALUES {}", places(part.len(), 9, |_| "?".to_owned()));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for row in part {
            query = query.bind(row.id).bind(row.channel).bind(&row.data).bind(row.created);
            query = query.bind(None::<i64>).bind(None::<i64>).bind(None::<i64>).bind(None::<&str>).bind(None::<i64>);
        }
        query.execute(&mut *connection).await?;
    }
    for part in removals.chunks(IDS) {
        let text = format!("DELETE FROM mq_data WHERE data_id IN ({})", places(part.len(), 1, |_| "?".to_owned()));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for id in part {
            query = query.bind(id);
        }
        query.execute(&mut *connection).await?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map(drop)
}

async fn postgres(connection: &mut PgConnection, rows: &[Row], removals: &[i64]) -> sqlx::Result<()> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    for part in rows.chunks(ROWS) {
        let place = |index: usize| {
            let cast = if index % 9 == 3 { "::timestamp" } else { "" };
            format!("${}{}{cast}", index + 1, if cast.is_empty() { "" } else { "::text" })
        };
        let text = format!("INSERT INTO mq_data ({COLUMNS}) VALUES {}", places(part.len(), 9, place));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for row in part {
            query = query.bind(row.id).bind(row.channel).bind(&row.data).bind(row.created);
            query = query.bind(None::<i64>).bind(None::<i64>).bind(None::<i64>).bind(None::<&str>).bind(None::<i64>);
        }
        query.execute(&mut *connection).await?;
    }
    for part in removals.chunks(IDS) {
        let place = |index: usize| format!("${}", index + 1);
        let text = format!("DELETE FROM mq_data WHERE data_id IN ({})", places(part.len(), 1, place));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for id in part {
            query = query.bind(id);
        }
        query.execute(&mut *connection).await?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map(drop)
}
