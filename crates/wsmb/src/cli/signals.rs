//! SIGINT and SIGTERM (Ctrl-C on other systems than Unix): the first signal asks a command to finish. The second one ends the command at once, if it comes
//! at least [`wsmb_server::limits::SECOND_SIGNAL`] after the first.

use std::time::Instant;

use tokio::sync::watch;

use crate::platform::Signals;

/// How urgently the command must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StopLevel {
    None,
    Graceful,
    Immediate,
}

/// Shows whether signals have asked the command to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    level: watch::Receiver<StopLevel>,
}

impl Stop {
    /// Starts to listen for signals. The second signal ends the process.
    ///
    /// # Errors
    /// The system refuses the signal handlers.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Self::listen_to(Signals::new(false)?, |_| std::process::exit(1))
    }

    /// Starts to listen for signals. The second signal completes [`Self::immediate`] instead of ending the process: the command must first end its own
    /// processes. SIGHUP (a closed terminal) counts like the other signals, unless the process was started with SIGHUP ignored (`nohup`).
    ///
    /// # Errors
    /// The system refuses the signal handlers.
    pub(crate) fn listen_twice() -> std::io::Result<Self> {
        Self::listen_to(Signals::new(true)?, |sender| {
            // The send fails if every `Stop` is dropped; then there is nothing to end.
            let _ = sender.send(StopLevel::Immediate);
        })
    }

    fn listen_to(
        mut signals: Signals,
        second: impl FnOnce(&watch::Sender<StopLevel>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, level) = watch::channel(StopLevel::None);
        tokio::spawn(async move {
            signals.next().await;
            // The send fails if every `Stop` is dropped; then there is nothing to stop.
            let _ = sender.send(StopLevel::Graceful);
            let first = Instant::now();
            signals.next().await;
            while first.elapsed() < wsmb_server::limits::SECOND_SIGNAL {
                signals.next().await;
            }
            second(&sender);
            // Keeps the sender alive, so that the receivers do not fail.
            std::future::pending::<()>().await;
        });
        Ok(Self { level })
    }

    /// Returns a `Stop` that no signal completes.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self { level: watch::channel(StopLevel::None).1 }
    }

    /// Whether the first signal has arrived.
    pub(crate) fn is_requested(&self) -> bool {
        *self.level.borrow() >= StopLevel::Graceful
    }

    /// Whether the second signal has arrived.
    pub(crate) fn is_immediate(&self) -> bool {
        *self.level.borrow() == StopLevel::Immediate
    }

    /// Waits for the first signal. Returns at once if it has arrived already.
    pub(crate) async fn requested(&mut self) {
        self.reached(StopLevel::Graceful).await;
    }

    /// Waits for the second signal. Returns at once if it has arrived already.
    pub(crate) async fn immediate(&mut self) {
        self.reached(StopLevel::Immediate).await;
    }

    async fn reached(&mut self, least: StopLevel) {
        if self.level.wait_for(|level| *level >= least).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
