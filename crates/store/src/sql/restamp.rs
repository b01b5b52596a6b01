//! Corrections of stored times.

use super::client::Session;
use super::driver::Value;
use super::schema::{read_note, write_note};
use super::statements::{Names, placeholder};
use crate::restamp::LAST_RESTAMP;
use crate::{Backend, Restamp, datetime};
use wsmb_core::message::{MessageId, Timestamp};

/// Carries out a correction, unless it was carried out before: the answer may have been lost.
///
/// # Errors
/// The server's error.
pub(super) async fn restamp(session: &mut Session, names: &Names, restamp: &Restamp) -> sqlx::Result<()> {
    let token = restamp.token.to_string();
    session.driver.run("BEGIN").await?;
    if read_note(&mut session.driver, names, LAST_RESTAMP).await?.as_ref() == Some(&token) {
        return session.driver.run("COMMIT").await;
    }
    let (data, backend) = (&names.data, names.backend);
    let mut values = vec![Value::Integer(Some(restamp.seconds()))];
    let mut sets = vec![match backend {
        Backend::MySql => "created = created + INTERVAL ? SECOND".to_owned(),
        Backend::Postgres => "created = created + $1::bigint * INTERVAL '1 second'".to_owned(),
    }];
    let moments: Vec<&str> = ["expires", "due"].into_iter().filter(|column| session.table.has(column)).collect();
    for column in &moments {
        values.push(Value::Integer(Some(restamp.by)));
        // NULL stays NULL on both: PostgreSQL's GREATEST leaves NULL out, CASE does not.
        let moved = format!("{column} + {}", placeholder(backend, values.len(), "bigint"));
        sets.push(format!("{column} = CASE WHEN {column} IS NULL THEN NULL ELSE GREATEST(0, {moved}) END"));
    }
    values.push(Value::from(restamp.after.0));
    let mut which = format!("data_id > {}", placeholder(backend, values.len(), "bigint"));
    for column in moments.iter().filter(|_| restamp.all) {
        which += &format!(" OR {column} IS NOT NULL");
    }
    let statement = format!("UPDATE {data} SET {} WHERE {which}", sets.join(", "));
    session.driver.execute(&statement.into(), &values).await?;
    write_note(&mut session.driver, names, LAST_RESTAMP, &token).await?;
    session.driver.run("COMMIT").await
}

/// Corrects rows with an expiry or a due time that were created in the future.
///
/// # Errors
/// The server's error.
pub(super) async fn clamp_future_rows(
    session: &mut Session,
    names: &Names,
    now: Timestamp,
    up_to: MessageId,
) -> sqlx::Result<()> {
    let (data, backend) = (&names.data, names.backend);
    let moments: Vec<&str> = ["expires", "due"].into_iter().filter(|column| session.table.has(column)).collect();
    if moments.is_empty() {
        return Ok(());
    }
    // As `crate::restamp::future_excess`, in SQL.
    let (created, cast) = match backend {
        Backend::MySql => ("TIMESTAMPDIFF(SECOND, '1970-01-01 00:00:00', created) * 1000", "text"),
        Backend::Postgres => ("floor(extract(epoch FROM created))::bigint * 1000", "text::timestamp"),
    };
    let mut values = Vec::new();
    let mut sets = Vec::new();
    for column in &moments {
        values.push(Value::from(now.0));
        let moved = format!("{column} - ({created} + 999 - {})", placeholder(backend, values.len(), "bigint"));
        sets.push(format!("{column} = CASE WHEN {column} IS NULL THEN NULL ELSE GREATEST(0, {moved}) END"));
    }
    // Set last, because in MySQL later assignments read the values that earlier ones have set.
    values.push(Value::Text(Some(datetime::to_text(now).into())));
    sets.push(format!("created = {}", placeholder(backend, values.len(), cast)));
    values.push(Value::Text(Some(datetime::to_text(now).into())));
    let young = placeholder(backend, values.len(), cast);
    values.push(Value::from(up_to.0));
    let up_to = placeholder(backend, values.len(), "bigint");
    let ends: Vec<String> = moments.iter().map(|column| format!("{column} IS NOT NULL")).collect();
    let statement = format!(
        "UPDATE {data} SET {} WHERE created > {young} AND data_id <= {up_to} AND ({})",
        sets.join(", "),
        ends.join(" OR ")
    );
    session.driver.execute(&statement.into(), &values).await.map(drop)
}
