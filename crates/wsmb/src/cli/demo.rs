//! `wsmb demo`: shows in one terminal of 80 columns how the broker delivers, stores and redelivers messages.
//!
//! The demo uses a real server on a free port, a real store in a temporary directory, and two real clients. At the end the demo compares the broker's
//! counters with the messages that the gateway has received, and fails if they differ. Never writes outside the temporary directory.

mod clients;
mod display;

use std::time::Duration;

use clap::Args;

use self::clients::{Application, Gateway};
use self::display::{CHANNEL, Display, STEP_TIMEOUT, TemporaryDirectory};
use super::output::count;
use super::signals::Stop;
use super::{Failure, Outcome, build};
use wsmb_auth::passwd;
use wsmb_client::{Credentials, Options, Url};
use wsmb_config::{Config, Flags};
use wsmb_server::{RunningServer, Server};

/// The time to live of the message that expires during the demo.
const SHORT_TTL: Duration = Duration::from_secs(1);

/// Watch a demonstration: an application sends one-time passwords, the gateway loses its connection and reconnects, and nothing is lost
///
/// Starts a separate broker on a free port, with its files in a temporary directory, and removes the files at the end. The demonstration takes 30
/// seconds, so that you can read each line. Ctrl-C ends it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb demo")]
pub(crate) struct Demo {
    /// Do not pause after each line
    #[arg(long)]
    fast: bool,
}

/// Commands that the reader can try next, each in a separate terminal.
const NEXT_COMMANDS: [&str; 3] = [
    "wsmb serve",
    "wsmb receive sms",
    r#"wsmb send sms '{"receiver":"081234567890","message":"Your code is 402913"}'"#,
];

impl Demo {
    pub(crate) async fn run(self) -> Outcome {
        let mut stop = Stop::listen().map_err(Failure::failed)?;
        let directory = TemporaryDirectory::new()?;
        let mut display = Display::new(!self.fast);
        let opening = "An application sends one-time passwords. A gateway at home sends them as SMS.";
        display.headline(opening).await?;
        let (config, users) = configuration(&directory)?;
        let server =
            Server::start(build::server_settings(&config).map_err(Failure::failed)?).await.map_err(Failure::failed)?;
        let address = server.local_addrs().first().ok_or_else(|| Failure::failed("the broker has no address"))?;
        let url = Url::parse(&format!("ws://{address}")).map_err(Failure::failed)?;
        display.broker(&format!("listens on {url}, stores in SQLite")).await?;
        let result = tokio::select! {
            result = run_steps(&mut display, &server, &url, &users) => result,
            () = stop.requested() => Err(Failure::failed("the demo was interrupted")),
        };
        let stopped = server.shutdown().await.map_err(Failure::failed);
        result.and(stopped)?;
        display.next(&NEXT_COMMANDS)
    }
}

/// The two users, each with a random password.
struct Users {
    application: Options,
    gateway: Options,
}

fn configuration(directory: &TemporaryDirectory) -> Result<(Config, Users), Failure> {
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

async fn run_steps(display: &mut Display, server: &RunningServer, url: &Url, users: &Users) -> Outcome {
    let mut gateway = Gateway::connect(url, &users.gateway).await?;
    display.gateway(&format!("connects from behind its router, receives {CHANNEL}")).await?;
    let mut application = Application::connect(url, &users.application).await?;

    display.headline("Both are connected: every message arrives at once.").await?;
    for _ in 0..5 {
        application.send(display, None).await?;
        gateway.receive(display, 1).await?;
    }

    display.headline("The gateway's cable is pulled. The gateway has two messages that it has not confirmed.").await?;
    for _ in 0..2 {
        application.send(display, None).await?;
    }
    gateway.lose_connection(display, 2).await?;
    wait_until(|| server.counters().open() == 1).await;

    display.headline("There is no receiver. The application does not notice: the broker stores the messages.").await?;
    application.send(display, Some(SHORT_TTL)).await?;
    // The broker has counted from a slightly earlier moment, so the message has expired by then.
    let expired = tokio::time::Instant::now() + SHORT_TTL;
    for _ in 0..5 {
        application.send(display, None).await?;
    }
    tokio::time::sleep_until(expired).await;
    let kept = server.unsettled();
    display.broker(&format!("{} waiting; no. 8 has expired", count(kept, "message"))).await?;

    let back = "The gateway reconnects. It gets the messages that it missed, in order, without the expired message.";
    display.headline(back).await?;
    gateway.connect_and_subscribe(url, &users.gateway).await?;
    display.gateway("reconnects").await?;
    gateway.receive(display, 7).await?;
    application.send(display, None).await?;
    gateway.receive(display, 1).await?;

    let (sent, confirmed) = (application.sent(), application.sent() - 1);
    wait_until(|| server.broker_counters().confirmed >= confirmed && server.unsettled() == 0).await;
    application.close().await;
    gateway.close().await;
    check_counters(display, server, &expected_numbers(sent), gateway.acknowledged()).await
}

/// The numbers of the messages that the gateway must have received, in this order.
fn expected_numbers(sent: u64) -> Vec<u64> {
    (1..=sent).filter(|number| *number != 8).collect()
}

/// Waits until the broker's counters fulfil a condition, for at most [`STEP_TIMEOUT`]. If they do not, the comparison at the end fails.
async fn wait_until(mut reached: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + STEP_TIMEOUT;
    while !reached() && tokio::time::Instant::now() < deadline {
        // Counters offer no notification, so they are polled.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Prints the broker's counters, and compares them with what the clients have sent and received.
async fn check_counters(display: &mut Display, server: &RunningServer, expected: &[u64], got: &[u64]) -> Outcome {
    let counters = server.broker_counters();
    let sent = expected.len() as u64 + 1;
    display.headline("The broker's own counters:").await?;
    display.result(&format!(
        "{} sent = {} confirmed + {} expired",
        counters.accepted, counters.confirmed, counters.expired
    ))?;
    if got != expected {
        return Err(Failure::failed(format_args!("the gateway received the messages {got:?} instead of {expected:?}")));
    }
    let adds_up = counters.accepted == sent
        && counters.confirmed == got.len() as u64
        && counters.expired == 1
        && server.unsettled() == 0;
    if !adds_up {
        return Err(Failure::failed(format_args!(
            "the counters do not match: the application sent {sent} messages, the gateway received {}, and {} are left",
            got.len(),
            server.unsettled()
        )));
    }
    display.result("No message was lost, none was delivered too late, and the order was kept.")
}
