//! Copies a backlog from one store to another while no broker runs on either.
//!
//! Each batch goes into the destination together with a mark that says how far into the source it reaches, in one transaction. So a copy that was ended at any moment
//! goes on where it was, and nothing is there twice. The source is known by a number that it is given at the first copy: another store at the same address is not taken for it.

use std::fmt;

use super::{Group, MessageStore, Prefix, StoppedStore, StoreError, StoreSettings};
use crate::files::canonical;
use crate::limits;
use crate::settings::Location;
use wsmb_core::message::{Message, MessageId};

/// The mark by which a source is known.
const SOURCE: &str = "copy.source";

/// What a copy is to do beside copying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// What is safe in the destination leaves the source.
    pub remove: bool,
    /// What an earlier copy has brought is brought once more.
    pub again: bool,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Messages that are in the destination, from this copy or an earlier one.
    pub done: u64,
    /// Messages in the source when it began.
    pub total: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Messages copied now.
    pub copied: u64,
    /// Messages of the source that an earlier copy had brought to the destination.
    pub earlier: u64,
    /// Messages removed from the source.
    pub removed: u64,
    /// By how much the ids are higher in the destination.
    pub shift: u64,
}

/// Why a copy ended before its end. What is in the destination stays there, and the same copy goes on from there.
#[derive(Debug)]
pub enum CopyError {
    /// Source and destination are one.
    Same,
    /// The source can't be read, or not written.
    Source(StoreError),
    /// The destination can't be used.
    Destination(StoreError),
    /// The ids of the source, put behind those of the destination, would be beyond what a table can hold.
    Ids,
    /// The system gave no random number.
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
                    "the ids of the source, put behind those of the destination, are beyond 9223372036854775807; \
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

/// Copies everything that waits in `from` to `to`, which is made if it is not there. `progress` is called after each batch. Blocks.
///
/// # Errors
/// [`CopyError`]; what has been copied stays, and is not copied again.
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

/// Copies, and closes both.
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
    // A source that was not stopped in order has delivery counts that may be too low, and they were copied with the rest.
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
        let (earlier, news): (Vec<_>, Vec<_>) = page.messages.into_iter().partition(|message| message.id <= reached);
        copied.earlier += earlier.len() as u64;
        if let Some(first) = news.first() {
            let by = *shift.get_or_insert_with(|| shift_of(first.id, last_id));
            copied.shift = by;
            copied.copied += news.len() as u64;
            let appends = news.into_iter().map(|message| shifted(message, by)).collect::<Result<_, _>>()?;
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

/// By how much ids from `first` on must rise to lie above `last`, so that none of the destination's own is meant by them, now or before.
fn shift_of(first: MessageId, last: MessageId) -> u64 {
    (last.0 + 1).saturating_sub(first.0)
}

fn shifted(message: Message, by: u64) -> Result<Message, CopyError> {
    let id = message.id.0.checked_add(by).filter(|id| i64::try_from(*id).is_ok()).ok_or(CopyError::Ids)?;
    Ok(Message { id: MessageId(id), ..message })
}

/// The number that the source is known by; it gets one if it has none.
fn identity(source: &mut dyn MessageStore) -> Result<u64, CopyError> {
    if let Some(known) = source.mark(SOURCE).map_err(CopyError::Source)? {
        return Ok(known);
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(CopyError::System)?;
    // As large as a mark may be.
    let number = u64::from_le_bytes(bytes) >> 1;
    let group = Group { marks: vec![(SOURCE.to_owned(), number)], ..Group::default() };
    source.commit(&group).map_err(CopyError::Source)?;
    Ok(number)
}

/// One file, or one prefix in one database.
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
