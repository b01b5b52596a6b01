//! Writes the ids of accepted publications to the [`IdFile`], so that they survive a restart: once a second, before the row of a stored message is
//! removed, and at the end.
//!
//! The core lists the ids that it accepts; this module appends the list to the file. If the file cannot be used, a warning is logged, and ids are
//! remembered until the next restart. Must never be called under the core's lock, or on a thread that serves sockets, because file access may block.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use super::clock::Clock;
use super::core::Core;
use super::counters::WarningLimit;
use wsmb_core::broker::{Broker, ForgottenIds};
use wsmb_core::message::{AcceptedId, Timestamp};
use wsmb_store::{FoundIds, IdFile};

/// The file of ids, if one is open.
#[derive(Debug, Default)]
pub(super) struct Ids {
    file: Mutex<Option<IdFile>>,
    /// The file needs another save even without new ids: a write failed, or data is not yet durable.
    unfinished: AtomicBool,
    /// The last write failed; the next success is logged.
    is_failing: AtomicBool,
    /// The wall clock's time minus core time at the last save, in milliseconds, wrapping.
    offset: AtomicU64,
    failure_warning: WarningLimit,
    forgotten_warning: WarningLimit,
}

impl Ids {
    /// Opens the file, and returns the ids that it holds from `since` on. Blocks.
    pub(super) fn open(path: Option<&Path>, since: Timestamp, now: Timestamp) -> (Self, FoundIds) {
        // The fallback is weaker: an attacker who knows the start time could construct ids that collide.
        let random = [(); 2].map(|()| getrandom::u64().unwrap_or(now.0));
        let Some(path) = path else { return (Self::default(), FoundIds { seed: random, ..FoundIds::default() }) };
        match IdFile::open(path, since, now, random) {
            Ok((file, found)) => {
                if let Some(problem) = &found.problem {
                    warn!(
                        file = %path.display(),
                        "the file of remembered ids: {problem}; a publication that was accepted before this start and is sent again may be delivered twice"
                    );
                }
                (Self { file: Mutex::new(Some(file)), ..Self::default() }, found)
            }
            Err(cause) => {
                warn!(
                    file = %path.display(), %cause,
                    "the file of remembered ids cannot be opened; until it can, at the next start, a restart forgets which publications were accepted"
                );
                (Self::default(), FoundIds { seed: random, ..FoundIds::default() })
            }
        }
    }

    /// Writes the new ids. `durably`: so that they survive a power cut. Blocks.
    pub(super) fn save(&self, core: &Core, clock: &Clock, durably: bool) {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (fresh, forgotten, known) = core.take_fresh_ids();
        if let Some(forgotten) = forgotten {
            self.warn_of_forgotten(&forgotten);
        }
        let Some(file) = &mut *slot else { return };
        // The file contains wall clock times, as the store does. After a step of that clock all ids are written again.
        let now = clock.now();
        let offset = clock.on_the_wall(now).0.wrapping_sub(now.0);
        let is_set = self.offset.swap(offset, Ordering::Relaxed) != offset;
        let dated = |ids: Vec<AcceptedId>| -> Vec<AcceptedId> {
            ids.into_iter().map(|id| AcceptedId { at: clock.on_the_wall(id.at), ..id }).collect()
        };
        let written = if is_set || fresh.incomplete || file.wants_rewrite(known) {
            file.rewrite(&dated(core.with_broker(Broker::accepted_ids)))
        } else {
            file.append(&dated(fresh.ids))
        };
        let saved = written.and_then(|()| file.sync(!durably));
        self.unfinished.store(saved.is_err() || file.is_dirty(), Ordering::Relaxed);
        match saved {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    info!(file = %file.path().display(), "the file of remembered ids can be written again");
                }
            }
            Err(cause) => {
                self.is_failing.store(true, Ordering::Relaxed);
                if let Some(withheld) = self.failure_warning.admit() {
                    warn!(
                        file = %file.path().display(), %cause, withheld,
                        "the file of remembered ids cannot be written; if the broker ends now, a publication that is sent again may be delivered twice"
                    );
                }
            }
        }
    }

    /// Whether the file needs another save even without new ids.
    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed)
    }

    fn warn_of_forgotten(&self, forgotten: &ForgottenIds) {
        if let Some(withheld) = self.forgotten_warning.admit() {
            let user = forgotten.user.as_deref().unwrap_or("(one who has sent nothing since the start)");
            warn!(
                %user, ids = forgotten.count, withheld,
                "more ids of publications are remembered than there is room for; the oldest of the user that has the most are forgotten before server.dedup_window is over"
            );
        }
    }
}
