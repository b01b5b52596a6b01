//! A turn: one call of [`super::Broker::handle`], with its time and its effects.

use super::effect::{Content, Effect, Effects, Note};
use crate::message::Timestamp;

/// The time of one call of [`super::Broker::handle`], and the list to which it appends effects.
pub(super) struct Turn<'a> {
    pub now: Timestamp,
    pub effects: &'a mut Effects,
}

impl Turn<'_> {
    /// Adds an entry for the administrator's log to the effects.
    pub fn note(&mut self, note: Note) {
        self.effects.list.push(Effect::Note(Box::new(note)));
    }

    /// Adds an effect. `make` builds it in its place in the list: to build it first and to copy it then costs more than all the rest.
    #[inline]
    pub fn effect(&mut self, make: impl FnOnce() -> Effect) {
        self.effects.list.extend(std::iter::once_with(make));
    }

    /// Adds a content to the effects. Returns its index.
    pub fn content(&mut self, content: Content) -> u32 {
        self.effects.contents.push(content);
        // invariant: one turn delivers at most a page of messages per channel and never reaches 2³² contents.
        u32::try_from(self.effects.contents.len() - 1).unwrap_or(u32::MAX)
    }
}
