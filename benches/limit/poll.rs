//! The part of `epoll` that the relay needs.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The largest number of events of one wait. The kernel reports further events at the next wait.
const EVENTS: usize = 512;

/// A set of watched sockets.
pub struct Poll {
    set: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// An event of a socket.
#[derive(Clone, Copy)]
pub struct Event {
    /// The number with which the socket was added.
    pub token: u64,
    /// Bytes can be read, or the connection has ended, which a read shows.
    pub readable: bool,
    /// Bytes can be written.
    pub writable: bool,
}

impl Poll {
    /// Creates an empty set.
    ///
    /// # Errors
    /// No file descriptor is available.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed; the result is checked.
        let set = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was made just now and belongs to nobody else.
        let set = unsafe { OwnedFd::from_raw_fd(set) };
        Ok(Self { set, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches a socket for reading. The kernel removes a closed socket from the set.
    ///
    /// # Errors
    /// The error of `epoll_ctl`.
    pub fn add(&self, socket: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, libc::EPOLLIN)
    }

    /// Watches a socket for reading, and also for writing if `writing` is set.
    ///
    /// # Errors
    /// The error of `epoll_ctl`.
    pub fn change(&self, socket: &impl AsRawFd, token: u64, writing: bool) -> io::Result<()> {
        let interest = if writing { libc::EPOLLIN | libc::EPOLLOUT } else { libc::EPOLLIN };
        self.control(libc::EPOLL_CTL_MOD, socket, token, interest)
    }

    fn control(&self, action: i32, socket: &impl AsRawFd, token: u64, interest: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.cast_unsigned(), u64: token };
        // SAFETY: both descriptors are open, the event is valid for the call.
        check(unsafe { libc::epoll_ctl(self.set.as_raw_fd(), action, socket.as_raw_fd(), &raw mut event) }).map(drop)
    }

    /// Waits for events. Returns their number, which is 0 after a signal.
    ///
    /// # Errors
    /// The error of `epoll_wait`.
    pub fn wait(&mut self) -> io::Result<usize> {
        self.events.clear();
        let room = self.events.spare_capacity_mut();
        let most = i32::try_from(room.len()).unwrap_or(i32::MAX);
        // SAFETY: the list has room for `most` events, and the system writes no more than that.
        let answer = unsafe { libc::epoll_wait(self.set.as_raw_fd(), room.as_mut_ptr().cast(), most, -1) };
        let found = match check(answer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            found => found?,
        };
        let found = usize::try_from(found).unwrap_or(0);
        // SAFETY: the system has written this many events.
        unsafe { self.events.set_len(found) };
        Ok(found)
    }

    /// Returns one of the events of the last [`Self::wait`].
    pub fn event(&self, index: usize) -> Event {
        let event = self.events[index];
        let any = |flags: i32| event.events & flags.cast_unsigned() != 0;
        Event {
            token: event.u64,
            readable: any(libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR),
            writable: any(libc::EPOLLOUT),
        }
    }
}

fn check(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
