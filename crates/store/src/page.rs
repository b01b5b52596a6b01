//! The bounds of a page, as one rule for every kind of store. Never reads a store.

use crate::message_store::Page;
use wsmb_core::message::Message;

/// Collects the messages of a page: at most `limit`, and no further message after more than `max_bytes` of payload.
#[derive(Debug)]
pub(crate) struct PageBuilder {
    messages: Vec<Message>,
    bytes: usize,
    limit: usize,
    max_bytes: usize,
}

impl PageBuilder {
    /// An empty page.
    pub(crate) fn new(limit: usize, max_bytes: usize) -> Self {
        Self { messages: Vec::new(), bytes: 0, limit, max_bytes }
    }

    /// Whether the page takes no further message.
    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= self.limit || self.bytes > self.max_bytes
    }

    /// How many messages the page still takes at most.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.messages.len())
    }

    /// The size of the payloads, in bytes.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a message.
    pub(crate) fn push(&mut self, message: Message) {
        self.bytes += message.payload.bytes.len();
        self.messages.push(message);
    }

    /// The page; `complete`: no further messages follow.
    pub(crate) fn finish(self, complete: bool) -> Page {
        Page { messages: self.messages, complete }
    }

    /// A page of the first messages. Complete if it takes all of them.
    pub(crate) fn fill(messages: impl IntoIterator<Item = Message>, limit: usize, max_bytes: usize) -> Page {
        let mut page = Self::new(limit, max_bytes);
        for message in messages {
            if page.is_full() {
                return page.finish(false);
            }
            page.push(message);
        }
        page.finish(true)
    }
}
