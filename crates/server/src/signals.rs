//! The signals that stop or reload a server.
//!
//! Never here: the stop or the reload itself (that is `lifecycle`'s).

use std::time::Instant;

use crate::limits;

/// The request that a signal stands for.
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
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminal: super::terminal::Terminal::at_start(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

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
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler, Ctrl-C ends the process.
            std::future::pending::<()>().await;
        }
        Signal::Stop("Ctrl-C")
    }
}

impl Signals {
    /// Waits for a second stop signal. Signals within [`limits::SECOND_SIGNAL`] after the `first` are ignored.
    pub(super) async fn insist(&mut self, first: Instant) {
        while self.next().await == Signal::Reload || first.elapsed() < limits::SECOND_SIGNAL {}
    }
}
