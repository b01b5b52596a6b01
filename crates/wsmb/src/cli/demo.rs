//! `wsmb demo`: the whole story in one terminal of 80 columns, at the pace of a reader.
//!
//! Nothing is staged: a real server on a real port with a real store in a temporary directory, and two real clients. The count at the end
//! is the broker's own, and is held against what the gateway really got; if it does not add up, the demo fails.

mod parties;
mod stage;

use std::time::Duration;

use clap::Args;

use self::parties::{Application, Gateway};
use self::stage::{CHANNEL, Directory, PATIENCE, Stage};
use super::output::count;
use super::signals::Stop;
use super::{Failure, Outcome, build};
use wsmb_auth::passwd;
use wsmb_client::{Credentials, Options, Url};
use wsmb_config::{Config, Flags};
use wsmb_server::{RunningServer, Server};

/// The short life of the one that expires on the way.
const SHORT: Duration = Duration::from_secs(1);

/// Watch it work: an application sends one-time passwords, the gateway disappears and comes back, and nothing is lost
///
/// Starts a broker of its own on a free port, with its files in a temporary directory, and leaves nothing behind. It takes half a minute, so
/// that each line can be read; Ctrl-C ends it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb demo")]
pub(crate) struct Demo {
    /// Do not wait for readers
    #[arg(long)]
    fast: bool,
}

/// What the reader can do next, line by line, each in a terminal of its own.
const NEXT: [&str; 3] = [
    "wsmb serve",
    "wsmb receive sms",
    r#"wsmb send sms '{"receiver":"081234567890","message":"Your code is 402913"}'"#,
];

impl Demo {
    pub(crate) async fn run(self) -> Outcome {
        let mut stop = Stop::listen().map_err(Failure::failed)?;
        let directory = Directory::new()?;
        let mut stage = Stage::new(!self.fast);
        let opening = "An application sends one-time passwords. A gateway at home makes SMS of them.";
        stage.chapter(opening).await?;
        let (config, users) = configuration(&directory)?;
        let server =
            Server::start(build::server_settings(&config).map_err(Failure::failed)?).await.map_err(Failure::failed)?;
        let address = server.local_addrs().first().ok_or_else(|| Failure::failed("the broker listens nowhere"))?;
        let url = Url::parse(&format!("ws://{address}")).map_err(Failure::failed)?;
        stage.broker(&format!("listens on {url}, stores in SQLite")).await?;
        let told = tokio::select! {
            told = tell(&mut stage, &server, &url, &users) => told,
            () = stop.asked() => Err(Failure::failed("the demo was interrupted")),
        };
        let stopped = server.shutdown().await.map_err(Failure::failed);
        told.and(stopped)?;
        stage.next(&NEXT)
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
    stage.gateway(&format!("connects from behind its router, receives {CHANNEL}")).await?;
    let mut application = Application::connect(url, &users.application).await?;

    stage.chapter("Both are connected: every message arrives at once.").await?;
    for _ in 0..5 {
        application.send(stage, None).await?;
        gateway.take(stage, 1).await?;
    }

    stage.chapter("The gateway's cable is pulled. It holds two messages that it has not confirmed.").await?;
    for _ in 0..2 {
        application.send(stage, None).await?;
    }
    gateway.pull_the_cable(stage, 2).await?;
    until(|| server.counters().open() == 1).await;

    stage.chapter("Nobody receives. The application does not notice: the broker stores messages.").await?;
    application.send(stage, Some(SHORT)).await?;
    // Measured from here: the broker counts from a moment before.
    let expired = tokio::time::Instant::now() + SHORT;
    for _ in 0..5 {
        application.send(stage, None).await?;
    }
    tokio::time::sleep_until(expired).await;
    let kept = server.unsettled();
    stage.broker(&format!("{} waiting; the life of no. 8 has ended", count(kept, "message"))).await?;

    let back =
        "The gateway comes back. It gets what it missed, in order; the message that has expired is not delivered.";
    stage.chapter(back).await?;
    gateway.come_back(url, &users.gateway).await?;
    stage.gateway("connects again").await?;
    gateway.take(stage, 7).await?;
    application.send(stage, None).await?;
    gateway.take(stage, 1).await?;

    let (sent, confirmed) = (application.sent(), application.sent() - 1);
    until(|| server.broker_counters().confirmed >= confirmed && server.unsettled() == 0).await;
    application.leave().await;
    gateway.leave().await;
    account(stage, server, &everything_but_number_8(sent), gateway.done()).await
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
async fn account(stage: &mut Stage, server: &RunningServer, expected: &[u64], got: &[u64]) -> Outcome {
    let counters = server.broker_counters();
    let sent = expected.len() as u64 + 1;
    stage.chapter("The count, from the broker's own counters:").await?;
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
