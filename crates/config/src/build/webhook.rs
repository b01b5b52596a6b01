//! The entries `[[webhook]]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Problem;
use crate::limits;
use crate::model::read_line;
use crate::raw::{Entry, Value};
use crate::section::SectionReader;
use crate::values;
use crate::webhook::{Secret, Webhook, WebhookUrl};
use wsmb_core::message::ChannelName;

/// Reads all entries. Blocks: secrets may be in files.
pub(super) fn webhooks(entries: &[Entry], problems: &mut Vec<Problem>) -> Vec<Webhook> {
    let mut webhooks: Vec<Webhook> = Vec::new();
    for entry in entries {
        let Some(webhook) = webhook(entry, problems) else { continue };
        if webhooks.iter().any(|known| known.name == webhook.name) {
            let text = format_args!("another [[webhook]] is also named {:?}; give each its own name", webhook.name);
            problems.push(Problem::at(&entry.source, text));
        }
        webhooks.push(webhook);
    }
    webhooks
}

fn webhook(entry: &Entry, problems: &mut Vec<Problem>) -> Option<Webhook> {
    for (key, example) in [("channel", "channel = \"sms\""), ("url", "url = \"https://app.example/hook\"")] {
        if !entry.settings.contains_key(&*format!("webhook.{key}")) {
            problems.push(Problem::at(&entry.source, format_args!("this [[webhook]] has no {key}: write {example}")));
        }
    }
    let mut reader = SectionReader { settings: &entry.settings, problems };
    let name = reader.get("webhook.name", name);
    let channels = reader.get("webhook.channel", channels);
    let url = reader.get("webhook.url", |value| WebhookUrl::parse(&values::text(value)?));
    let known = reader.problems.len();
    let mut secrets = reader.get("webhook.secret", secrets).unwrap_or_default();
    let has_secret_in_file = reader.is_in_file("webhook.secret");
    secrets.extend(reader.get("webhook.secret_file", secrets_in_files).unwrap_or_default());
    if secrets.is_empty() && reader.problems.len() == known {
        let text =
            "this [[webhook]] has no secret, so nobody can check who sends its requests: write secret_file = \"FILE\"";
        reader.problems.push(Problem::at(&entry.source, text));
    }
    let secret_files = reader.get("webhook.secret_file", files).unwrap_or_default();
    let (mut timeout, mut concurrency, mut allow_private) = (Duration::from_secs(10), 4, false);
    reader.set_duration("webhook.timeout", &mut timeout, limits::WEBHOOK_TIMEOUT_MIN, limits::WEBHOOK_TIMEOUT_MAX);
    reader.set_number("webhook.concurrency", &mut concurrency, 1, limits::WEBHOOK_CONCURRENCY);
    reader.set("webhook.allow_private", &mut allow_private, values::boolean);
    let ca = reader.get("webhook.ca", values::path).flatten();
    let url = url?;
    let name = name.unwrap_or_else(|| url.label());
    let secret_files = secret_files.into_iter().map(PathBuf::from).collect();
    Some(Webhook {
        name,
        channels: channels?,
        url,
        secrets,
        has_secret_in_file,
        secret_files,
        timeout,
        concurrency,
        allow_private,
        ca,
    })
}

fn name(value: &Value) -> Result<String, String> {
    let text = values::text(value)?;
    let most = wsmb_core::limits::NAME_BYTES;
    if text.is_empty() || text.len() > most || text.contains(char::is_control) {
        return Err(format!("must have 1 to {most} bytes, without control characters"));
    }
    Ok(text)
}

fn channels(value: &Value) -> Result<Vec<ChannelName>, String> {
    let list = values::list(value)?;
    let most = limits::WEBHOOK_CHANNELS;
    if list.is_empty() || list.len() > most {
        return Err(format!("must have 1 to {most} channels"));
    }
    let mut channels = Vec::new();
    for text in list {
        if text.contains(['*', '?']) {
            return Err(format!("must have names of channels, without * and ?, not {text:?}"));
        }
        let channel = ChannelName::parse(&text).map_err(|bad| format!("has an invalid channel name: {bad}"))?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    Ok(channels)
}

/// Checks the number of secrets.
fn few(list: Vec<String>) -> Result<Vec<String>, String> {
    let most = limits::WEBHOOK_SECRETS;
    if list.len() > most { Err(format!("has more than {most} entries")) } else { Ok(list) }
}

/// Reads names of files. An empty text means no file.
fn files(value: &Value) -> Result<Vec<String>, String> {
    Ok(values::list(value)?.into_iter().filter(|file| !file.is_empty()).collect())
}

fn secrets(value: &Value) -> Result<Vec<Secret>, String> {
    few(values::list(value)?)?.iter().map(|text| Secret::parse(text)).collect()
}

fn secrets_in_files(value: &Value) -> Result<Vec<Secret>, String> {
    let secret = |path: &String| {
        let line = read_line(Path::new(path)).map_err(|problem| format!("names {path:?}, which {problem}"))?;
        Secret::parse(&line).map_err(|problem| format!("names {path:?}, whose first line {problem}"))
    };
    few(files(value)?)?.iter().map(secret).collect()
}
