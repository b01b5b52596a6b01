//! The lock of one broker on one table, held while its connection is open. The server releases the lock when the connection ends or is idle for too
//! long.

use super::super::Backend;
use super::connect::Access;
use super::driver::{Driver, Value};
use crate::limits;

/// In PostgreSQL the lock's name is a 64-bit number, whose halves are in two columns.
const HOLDER: &str = "SELECT l.pid::text FROM pg_locks l, (SELECT hashtextextended($1::text, 0) AS name) k \
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    AND l.classid::bigint = (k.name >> 32) & 4294967295 AND l.objid::bigint = k.name & 4294967295";

/// Takes the lock; false if another connection holds it. Waits up to [`limits::STORE_HANDOVER`] for a connection that is ending.
///
/// # Errors
/// The server's error.
pub(super) async fn take(access: &Access, driver: &mut Driver) -> sqlx::Result<bool> {
    let query = match access.backend {
        Backend::MySql => "SELECT CAST(GET_LOCK(?, 0) AS CHAR)",
        Backend::Postgres => "SELECT (pg_try_advisory_lock(hashtextextended($1::text, 0)))::int::text",
    };
    let deadline = tokio::time::Instant::now() + limits::STORE_HANDOVER;
    loop {
        let taken = driver.value(query, &[Value::from(access.lock.as_str())]).await?.as_deref() == Some("1");
        if taken || tokio::time::Instant::now() >= deadline {
            return Ok(taken);
        }
        tokio::time::sleep(limits::STORE_HANDOVER / 20).await;
    }
}

/// The number of this connection.
///
/// # Errors
/// The server's error.
pub(super) async fn own_number(access: &Access, driver: &mut Driver) -> sqlx::Result<Option<u64>> {
    let query = match access.backend {
        Backend::MySql => "SELECT CAST(CONNECTION_ID() AS CHAR)",
        Backend::Postgres => "SELECT pg_backend_pid()::text",
    };
    Ok(driver.value(query, &[]).await?.and_then(|number| number.parse().ok()))
}

/// The number of the connection that holds the lock.
///
/// # Errors
/// The server's error.
pub(super) async fn holder(access: &Access, driver: &mut Driver) -> sqlx::Result<Option<u64>> {
    let query = match access.backend {
        Backend::MySql => "SELECT CAST(IS_USED_LOCK(?) AS CHAR)",
        Backend::Postgres => HOLDER,
    };
    let number = driver.value(query, &[Value::from(access.lock.as_str())]).await?;
    Ok(number.and_then(|number| number.parse().ok()))
}

/// Describes a connection, from the server's data.
///
/// # Errors
/// The server's error.
pub(super) async fn describe(access: &Access, driver: &mut Driver, connection: u64) -> sqlx::Result<String> {
    let query = match access.backend {
        Backend::MySql => {
            "SELECT CONCAT('connection ', ID, ' of ', USER, ' from ', HOST) FROM information_schema.PROCESSLIST WHERE ID = ?"
        }
        Backend::Postgres => {
            "SELECT concat('connection ', pid, ' of ', usename, ' from ', coalesce(host(client_addr), 'the server itself')) \
             FROM pg_stat_activity WHERE pid = $1::bigint"
        }
    };
    let description = driver.value(query, &[Value::from(connection)]).await?;
    Ok(description.unwrap_or_else(|| format!("connection {connection}")))
}

/// Ends a connection of the same user.
///
/// # Errors
/// The server's error.
pub(super) async fn end(access: &Access, driver: &mut Driver, connection: u64) -> sqlx::Result<()> {
    match access.backend {
        Backend::MySql => driver.run(&format!("KILL {connection}")).await,
        Backend::Postgres => driver.run(&format!("SELECT pg_terminate_backend({connection})")).await,
    }
}
