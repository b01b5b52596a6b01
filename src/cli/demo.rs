//! `wsmb demo`: the whole story in one terminal, in a few seconds.
//!
//! Nothing is staged: a real server on a real port with a real store in a temporary directory, and two real clients. The count at the end
//! is the broker's own, and is held against what the gateway really got; if it does not add up, the demo fails.

mod parties;
mod stage;

use std::time::Duration;

use clap::Args;

use self::parties::{Application, Gateway};
use self::stage::{Directory, Stage};
use super::output::count;
use super::{Failure, Outcome};
use crate::auth::passwd;
use crate::client::{Credentials, Options, Url};
use crate::config::{Config, Flags};
use crate::server::{RunningServer, Server};

/// The channel of the story.
const CHANNEL: &str = "sms";

/// Between two passwords: several a second, slow enough to be read.
const PACE: Duration = Duration::from_millis(180);

/// The short life of the one that expires on the way.
const SHORT: Duration = Duration::from_secs(1);

/// How long the story waits for anything before it says that it has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Watch it work: an application sends one-time passwords, the gateway disappears and comes back, and nothing is lost
///
/// Starts a broker of its own on a free port, with its files in a temporary directory, and leaves nothing behind.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb demo")]
pub(crate) struct Demo {}

impl Demo {
    pub(crate) async fn run(self) -> Outcome {
        let directory = Directory::new()?;
        let mut stage = Stage::new();
        stage.chapter("An application sends one-time passwords. A gateway at home turns them into SMS.")?;
        let (config, users) = configuration(&directory)?;
        let server = Server::start(config).await.map_err(Failure::failed)?;
        let address = server.local_addrs().first().ok_or_else(|| Failure::failed("the broker listens nowhere"))?;
        let url = Url::parse(&format!("ws://{address}")).map_err(Failure::failed)?;
        stage.broker(&format!("listens on {url}; keeps messages in a SQLite file"))?;
        let told = tell(&mut stage, &server, &url, &users).await;
        let stopped = server.shutdown().await.map_err(Failure::failed);
        told.and(stopped)
    }
}

/// The two users, each with a password that nobody else knows.
struct Users {
    application: Options,
    gateway: Options,
}

fn configuration(directory: &Directory) -> Result<(Config, Users), Failure> {
    let flags = Flags {
        listen: vec!["127.0.0.1:0".to_owned()],
        store: Some(format!("sqlite:{}", directory.path().join("wsmb.db").display())),
        set: vec!["channel_defaults.receivers=1".to_owned()],
        data_dir: Some(directory.path().to_owned()),
    };
    let mut config = Config::from_parts(None, [], &flags).map_err(Failure::failed)?;
    let mut user = |name: &str| -> Result<Options, Failure> {
        let password = passwd::random_password().map_err(Failure::failed)?;
        config.auth.users.push(format!("{name}:{}", passwd::hash(&password).map_err(Failure::failed)?));
        Ok(Options { credentials: Some(Credentials::new(name, password)), ..Options::default() })
    };
    let users = Users { application: user("application")?, gateway: user("gateway")? };
    config.auth.htpasswd.clear();
    Ok((config, users))
}

async fn tell(stage: &mut Stage, server: &RunningServer, url: &Url, users: &Users) -> Outcome {
    let mut gateway = Gateway::connect(url, &users.gateway).await?;
    stage.gateway(&format!("connects from behind its router, and receives from {CHANNEL}"))?;
    let mut application = Application::connect(url, &users.application).await?;

    stage.chapter("Both are there: every message arrives at once.")?;
    for _ in 0..5 {
        application.send(stage, None).await?;
        gateway.take(stage, 1).await?;
        tokio::time::sleep(PACE).await;
    }

    stage.chapter("The gateway's cable is pulled, with two messages in its hands that it has not confirmed.")?;
    for _ in 0..2 {
        application.send(stage, None).await?;
        tokio::time::sleep(PACE).await;
    }
    gateway.pull_the_cable(stage, 2).await?;
    until(|| server.counters().open() == 1).await;
    let away = tokio::time::Instant::now();

    stage.chapter("Nobody receives. The application does not notice: the broker keeps its messages.")?;
    application.send(stage, Some(SHORT)).await?;
    for _ in 0..5 {
        tokio::time::sleep(PACE).await;
        application.send(stage, None).await?;
    }
    let wait = (away + SHORT + PACE).saturating_duration_since(tokio::time::Instant::now());
    tokio::time::sleep(wait).await;
    let kept = server.unsettled();
    stage.broker(&format!("{} waiting; the life of number 8 is over by now", count(kept, "message")))?;

    stage.chapter("The gateway comes back, and gets what it missed, in order; too late is not delivered at all.")?;
    gateway.come_back(url, &users.gateway).await?;
    stage.gateway("connects again")?;
    gateway.take(stage, 7).await?;
    application.send(stage, None).await?;
    gateway.take(stage, 1).await?;

    let (sent, confirmed) = (application.sent(), application.sent() - 1);
    until(|| server.broker_counters().confirmed >= confirmed && server.unsettled() == 0).await;
    application.leave().await;
    gateway.leave().await;
    account(stage, server, &everything_but_number_8(sent), gateway.done())
}

/// What the gateway must have got, in this order.
fn everything_but_number_8(sent: u64) -> Vec<u64> {
    (1..=sent).filter(|number| *number != 8).collect()
}

/// Waits until the broker's numbers say so; if they never do, the count at the end fails.
async fn until(mut reached: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !reached() && tokio::time::Instant::now() < deadline {
        // Counters have no bell to wait for.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The broker's own numbers, held against what really happened.
fn account(stage: &mut Stage, server: &RunningServer, expected: &[u64], got: &[u64]) -> Outcome {
    let counters = server.broker_counters();
    let sent = expected.len() as u64 + 1;
    stage.chapter("The count, from the broker's own counters:")?;
    stage.total(&format!(
        "{} sent = {} confirmed + {} expired",
        counters.accepted, counters.confirmed, counters.expired
    ))?;
    if got != expected {
        return Err(Failure::failed(format_args!(
            "the gateway should have got {expected:?} in this order, and got {got:?}"
        )));
    }
    let adds_up = counters.accepted == sent
        && counters.confirmed == got.len() as u64
        && counters.expired == 1
        && server.unsettled() == 0;
    if !adds_up {
        return Err(Failure::failed(format_args!(
            "the numbers do not add up: the application sent {sent}, the gateway got {}, and {} are left",
            got.len(),
            server.unsettled()
        )));
    }
    stage.total("Nothing was lost, nothing came too late, and the order was kept.")
}
