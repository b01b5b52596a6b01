//! SIGINT and SIGTERM (Ctrl-C elsewhere): the first asks a command to finish, the second ends it where it stands,
//! if it comes [`limits::SECOND_SIGNAL`] later or more.

use std::time::Instant;

use tokio::sync::watch;

use crate::limits;

/// Whether somebody wants the command to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    asked: watch::Receiver<bool>,
}

impl Stop {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system does not let the program listen for signals.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (ask, asked) = watch::channel(false);
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            signals.next().await;
            // Nobody may be listening any more; then there is nothing to stop.
            let _ = ask.send(true);
            let first = Instant::now();
            signals.next().await;
            while first.elapsed() < limits::SECOND_SIGNAL {
                signals.next().await;
            }
            std::process::exit(1);
        });
        Ok(Self { asked })
    }

    /// For code that nobody will stop.
    #[cfg(test)]
    pub(crate) fn never() -> (watch::Sender<bool>, Self) {
        let (ask, asked) = watch::channel(false);
        (ask, Self { asked })
    }

    /// Somebody has asked already.
    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Returns when somebody asks, at once if somebody has.
    pub(crate) async fn asked(&mut self) {
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
