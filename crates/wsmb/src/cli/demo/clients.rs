//! The two clients of the demo, an application and a gateway. Both use the public client library.

use std::future::Future;
use std::time::Duration;

use super::super::{Failure, Outcome};
use super::display::{CHANNEL, Display, STEP_TIMEOUT};
use wsmb_client::frames::{self, Answer, Frame, ReceiveMessage, SendMessage};
use wsmb_client::{Client, Error, Message, Options, Url};

/// A client that sends one-time passwords, and waits for the answer to each message.
pub(super) struct Application {
    client: Client,
    sent: u64,
}

impl Application {
    pub(super) async fn connect(url: &Url, options: &Options) -> Result<Self, Failure> {
        Ok(Self { client: Client::connect(url, options).await?, sent: 0 })
    }

    /// The number of messages that the broker has accepted.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends the next message, and waits until the broker has accepted it.
    pub(super) async fn send(&mut self, display: &mut Display, ttl: Option<Duration>) -> Outcome {
        let number = self.sent + 1;
        // Not random: the codes only have to differ from each other.
        let code = 100_000 + (number * 7_919 + 302_913) % 900_000;
        let message = serde_json::json!({
            "id": number, "receiver": "081234567890", "message": format!("Your code is {code}"),
        });
        let message = frames::message_of(&message.to_string());
        let id = format!("demo-{number}");
        let command = SendMessage::new(CHANNEL, &message).id(&id).ttl(ttl).to_json();
        self.client.send_text(&command).await?;
        let answer = loop {
            let frame = with_timeout(self.client.next()).await?;
            match frames::parse(&frame.payload).map_err(Failure::failed)? {
                Frame::Reply(reply) if reply.id.as_deref() == Some(&id) => {
                    if !reply.is_accepted() {
                        let answer = format_args!("the broker refused a message: {} {}", reply.code, reply.text);
                        return Err(Failure::failed(answer));
                    }
                    break if reply.receivers > 0 { "sent to a receiver" } else { "stored" };
                }
                _ => {}
            }
        };
        self.sent = number;
        let validity = ttl.map_or_else(String::new, |ttl| format!(", valid for {} s", ttl.as_secs_f64()));
        display.application(&format!("sends no. {number:2} (code {code}{validity}): {answer}")).await
    }

    pub(super) async fn close(self) {
        // A failed close changes nothing: the demo is over.
        let _ = self.client.close().await;
    }
}

/// A client that receives messages, and acknowledges each one with a command.
pub(super) struct Gateway {
    /// `None` while the gateway is disconnected.
    client: Option<Client>,
    acknowledged: Vec<u64>,
}

impl Gateway {
    pub(super) async fn connect(url: &Url, options: &Options) -> Result<Self, Failure> {
        let mut gateway = Self { client: None, acknowledged: Vec::new() };
        gateway.connect_and_subscribe(url, options).await?;
        // The broker executes commands in their order. The answer to this ping proves that the subscription exists.
        gateway.client()?.send_text(r#"{"command":"ping"}"#).await?;
        for _connect_reply_and_answer in 0..2 {
            with_timeout(gateway.client()?.next()).await?;
        }
        Ok(gateway)
    }

    /// Connects and subscribes.
    pub(super) async fn connect_and_subscribe(&mut self, url: &Url, options: &Options) -> Outcome {
        let mut client = Client::connect(url, options).await?;
        let subscription =
            ReceiveMessage::new([CHANNEL]).prefetch(Some(wsmb_core::limits::PREFETCH)).receiver(Some("home"));
        client.send_text(&subscription.to_json()).await?;
        self.client = Some(client);
        Ok(())
    }

    /// The numbers of the acknowledged messages, in the order of their delivery.
    pub(super) fn acknowledged(&self) -> &[u64] {
        &self.acknowledged
    }

    /// Receives this number of messages, and acknowledges each one.
    pub(super) async fn receive(&mut self, display: &mut Display, messages: usize) -> Outcome {
        for _ in 0..messages {
            let got = self.get().await?;
            let again = if got.redelivered { " (marked as redelivered)" } else { "" };
            self.client()?.send_text(&Answer::Ack.to_json(&got.delivery)).await?;
            self.acknowledged.push(got.number);
            display.gateway(&format!("gets and confirms no. {:2}{again}", got.number)).await?;
        }
        Ok(())
    }

    /// Receives this number of messages, acknowledges none, and aborts the connection without a close frame.
    pub(super) async fn lose_connection(&mut self, display: &mut Display, messages: usize) -> Outcome {
        for _ in 0..messages {
            let got = self.get().await?;
            display.gateway(&format!("gets no. {:2} ...", got.number)).await?;
        }
        if let Some(client) = self.client.take() {
            client.abort();
        }
        display.gateway("... is gone").await
    }

    pub(super) async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            // A failed close changes nothing: the demo is over.
            let _ = client.close().await;
        }
    }

    fn client(&mut self) -> Result<&mut Client, Failure> {
        self.client.as_mut().ok_or_else(|| Failure::failed("the gateway is not connected"))
    }

    async fn get(&mut self) -> Result<ReceivedSms, Failure> {
        loop {
            let frame = with_timeout(self.client()?.next()).await?;
            if let Frame::Delivery(delivery) = frames::parse(&frame.payload).map_err(Failure::failed)? {
                let (Some(name), [message]) = (&delivery.delivery, delivery.messages.as_slice()) else {
                    return Err(Failure::failed("the broker sent a delivery without a name, or with several messages"));
                };
                let sms: Sms = serde_json::from_str(message.get()).map_err(Failure::failed)?;
                return Ok(ReceivedSms {
                    delivery: name.to_string(),
                    redelivered: delivery.redelivered,
                    number: sms.id,
                });
            }
        }
    }
}

/// One delivery.
struct ReceivedSms {
    delivery: String,
    redelivered: bool,
    number: u64,
}

/// The fields of a message that the gateway reads.
#[derive(serde::Deserialize)]
struct Sms {
    id: u64,
}

async fn with_timeout(next: impl Future<Output = Result<Message, Error>>) -> Result<Message, Failure> {
    match tokio::time::timeout(STEP_TIMEOUT, next).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::failed(format_args!("the broker sent nothing for {} seconds", STEP_TIMEOUT.as_secs()))),
    }
}
