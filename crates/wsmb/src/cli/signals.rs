//! SIGINT and SIGTERM (Ctrl-C elsewhere): the first asks a command to finish, the second ends it where it stands,
//! if it comes [`wsmb_server::limits::SECOND_SIGNAL`] later or more.

use std::time::Instant;

use tokio::sync::watch;

#[cfg(unix)]
use wsmb_server::is_hang_up_ignored;

/// What somebody wants of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    GoOn,
    Finish,
    EndAtOnce,
}

/// Whether somebody wants the command to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    wish: watch::Receiver<Wish>,
}

impl Stop {
    /// Listens from now on. The second signal ends the process.
    ///
    /// # Errors
    /// The system does not let the program listen for signals.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Self::listen_to(Signals::new(false)?, |_| std::process::exit(1))
    }

    /// Listens from now on. The second signal is told by [`Self::at_once`], and the process ends by itself: it has something to end before. The
    /// terminal that is closed (SIGHUP) is a signal like the others, unless the process was started to survive that.
    ///
    /// # Errors
    /// The system does not let the program listen for signals.
    pub(crate) fn listen_twice() -> std::io::Result<Self> {
        Self::listen_to(Signals::new(true)?, |told| {
            // Nobody may be listening any more; then there is nothing to end.
            let _ = told.send(Wish::EndAtOnce);
        })
    }

    fn listen_to(
        mut signals: Signals,
        second: impl FnOnce(&watch::Sender<Wish>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (told, wish) = watch::channel(Wish::GoOn);
        tokio::spawn(async move {
            signals.next().await;
            // Nobody may be listening any more; then there is nothing to stop.
            let _ = told.send(Wish::Finish);
            let first = Instant::now();
            signals.next().await;
            while first.elapsed() < wsmb_server::limits::SECOND_SIGNAL {
                signals.next().await;
            }
            second(&told);
            // Whoever listens goes on listening.
            std::future::pending::<()>().await;
        });
        Ok(Self { wish })
    }

    /// For code that nobody will stop.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self { wish: watch::channel(Wish::GoOn).1 }
    }

    /// Somebody has asked already.
    pub(crate) fn is_asked(&self) -> bool {
        *self.wish.borrow() >= Wish::Finish
    }

    /// Somebody has lost patience already.
    pub(crate) fn is_at_once(&self) -> bool {
        *self.wish.borrow() == Wish::EndAtOnce
    }

    /// Returns when somebody asks, at once if somebody has.
    pub(crate) async fn asked(&mut self) {
        self.wished(Wish::Finish).await;
    }

    /// Returns when somebody has lost patience.
    pub(crate) async fn at_once(&mut self) {
        self.wished(Wish::EndAtOnce).await;
    }

    async fn wished(&mut self, least: Wish) {
        if self.wish.wait_for(|wish| *wish >= least).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new(hang_up: bool) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        // `nohup` ignores the signal for the programs that it starts.
        let hang_up = (hang_up && !is_hang_up_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, hang_up })
    }

    async fn next(&mut self) {
        let hung_up = async {
            match &mut self.hang_up {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hung_up => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new(_hang_up: bool) -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
