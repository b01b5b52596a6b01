//! The examples of `docs/protocol.md`, executed.
//!
//! A code block marked `wsmb` is a conversation with a broker of default configuration. `> TEXT` is a frame that a client sends, and
//! `< TEXT` is the next frame that the client gets. In `<` lines `…` stands for any text; in `>` lines for the name of the client's last delivery.
//! With several clients, a line begins with a name: `gateway> TEXT`. A name with a topic, `gateway@sms> TEXT`, is a topic connection; a name without
//! a topic is an envelope connection after its connect reply. A name alone connects. A line that begins with `#` is a comment. Each block has new
//! connections to a new broker, unless its first line is `# same connection`.

use std::collections::HashMap;

use crate::broker::Broker;
use crate::client::Client;

/// One line of a conversation.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Connect { client: &'a str },
    Send { client: &'a str, text: &'a str },
    Expect { client: &'a str, text: &'a str },
}

/// One block: its line in the page, whether it continues the previous block, and its lines.
#[derive(Debug, PartialEq, Eq)]
struct Block<'a> {
    line: usize,
    continues: bool,
    lines: Vec<(usize, Line<'a>)>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        match &mut open {
            None if line.trim() == "```wsmb" => {
                open = Some(Block { line: number, continues: false, lines: Vec::new() })
            }
            None => {}
            Some(_) if line.trim() == "```" => blocks.extend(open.take()),
            Some(block) if line.starts_with('#') => {
                block.continues |= block.lines.is_empty() && line.trim() == "# same connection";
            }
            Some(_) if line.trim().is_empty() => {}
            Some(block) => block.lines.push((number, parse(number, line))),
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    blocks
}

fn parse(number: usize, line: &str) -> Line<'_> {
    let is_name = |name: &str| name.chars().all(|c| c.is_alphanumeric() || matches!(c, '@' | '-' | '_'));
    match line.find(['>', '<']) {
        Some(at) if is_name(&line[..at]) => {
            let (client, text) = (&line[..at], line[at + 1..].trim());
            if line.as_bytes()[at] == b'>' { Line::Send { client, text } } else { Line::Expect { client, text } }
        }
        None if is_name(line.trim()) => Line::Connect { client: line.trim() },
        _ => panic!("line {number} is neither `> TEXT` nor `< TEXT`: {line}"),
    }
}

/// Whether `text` matches `pattern`, where `…` stands for any text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Opens the connection of a client by its name.
#[track_caller]
fn connect(broker: &Broker, name: &str) -> Client {
    match name.split_once('@') {
        Some((_, topic)) => Client::topic(broker, topic),
        None => Client::envelope(broker),
    }
}

#[test]
fn every_example_of_the_protocol_page_matches_the_broker() {
    let path = format!("{}/docs/protocol.md", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("docs/protocol.md: {error}"));
    let blocks = blocks(&page);
    assert!(!blocks.is_empty(), "docs/protocol.md has no block marked `wsmb`");
    let mut scene: Option<(Broker, HashMap<&str, Client>)> = None;
    let mut names: HashMap<&str, String> = HashMap::new();
    for block in &blocks {
        if !block.continues {
            scene = Some((Broker::start(), HashMap::new()));
        }
        let Some((broker, clients)) = &mut scene else { panic!("the block at line {} continues no block", block.line) };
        for (number, line) in &block.lines {
            let (Line::Connect { client: name } | Line::Send { client: name, .. } | Line::Expect { client: name, .. }) =
                line;
            let client = clients.entry(name).or_insert_with(|| connect(broker, name));
            match line {
                Line::Connect { .. } => {}
                Line::Send { text, .. } => {
                    let name = names.get(name).map_or("", String::as_str);
                    client.raw().send_text(&text.replace('…', name));
                    client.sync();
                }
                Line::Expect { text: pattern, .. } => {
                    let text = client.next_text();
                    let trace = client.trace();
                    if let Some((delivery, _)) =
                        text.strip_prefix(r#"{"delivery":""#).and_then(|rest| rest.split_once('"'))
                    {
                        names.insert(name, delivery.to_owned());
                    }
                    assert!(
                        matches(pattern, &text),
                        "docs/protocol.md:{number}: expected\n  {pattern}\ngot\n  {text}\n{trace}"
                    );
                }
            }
        }
        clients.values_mut().for_each(Client::expect_nothing_yet);
    }
}

#[test]
fn blocks_are_found_and_parsed() {
    let page =
        "text\n```wsmb\n# same connection\n> {\"a\":1}\n\ngateway@sms< …\ngateway@sms\n```\n```json\n> no\n```\n";
    let lines = vec![
        (4, Line::Send { client: "", text: "{\"a\":1}" }),
        (6, Line::Expect { client: "gateway@sms", text: "…" }),
        (7, Line::Connect { client: "gateway@sms" }),
    ];
    assert_eq!(blocks(page), [Block { line: 2, continues: true, lines }]);
}

#[test]
fn patterns_match_the_right_texts() {
    for (pattern, text, wanted) in [
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("a…d", "abcd", true),
        ("a…", "a", true),
        ("…", "", true),
        ("a…b…c", "a-b-b-c", true),
        ("a…x…c", "abc", false),
        ("ab…bc", "abc", false),
    ] {
        assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
    }
}
