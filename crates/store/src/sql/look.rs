//! A look at a store on a database server from outside, whether a broker runs on it or not. Takes no lock, makes nothing, and reads no message.

use super::super::{Backend, Prefix, StoreError, StoreSettings};
use super::client::{Client, Purpose};
use super::connect::Access;
use super::schema;
use super::statements::Names;
use crate::limits;
use crate::look::Look;

/// Connects and looks.
///
/// # Errors
/// [`StoreError::Missing`] if there is no message table, what would keep a broker with these columns from starting on it, and whatever keeps it from
/// being seen.
pub(crate) fn look(backend: Backend, settings: &StoreSettings, prefix: &Prefix) -> Result<Look, StoreError> {
    let access = Access::parse(backend, &settings.url, settings.password.as_deref(), prefix)?;
    let (place, names) = (access.place.clone(), Names::new(backend, prefix));
    let mut client = Client::new(access, names.clone(), Purpose::Look(settings.columns.clone()))?;
    let lacks = client.table()?.lacks(&names.data_plain, &place);
    let missing =
        client.run(limits::STORE_ANSWER, async |session| schema::missing(&mut session.driver, &names).await)?;
    let holder = client.holder()?;
    Ok(Look { place, holder, lacks, missing, journal_of: None })
}
