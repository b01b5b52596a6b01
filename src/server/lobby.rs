//! Who has connected and is not a client yet: sockets whose request has not arrived, and those that were refused and are being closed.
//!
//! Whoever connects comes in. If there are too many, the oldest of the address that has most of them has to go: so silent sockets, however many, keep nobody out, and the doors
//! never wait. A socket whose request has arrived is not in here; it waits for its login at most.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::network;

/// The sockets of all doors.
#[derive(Debug)]
pub(super) struct Lobby {
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    /// By number, so the oldest is the first.
    visitors: BTreeMap<u64, Visitor>,
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
    /// How many each address has.
    sizes: BTreeSet<(usize, IpAddr)>,
    last: u64,
    /// Places that are held, in the lobby or not.
    present: usize,
}

#[derive(Debug)]
struct Visitor {
    address: IpAddr,
    shown_out: Arc<Notify>,
}

/// A socket's place, from its accept to its end or to the connection that it becomes.
#[derive(Debug)]
pub(super) struct Place {
    lobby: Arc<Lobby>,
    number: u64,
    shown_out: Arc<Notify>,
}

impl Lobby {
    /// At most `capacity` sockets.
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), capacity }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket has been accepted.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Place {
        let shown_out = Arc::new(Notify::new());
        let mut state = self.state();
        state.last += 1;
        state.present += 1;
        let number = state.last;
        state.insert(number, Visitor { address: network::customer(peer), shown_out: shown_out.clone() });
        if state.visitors.len() > self.capacity {
            state.show_out();
        }
        drop(state);
        Place { lobby: self.clone(), number, shown_out }
    }

    /// Has so many go at the most, because there are no file descriptors. Whether anybody goes.
    pub(super) fn make_room(&self, count: usize) -> bool {
        let mut state = self.state();
        (0..count).filter(|_| state.show_out()).count() > 0
    }

    /// Places that are held.
    pub(super) fn present(&self) -> usize {
        self.state().present
    }
}

impl State {
    fn insert(&mut self, number: u64, visitor: Visitor) {
        let numbers = self.by_address.entry(visitor.address).or_default();
        self.sizes.remove(&(numbers.len(), visitor.address));
        numbers.insert(number);
        self.sizes.insert((numbers.len(), visitor.address));
        self.visitors.insert(number, visitor);
    }

    fn remove(&mut self, number: u64) -> Option<Visitor> {
        let visitor = self.visitors.remove(&number)?;
        if let Some(numbers) = self.by_address.get_mut(&visitor.address) {
            self.sizes.remove(&(numbers.len(), visitor.address));
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_address.remove(&visitor.address);
            } else {
                self.sizes.insert((numbers.len(), visitor.address));
            }
        }
        Some(visitor)
    }

    /// The oldest of the address that has most; where several have as many, the oldest of those that are looked at first.
    fn show_out(&mut self) -> bool {
        let Some((most, address)) = self.sizes.last().copied() else { return false };
        // With one each, age decides.
        let oldest = if most > 1 { self.by_address.get(&address).and_then(BTreeSet::first) } else { None };
        let Some(number) = oldest.or(self.visitors.keys().next()).copied() else { return false };
        let visitor = self.remove(number);
        if let Some(visitor) = &visitor {
            visitor.shown_out.notify_one();
        }
        visitor.is_some()
    }
}

impl Place {
    /// Returns when the socket has to go.
    pub(super) fn shown_out(&self) -> impl Future<Output = ()> + use<> {
        let shown_out = self.shown_out.clone();
        async move { shown_out.notified().await }
    }

    /// The request has arrived: nobody can take this place any more. False if somebody has.
    pub(super) fn step_in(&self) -> bool {
        self.lobby.state().remove(self.number).is_some()
    }

    /// The socket is to be closed, or has turned out to be another address's: from now on it counts for that address.
    pub(super) fn step_back(&self, address: IpAddr) {
        let mut state = self.lobby.state();
        state.remove(self.number);
        let visitor = Visitor { address: network::customer(address), shown_out: self.shown_out.clone() };
        state.insert(self.number, visitor);
        if state.visitors.len() > self.lobby.capacity {
            state.show_out();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lobby.state();
        state.present -= 1;
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

    /// Who is still there.
    fn there(places: &[Place]) -> Vec<bool> {
        let state = places[0].lobby.state();
        places.iter().map(|place| state.visitors.contains_key(&place.number)).collect()
    }

    #[test]
    fn the_oldest_of_the_address_that_has_most_has_to_go() {
        let lobby = Arc::new(Lobby::new(4));
        let places: Vec<_> = [1, 2, 2, 2].map(|number| lobby.enter(address(number))).into();
        assert_eq!(there(&places), [true; 4]);
        let _new = lobby.enter(address(3));
        assert_eq!(there(&places), [true, false, true, true]);
        let _own = lobby.enter(address(2));
        assert_eq!(there(&places), [true, false, false, true]);
        assert!(!places[1].step_in() && places[3].step_in());
        assert_eq!(lobby.present(), 6);
        drop(places);
        assert_eq!(lobby.present(), 2);
    }

    #[test]
    fn where_each_address_has_one_the_oldest_has_to_go() {
        let lobby = Arc::new(Lobby::new(3));
        let places: Vec<_> = [9, 1, 5, 3].map(|number| lobby.enter(address(number))).into();
        assert_eq!(there(&places), [false, true, true, true]);
    }

    #[tokio::test]
    async fn who_has_to_go_is_told_and_nobody_else() {
        let lobby = Arc::new(Lobby::new(1));
        let (one, other) = (lobby.enter(address(1)), lobby.enter(address(1)));
        let is_told = async |place: &Place| {
            tokio::time::timeout(std::time::Duration::from_millis(10), place.shown_out()).await.is_ok()
        };
        assert!(is_told(&one).await && !is_told(&other).await);
        assert!(lobby.make_room(7) && !lobby.make_room(7));
        assert!(is_told(&other).await);
    }

    proptest! {
        #[test]
        fn it_is_never_too_full_and_forgets_nobody(acts in prop::collection::vec((0_u8..4, 0_u8..5, 0_usize..30), 0..200)) {
            let lobby = Arc::new(Lobby::new(8));
            let mut places: Vec<Place> = Vec::new();
            for (act, from, which) in acts {
                match act {
                    0 | 1 => places.push(lobby.enter(address(from))),
                    2 if which < places.len() => drop(places.swap_remove(which)),
                    3 if which < places.len() => {
                        places[which].step_in();
                        if from % 2 == 0 {
                            places[which].step_back(address(from));
                        }
                    }
                    _ => {}
                }
                let state = lobby.state();
                prop_assert!(state.visitors.len() <= 8);
                prop_assert_eq!(state.present, places.len());
                let sum: usize = state.by_address.values().map(BTreeSet::len).sum();
                prop_assert_eq!(sum, state.visitors.len());
                let sizes: BTreeSet<_> = state.by_address.iter().map(|(address, numbers)| (numbers.len(), *address)).collect();
                prop_assert_eq!(&sizes, &state.sizes);
            }
        }
    }
}
