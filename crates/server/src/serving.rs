//! Serves until a signal asks for the end, and reloads when a signal asks for that.

use std::sync::Arc;
use std::time::Instant;

use tracing::{error, info, warn};

use super::error::ServeError;
use super::lifecycle::{RunningServer, Server, blocking};
use super::platform::{Signal, Signals};
use super::settings::{Reload, Settings};
use wsmb_core::broker::Broker;

/// Reads the configuration again, for SIGHUP. An error is a sentence. Blocks. The function also applies settings that the server does not know (the log
/// level).
pub type Load = Box<dyn Fn() -> Result<Reload, String> + Send + Sync>;

/// Serves until SIGTERM or SIGINT (elsewhere: Ctrl-C) or until the terminal is closed, then stops in an orderly way. Any other SIGHUP reloads. `ready` is
/// called when the store and all addresses are open.
///
/// # Errors
/// The server did not start, a vital part has panicked, the stop failed (see [`RunningServer::shutdown`]), or a second signal came during the stop.
pub async fn serve(
    settings: Settings,
    load: Option<Load>,
    ready: impl FnOnce(&RunningServer),
) -> Result<(), ServeError> {
    let mut signals = Signals::new()?;
    let server = Server::start(settings).await?;
    ready(&server);
    let hub = server.hub().clone();
    let load = load.map(Arc::new);
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            part = hub.fatal.declared() => return Err(ServeError::Defect { part }),
        };
        match signal {
            Signal::Stop(name) => {
                info!(signal = name, "asked to stop");
                break;
            }
            Signal::Reload => match &load {
                Some(load) => reload(&server, load.clone()).await,
                None => warn!("asked to reload, but there is no configuration to read"),
            },
        }
    }
    tokio::select! {
        done = server.shutdown() => done,
        part = hub.fatal.declared() => Err(ServeError::Defect { part }),
        () = signals.insist(Instant::now()) => Err(ServeError::Interrupted { unstored: hub.with_broker(Broker::unstored) as u64 }),
    }
}

async fn reload(server: &RunningServer, load: Arc<Load>) {
    match blocking(move || load()).await {
        Ok(Ok(new)) => {
            let needs_restart = new.needs_restart.clone();
            server.reload(new).await;
            info!(
                "reloaded: channel policies, users, keys for tokens, permissions, rates, origins, webhooks, certificates and trusted proxies are as configured now"
            );
            if !needs_restart.is_empty() {
                warn!(keys = needs_restart.join(", "), "changed, but taken over only by a restart");
            }
        }
        Ok(Err(problems)) => error!("not reloaded, the old configuration stays in force: {problems}"),
        Err(cause) => error!(%cause, "not reloaded, the old configuration stays in force"),
    }
}
