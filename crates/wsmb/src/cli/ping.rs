//! `wsmb ping`: shows whether the broker answers, how long the answer takes, and the state that the broker reports.

use std::time::{Duration, Instant};

use clap::Args;

use super::connect::Connect;
use super::output::{self, Style};
use super::{Failure, Outcome, arguments};
use wsmb_client::frames::{self, Frame};
use wsmb_client::{Client, Error, Options, Url};
use wsmb_core::message::ChannelName;

/// Ask the broker for its state, and measure the time of the answer
///
/// The exit code is 0 if the broker works; 1 if the broker cannot be reached, refuses the password, or cannot use its store.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb ping --url ws://broker.example:8888 --user app")]
pub(crate) struct Ping {
    /// Channel to name in the command; the answer is the same for every channel
    #[arg(value_parser = arguments::channel)]
    channel: Option<ChannelName>,

    /// Print the answer as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

/// The answer of the broker, with the times that it took.
struct Answer {
    connected: Duration,
    round_trip: Duration,
    code: String,
    text: String,
    time_stamp: Option<String>,
}

impl Ping {
    pub(crate) async fn run(self) -> Outcome {
        let (url, options) = self.connect.resolve()?;
        let answer = match tokio::time::timeout(wsmb_client::limits::CLIENT_CONNECT, self.ask(&url, &options)).await {
            Ok(answer) => answer?,
            Err(_) => {
                let error = Error::TimedOut { address: url.authority(), after: wsmb_client::limits::CLIENT_CONNECT };
                return Err(error.into());
            }
        };
        self.print(&url, &answer)?;
        match answer.code.as_str() {
            "00" => Ok(()),
            "01" => Err(Failure::failed("the broker runs, but cannot use its store; see the broker's log")),
            _ => Err(Failure::Reported),
        }
    }

    async fn ask(&self, url: &Url, options: &Options) -> Result<Answer, Failure> {
        let start = Instant::now();
        let mut client = Client::connect(url, options).await?;
        let message = client.next().await?;
        match frames::parse(&message.payload).map_err(Failure::failed)? {
            Frame::Reply(reply) if reply.command.as_deref() == Some("connect") => {}
            _ => return Err(Failure::failed(frames::NotUnderstood)),
        }
        let connected = start.elapsed();

        let mut question = serde_json::json!({ "command": "ping" });
        if let (Some(channel), Some(members)) = (&self.channel, question.as_object_mut()) {
            members.insert("channel".to_owned(), channel.as_str().into());
        }
        let start = Instant::now();
        client.send_text(&question.to_string()).await?;
        let message = client.next().await?;
        let round_trip = start.elapsed();
        let Frame::Reply(reply) = frames::parse(&message.payload).map_err(Failure::failed)? else {
            return Err(Failure::failed(frames::NotUnderstood));
        };
        let answer = Answer {
            connected,
            round_trip,
            code: reply.code.to_string(),
            text: reply.text.to_string(),
            time_stamp: reply.time_stamp(),
        };
        // A failed close changes nothing: the answer is complete.
        let _ = client.close().await;
        Ok(answer)
    }

    fn print(&self, url: &Url, answer: &Answer) -> Outcome {
        let millis = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 100.0;
        if self.json {
            let object = serde_json::json!({
                "url": url.to_string(), "connect_ms": millis(answer.connected), "round_trip_ms": millis(answer.round_trip),
                "response_code": answer.code, "response_text": answer.text, "time_stamp": answer.time_stamp,
            });
            return output::line(&object.to_string());
        }
        let style = Style::stdout();
        let said = if answer.code == "00" { style.good(&answer.text) } else { style.bad(&answer.text) };
        let mut text = format!(
            "{} answered in {} ms (connecting took {} ms): {} {said}",
            url.authority(),
            style.bold(millis(answer.round_trip)),
            millis(answer.connected),
            answer.code,
        );
        if let Some(time) = &answer.time_stamp {
            text.push_str(&format!("; its clock shows {time}"));
        }
        output::line(&text)
    }
}
