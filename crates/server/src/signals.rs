//! The signals that end a server or have it reload.
//!
//! Never here: what follows from a signal (that is `lifecycle`'s).

use std::time::Instant;

use crate::limits;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Stop(&'static str),
    #[cfg_attr(not(unix), allow(dead_code))] // Only Unix has a signal for it.
    Reload,
}

/// The signals of the process.
#[cfg(unix)]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    terminal: super::terminal::Terminal,
}

#[cfg(unix)]
impl Signals {
    /// Listens for them from now on.
    ///
    /// # Errors
    /// The system takes no handler.
    pub(super) fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminal: super::terminal::Terminal::at_start(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hang_up.recv() => {
                if self.terminal.is_gone() { Signal::Stop("SIGHUP, the terminal was closed") } else { Signal::Reload }
            }
        }
    }
}

/// The signals of the process.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Listens for them from now on.
    ///
    /// # Errors
    /// The system takes no handler.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a way to be told, the process is ended from outside.
            std::future::pending::<()>().await;
        }
        Signal::Stop("Ctrl-C")
    }
}

impl Signals {
    /// Returns when a signal asks for the end that is no echo of the one that came at `first`.
    pub(super) async fn insist(&mut self, first: Instant) {
        while self.next().await == Signal::Reload || first.elapsed() < limits::SECOND_SIGNAL {}
    }
}
