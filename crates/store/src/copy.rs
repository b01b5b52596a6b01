//! Copies a backlog from one store to another while no broker runs on either store.
//!
//! Each batch is written to the destination together with a mark that stores the last copied id, in one transaction. So a copy that was killed at any
//! moment continues where it stopped, and no message is copied twice. The source is identified by a random number that the first copy stores in it,
//! so that another store at the same address is not mistaken for it.

use std::fmt;

use super::{Group, MessageStore, Prefix, StoppedStore, StoreError, StoreSettings};
use crate::limits;
use crate::platform::canonical;
use crate::settings::Location;
use wsmb_core::message::{Message, MessageId};

/// The name of the mark that identifies a source.
const SOURCE: &str = "copy.source";

/// The options of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Remove messages from the source when they are durable in the destination.
    pub remove: bool,
    /// Copy messages again that an earlier copy has copied.
    pub again: bool,
}

/// The progress of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of messages in the destination, from this copy or an earlier one.
    pub done: u64,
    /// The number of messages in the source when the copy began.
    pub total: u64,
}

/// The result of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The number of messages that this copy copied.
    pub copied: u64,
    /// The number of messages of the source that an earlier copy had copied.
    pub earlier: u64,
    /// The number of messages that were removed from the source.
    pub removed: u64,
    /// The difference between the ids in the destination and the ids in the source.
    pub shift: u64,
}

/// The reason why a copy stopped early. Copied messages stay in the destination, and the same copy continues with the rest.
#[derive(Debug)]
pub enum CopyError {
    /// Source and destination are the same store.
    Same,
    /// The source cannot be read or written.
    Source(StoreError),
    /// The destination cannot be used.
    Destination(StoreError),
    /// The ids of the source, moved above the ids of the destination, would exceed the range of the id column.
    Ids,
    /// The system returned no random number.
    System(getrandom::Error),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (end, error) = match self {
            Self::Same => {
                return f.write_str("source and destination are the same store; name another one with --from or --to");
            }
            Self::Ids => {
                return f.write_str(
                    "the ids of the source, moved above those of the destination, exceed 9223372036854775807; \
                     copy into an empty store",
                );
            }
            Self::System(error) => return write!(f, "the system gives no random number: {error}"),
            Self::Source(error) => ("source", error),
            Self::Destination(error) => ("destination", error),
        };
        write!(f, "the {end}: {error}")
    }
}

impl std::error::Error for CopyError {}

/// Copies all messages of `from` to `to`; creates `to` if it does not exist. `progress` is called after each batch. Blocks.
///
/// # Errors
/// [`CopyError`]; copied messages stay, and are not copied again.
pub fn copy(
    from: &StoreSettings,
    to: &StoreSettings,
    options: CopyOptions,
    progress: impl FnMut(Progress),
) -> Result<Copied, CopyError> {
    if is_same(from, to).map_err(CopyError::Source)? {
        return Err(CopyError::Same);
    }
    let source = StoppedStore::open(from).map_err(CopyError::Source)?;
    let destination = StoppedStore::make(to).map_err(CopyError::Destination)?;
    copy_all(source, destination, options, progress)
}

/// Copies, and closes both stores.
fn copy_all(
    mut source: StoppedStore<'_>,
    mut destination: StoppedStore<'_>,
    options: CopyOptions,
    progress: impl FnMut(Progress),
) -> Result<Copied, CopyError> {
    let total =
        source.summary.channels.iter().map(|found| found.messages).sum::<u64>() + source.summary.delayed.len() as u64;
    let last_id = destination.summary.last_id;
    let copied = copy_rows(&mut *source.store, &mut *destination.store, last_id, options, total, progress);
    // If the source's broker crashed, delivery counts may be too low, and so are their copies.
    destination.summary.clean &= source.summary.clean;
    let closed = destination.close().map_err(CopyError::Destination).and(source.close().map_err(CopyError::Source));
    let copied = copied?;
    closed.map(|()| copied)
}

