//! Sockets in a handshake: their request has not arrived, or they were refused and are being closed.
//!
//! Every socket is accepted. If there are too many, the oldest socket of the address with the most sockets is closed (*evicted*). So any number of silent
//! sockets keeps no client out, and the listeners never wait. A socket whose request has arrived is not evicted; it waits at most for its login.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use wsmb_core::network;
use wsmb_core::network::groups::Groups;

/// The handshakes of all listeners.
#[derive(Debug)]
pub(super) struct Handshakes {
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    /// The sockets that can be evicted, by number: the first is the oldest.
    evictable: BTreeMap<u64, Socket>,
    by_address: Groups<IpAddr>,
    last: u64,
    /// Sockets whose [`Slot`] exists, evictable or not.
    open: usize,
}

#[derive(Debug)]
struct Socket {
    address: IpAddr,
    evicted: Arc<Notify>,
}

/// Counts a socket from its accept to its end, or to the start of its session.
#[derive(Debug)]
pub(super) struct Slot {
    handshakes: Arc<Handshakes>,
    number: u64,
    evicted: Arc<Notify>,
}

impl Handshakes {
    /// `capacity`: the largest number of evictable sockets.
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), capacity }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an accepted socket, and evicts another one if there are too many.
    pub(super) fn begin(self: &Arc<Self>, peer: IpAddr) -> Slot {
        let evicted = Arc::new(Notify::new());
        let mut state = self.state();
        state.last += 1;
        state.open += 1;
        let number = state.last;
        self.insert(&mut state, number, Socket { address: network::client_network(peer), evicted: evicted.clone() });
        drop(state);
        Slot { handshakes: self.clone(), number, evicted }
    }

    fn insert(&self, state: &mut State, number: u64, socket: Socket) {
        state.by_address.insert(socket.address, number);
        state.evictable.insert(number, socket);
        if state.evictable.len() > self.capacity {
            state.evict();
        }
    }

    /// Evicts up to `count` sockets, because no file descriptors are left. Returns false if none could be evicted.
    pub(super) fn evict(&self, count: usize) -> bool {
        let mut state = self.state();
        (0..count).filter(|_| state.evict()).count() > 0
    }

    pub(super) fn open(&self) -> usize {
        self.state().open
    }
}

impl State {
    fn remove(&mut self, number: u64) -> Option<Socket> {
        let socket = self.evictable.remove(&number)?;
        self.by_address.remove(socket.address, number);
        Some(socket)
    }

    /// Evicts the oldest socket of the address with the most sockets; if each address has one, the oldest of all. Returns false if there is none.
    fn evict(&mut self) -> bool {
        let largest = self.by_address.largest().filter(|(most, _)| *most > 1);
        let oldest = largest.and_then(|(_, address)| self.by_address.of(address).next());
        let Some(number) = oldest.or(self.evictable.keys().next().copied()) else { return false };
        let socket = self.remove(number);
        if let Some(socket) = &socket {
            socket.evicted.notify_one();
        }
        socket.is_some()
    }
}

impl Slot {
    /// Returns when the socket is evicted.
    pub(super) fn evicted(&self) -> impl Future<Output = ()> + use<> {
        let evicted = self.evicted.clone();
        async move { evicted.notified().await }
    }

    /// The request has arrived: the socket cannot be evicted any more. Returns false if it was evicted already.
    pub(super) fn protect(&self) -> bool {
        self.handshakes.state().remove(self.number).is_some()
    }

    /// The socket is being closed: it can be evicted again, and counts for this address.
    pub(super) fn expose(&self, address: IpAddr) {
        let mut state = self.handshakes.state();
        state.remove(self.number);
        let socket = Socket { address: network::client_network(address), evicted: self.evicted.clone() };
        self.handshakes.insert(&mut state, self.number, socket);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.handshakes.state();
        state.open -= 1;
        state.remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    /// Whether each socket can be evicted.
    fn are_evictable(slots: &[Slot]) -> Vec<bool> {
        let state = slots[0].handshakes.state();
        slots.iter().map(|slot| state.evictable.contains_key(&slot.number)).collect()
    }

    #[test]
    fn the_oldest_of_the_address_with_the_most_is_evicted() {
        let handshakes = Arc::new(Handshakes::new(4));
        let slots: Vec<_> = [1, 2, 2, 2].map(|number| handshakes.begin(address(number))).into();
        assert_eq!(are_evictable(&slots), [true; 4]);
        let _new = handshakes.begin(address(3));
        assert_eq!(are_evictable(&slots), [true, false, true, true]);
        let _own = handshakes.begin(address(2));
        assert_eq!(are_evictable(&slots), [true, false, false, true]);
        assert!(!slots[1].protect() && slots[3].protect());
        assert_eq!(handshakes.open(), 6);
        drop(slots);
        assert_eq!(handshakes.open(), 2);
    }

    #[test]
    fn the_oldest_is_evicted_if_each_address_has_one() {
        let handshakes = Arc::new(Handshakes::new(3));
        let slots: Vec<_> = [9, 1, 5, 3].map(|number| handshakes.begin(address(number))).into();
        assert_eq!(are_evictable(&slots), [false, true, true, true]);
    }

    #[tokio::test]
    async fn only_evicted_sockets_are_notified() {
        let handshakes = Arc::new(Handshakes::new(1));
        let (one, other) = (handshakes.begin(address(1)), handshakes.begin(address(1)));
        let is_notified = async |slot: &Slot| {
            tokio::time::timeout(std::time::Duration::from_millis(10), slot.evicted()).await.is_ok()
        };
        assert!(is_notified(&one).await && !is_notified(&other).await);
        assert!(handshakes.evict(7) && !handshakes.evict(7));
        assert!(is_notified(&other).await);
    }

    proptest! {
        #[test]
        fn evictable_sockets_are_bounded_and_every_socket_is_counted(acts in prop::collection::vec((0_u8..4, 0_u8..5, 0_usize..30), 0..200)) {
            let handshakes = Arc::new(Handshakes::new(8));
            let mut slots: Vec<Slot> = Vec::new();
            for (act, from, which) in acts {
                match act {
                    0 | 1 => slots.push(handshakes.begin(address(from))),
                    2 if which < slots.len() => drop(slots.swap_remove(which)),
                    3 if which < slots.len() => {
                        slots[which].protect();
                        if from % 2 == 0 {
                            slots[which].expose(address(from));
                        }
                    }
                    _ => {}
                }
                let state = handshakes.state();
                prop_assert!(state.evictable.len() <= 8);
                prop_assert_eq!(state.open, slots.len());
                let sum: usize = (0..5).map(|number| state.by_address.count(address(number))).sum();
                prop_assert_eq!(sum, state.evictable.len());
            }
        }
    }
}
