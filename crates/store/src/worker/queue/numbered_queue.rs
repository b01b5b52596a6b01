//! A queue whose items have numbers, so that an item can be removed before its turn. Never assigns a number twice.

use std::collections::VecDeque;

use crate::limits;

/// A queue with removal from the middle. Its first slot is never empty, so that empty slots are freed once every earlier item has left.
#[derive(Debug)]
pub(super) struct NumberedQueue<T> {
    slots: VecDeque<Option<T>>,
    /// The number of the first slot.
    first: u64,
    len: usize,
}

impl<T> Default for NumberedQueue<T> {
    fn default() -> Self {
        Self { slots: VecDeque::new(), first: 0, len: 0 }
    }
}

impl<T> NumberedQueue<T> {
    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the queue is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of the first item; if the queue is empty, the number of the next item.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next item.
    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Adds an item at the end. Its number is [`Self::next`] as of before the call.
    pub(super) fn push(&mut self, item: T) {
        self.slots.push_back(Some(item));
        self.len += 1;
    }

    /// The first item.
    pub(super) fn peek(&self) -> Option<&T> {
        self.slots.front()?.as_ref()
    }

    /// Removes and returns the first item.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.take(self.first)
    }

    /// Removes and returns the item with this number, if it is in the queue.
    pub(super) fn take(&mut self, number: u64) -> Option<T> {
        let item = self.slot(number)?.take()?;
        self.len -= 1;
        while self.slots.pop_front_if(|slot| slot.is_none()).is_some() {
            self.first += 1;
        }
        if self.slots.is_empty() {
            // Frees the memory of a burst.
            self.slots.shrink_to(limits::STORE_QUEUE_SLOTS);
        }
        Some(item)
    }

    /// The item with this number, if it is in the queue.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.slot(number)?.as_mut()
    }

    /// All items, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    fn slot(&mut self, number: u64) -> Option<&mut Option<T>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_can_be_removed_from_the_middle() {
        let mut numbered_queue = NumberedQueue::default();
        for item in ["a", "b", "c", "d"] {
            numbered_queue.push(item);
        }
        assert_eq!((numbered_queue.take(1), numbered_queue.take(1), numbered_queue.take(9)), (Some("b"), None, None));
        assert_eq!((numbered_queue.first(), numbered_queue.len()), (0, 3));
        assert_eq!(numbered_queue.pop(), Some("a"));
        assert_eq!((numbered_queue.first(), numbered_queue.get_mut(3).copied()), (2, Some("d")));
        assert_eq!(numbered_queue.iter().copied().collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!((numbered_queue.pop(), numbered_queue.pop(), numbered_queue.pop()), (Some("c"), Some("d"), None));
        assert_eq!((numbered_queue.first(), numbered_queue.next(), numbered_queue.is_empty()), (4, 4, true));
        numbered_queue.push("e");
        assert_eq!((numbered_queue.take(0), numbered_queue.take(4)), (None, Some("e")));
    }
}
