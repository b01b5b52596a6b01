//! Starts and stops webhooks as the configuration changes.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::hook::Hook;
use super::post;
use crate::hub::Hub;
use crate::limits;
use crate::settings::Webhook;

/// Runs the webhooks that `wanted` names, until the sender is dropped. An unchanged webhook goes on; a changed one, and one that was disabled, begins anew.
/// A panic in a task of a webhook panics here.
pub(crate) async fn run(hub: Arc<Hub>, mut wanted: watch::Receiver<Arc<[Webhook]>>) {
    let lookups = Arc::new(Semaphore::new(limits::WEBHOOK_LOOKUPS));
    let mut hooks: Vec<Arc<Hook>> = Vec::new();
    let mut tasks = JoinSet::new();
    loop {
        let all = wanted.borrow_and_update().clone();
        hooks.retain(|hook| {
            let stays = !hook.has_ended() && all.contains(&hook.settings);
            if !stays {
                hook.end();
            }
            stays
        });
        for settings in all.iter() {
            if hooks.iter().any(|hook| hook.settings == *settings) {
                continue;
            }
            let hook = Arc::new(Hook::new(settings.clone(), lookups.clone()));
            for channel in &settings.channels {
                tasks.spawn(post::run(hub.clone(), hook.clone(), channel.clone()));
            }
            hooks.push(hook);
        }
        loop {
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Some(done) = tasks.join_next() => {
                    if let Err(error) = done
                        && let Ok(panic) = error.try_into_panic()
                    {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }
}
