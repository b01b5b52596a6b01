//! The two clients of the story, on the public client of this library.

use std::future::Future;
use std::time::Duration;

use super::super::{Failure, Outcome};
use super::stage::{CHANNEL, PATIENCE, Stage};
use wsmb_client::frames::{self, Answer, Frame, ReceiveMessage, SendMessage};
use wsmb_client::{Client, Error, Message, Options, Url};

/// Sends one-time passwords, and waits for the answer to each.
pub(super) struct Application {
    client: Client,
    sent: u64,
}

impl Application {
    pub(super) async fn connect(url: &Url, options: &Options) -> Result<Self, Failure> {
        Ok(Self { client: Client::connect(url, options).await?, sent: 0 })
    }

    /// How many passwords have been sent and accepted.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends the next password, and waits until the broker answers for it.
    pub(super) async fn send(&mut self, stage: &mut Stage, ttl: Option<Duration>) -> Outcome {
        let number = self.sent + 1;
        // A toy generator: what is sent does not matter here, only that each is another one.
        let code = 100_000 + (number * 7_919 + 302_913) % 900_000;
        let message = serde_json::json!({
            "id": number, "receiver": "081234567890", "message": format!("Your code is {code}"),
        });
        let message = frames::message_of(&message.to_string());
        let id = format!("demo-{number}");
        let command = SendMessage::new(CHANNEL, &message).id(&id).ttl(ttl).to_json();
        self.client.send_text(&command).await?;
        let answer = loop {
            let frame = in_time(self.client.next()).await?;
            match frames::parse(&frame.payload).map_err(Failure::failed)? {
                Frame::Reply(reply) if reply.id.as_deref() == Some(&id) => {
                    if !reply.is_accepted() {
                        return Err(Failure::failed(format_args!("the broker refused: {} {}", reply.code, reply.text)));
                    }
                    break if reply.receivers > 0 { "a receiver has it" } else { "stored" };
                }
                _ => {}
            }
        };
        self.sent = number;
        let life = ttl.map_or_else(String::new, |ttl| format!(", for {} s only", ttl.as_secs_f64()));
        stage.application(&format!("sends no. {number:2} (code {code}{life}): {answer}")).await
    }

    pub(super) async fn leave(self) {
        // The story is over; how the goodbye goes changes nothing about it.
        let _ = self.client.close().await;
    }
}

/// Receives, and confirms each message by hand when it has dealt with it.
pub(super) struct Gateway {
    /// `None` while the cable is pulled.
    client: Option<Client>,
    done: Vec<u64>,
}

impl Gateway {
    pub(super) async fn connect(url: &Url, options: &Options) -> Result<Self, Failure> {
        let mut gateway = Self { client: None, done: Vec::new() };
        gateway.come_back(url, options).await?;
        // Commands are carried out in their order: the answer to this one says that the subscription holds.
        gateway.client()?.send_text(r#"{"command":"ping"}"#).await?;
        for _connect_reply_and_answer in 0..2 {
            in_time(gateway.client()?.next()).await?;
        }
        Ok(gateway)
    }

    /// Connects and subscribes.
    pub(super) async fn come_back(&mut self, url: &Url, options: &Options) -> Outcome {
        let mut client = Client::connect(url, options).await?;
        let subscription =
            ReceiveMessage::new([CHANNEL]).prefetch(Some(wsmb_core::limits::PREFETCH)).receiver(Some("home"));
        client.send_text(&subscription.to_json()).await?;
        self.client = Some(client);
        Ok(())
    }

    /// The numbers of the messages that it has confirmed, in the order in which they came.
    pub(super) fn done(&self) -> &[u64] {
        &self.done
    }

    /// Takes so many messages, and confirms each.
    pub(super) async fn take(&mut self, stage: &mut Stage, messages: usize) -> Outcome {
        for _ in 0..messages {
            let got = self.get().await?;
            let again = if got.redelivered { " (marked: it may be a repetition)" } else { "" };
            self.client()?.send_text(&Answer::Ack.to_json(&got.delivery)).await?;
            self.done.push(got.number);
            stage.gateway(&format!("gets and confirms no. {:2}{again}", got.number)).await?;
        }
        Ok(())
    }

    /// Gets so many messages, confirms none, and is gone without a word.
    pub(super) async fn pull_the_cable(&mut self, stage: &mut Stage, messages: usize) -> Outcome {
        for _ in 0..messages {
            let got = self.get().await?;
            stage.gateway(&format!("gets no. {:2} ...", got.number)).await?;
        }
        if let Some(client) = self.client.take() {
            client.abort();
        }
        stage.gateway("... is gone").await
    }

    pub(super) async fn leave(&mut self) {
        if let Some(client) = self.client.take() {
            // The story is over; how the goodbye goes changes nothing about it.
            let _ = client.close().await;
        }
    }

    fn client(&mut self) -> Result<&mut Client, Failure> {
        self.client.as_mut().ok_or_else(|| Failure::failed("the gateway is not connected"))
    }

    async fn get(&mut self) -> Result<Got, Failure> {
        loop {
            let frame = in_time(self.client()?.next()).await?;
            if let Frame::Delivery(delivery) = frames::parse(&frame.payload).map_err(Failure::failed)? {
                let (Some(name), [message]) = (&delivery.delivery, delivery.messages.as_slice()) else {
                    return Err(Failure::failed("a delivery without a name, or with several messages"));
                };
                let sms: Sms = serde_json::from_str(message.get()).map_err(Failure::failed)?;
                return Ok(Got { delivery: name.to_string(), redelivered: delivery.redelivered, number: sms.id });
            }
        }
    }
}

/// One delivery.
struct Got {
    delivery: String,
    redelivered: bool,
    number: u64,
}

/// What of a message the gateway looks at.
#[derive(serde::Deserialize)]
struct Sms {
    id: u64,
}

async fn in_time(next: impl Future<Output = Result<Message, Error>>) -> Result<Message, Failure> {
    match tokio::time::timeout(PATIENCE, next).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::failed(format_args!("nothing came for {} seconds", PATIENCE.as_secs()))),
    }
}