fn copy_rows(
    source: &mut dyn MessageStore,
    destination: &mut dyn MessageStore,
    last_id: MessageId,
    options: CopyOptions,
    total: u64,
    mut progress: impl FnMut(Progress),
) -> Result<Copied, CopyError> {
    let mark = format!("copy.{:016x}", identity(source)?);
    let reached = destination.mark(&mark).map_err(CopyError::Destination)?.filter(|_| !options.again);
    let reached = MessageId(reached.unwrap_or(0));
    let mut copied = Copied::default();
    let mut shift = None;
    let mut after = MessageId(0);
    loop {
        let page =
            source.scan(after, wsmb_core::limits::STORE_GROUP, limits::STORE_GROUP_BYTES).map_err(CopyError::Source)?;
        let removals: Vec<MessageId> = page.messages.iter().map(|message| message.id).collect();
        let Some(last) = removals.last().copied() else { return Ok(copied) };
        let (earlier, new): (Vec<_>, Vec<_>) = page.messages.into_iter().partition(|message| message.id <= reached);
        copied.earlier += earlier.len() as u64;
        if let Some(first) = new.first() {
            let by = *shift.get_or_insert_with(|| shift_of(first.id, last_id));
            copied.shift = by;
            copied.copied += new.len() as u64;
            let appends = new.into_iter().map(|message| shifted(message, by)).collect::<Result<_, _>>()?;
            let group = Group { appends, marks: vec![(mark.clone(), last.0)], ..Group::default() };
            destination.commit(&group).map_err(CopyError::Destination)?;
        }
        if options.remove {
            copied.removed += removals.len() as u64;
            source.commit(&Group { removals, ..Group::default() }).map_err(CopyError::Source)?;
        }
        progress(Progress { done: copied.copied + copied.earlier, total });
        if page.complete {
            return Ok(copied);
        }
        after = last;
    }
}

/// The amount to add to ids from `first` on so that they lie above `last`: no id that the destination has used is used again.
fn shift_of(first: MessageId, last: MessageId) -> u64 {
    (last.0 + 1).saturating_sub(first.0)
}

fn shifted(message: Message, by: u64) -> Result<Message, CopyError> {
    let id = message.id.0.checked_add(by).filter(|id| i64::try_from(*id).is_ok()).ok_or(CopyError::Ids)?;
    Ok(Message { id: MessageId(id), ..message })
}

/// Returns the number that identifies the source; stores a new number if it has none.
fn identity(source: &mut dyn MessageStore) -> Result<u64, CopyError> {
    if let Some(known) = source.mark(SOURCE).map_err(CopyError::Source)? {
        return Ok(known);
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(CopyError::System)?;
    // The range of a mark's value.
    let number = u64::from_le_bytes(bytes) >> 1;
    let group = Group { marks: vec![(SOURCE.to_owned(), number)], ..Group::default() };
    source.commit(&group).map_err(CopyError::Source)?;
    Ok(number)
}

/// Whether both settings name the same file, or the same prefix in the same database.
fn is_same(from: &StoreSettings, to: &StoreSettings) -> Result<bool, StoreError> {
    let (ours, theirs) = (Location::parse(&from.url)?, Location::parse(&to.url)?);
    Ok(match (&ours, &theirs) {
        (Location::Sqlite(ours), Location::Sqlite(theirs)) => {
            canonical(ours).ok().is_some_and(|ours| canonical(theirs).is_ok_and(|theirs| ours == theirs))
        }
        (Location::Server(ours), Location::Server(theirs)) => {
            let place = |backend, settings: &StoreSettings| {
                crate::open::server_place(backend, &settings.url, &Prefix::parse(&settings.prefix)?)
            };
            let same_prefix = Prefix::parse(&from.prefix)? == Prefix::parse(&to.prefix)?;
            same_prefix && ours == theirs && place(*ours, from)? == place(*theirs, to)?
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests;
