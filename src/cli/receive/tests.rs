//! What a receiver asks for, and what ends it.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    receive: Receive,
}

fn prefetch(arguments: &[&str]) -> u32 {
    Line::try_parse_from([&["wsmb", "sms"], arguments].concat()).unwrap().receive.prefetch()
}

#[test]
fn no_more_is_taken_than_is_worked_on() {
    assert_eq!(prefetch(&[]), limits::PREFETCH);
    assert_eq!(prefetch(&["--count", "3"]), 3);
    assert_eq!(prefetch(&["--count", "99999999999"]), limits::PREFETCH);
    assert_eq!(prefetch(&["--exec", "true"]), 1);
    assert_eq!(prefetch(&["--exec", "true", "--workers", "8"]), 8);
    assert_eq!(prefetch(&["--exec", "true", "--workers", "8", "--count", "2"]), 2);
}

#[test]
fn only_a_newer_receiver_of_that_name_ends_it() {
    let closed = |code, reason: &str| Error::Closed { code, reason: reason.to_owned() };
    assert!(is_replaced(&closed(Some(1008), "replaced")));
    assert!(!is_replaced(&closed(Some(1008), "slow receiver")));
    assert!(!is_replaced(&closed(Some(1001), "")));
}
