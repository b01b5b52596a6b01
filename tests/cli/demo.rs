//! `wsmb demo`.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Running, run, wsmb};

#[test]
fn the_demo_fits_80_columns_and_ends_with_commands_to_try() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(wsmb(directory.path()).args(["demo", "--fast"]).env("TMPDIR", directory.path())).with(0);
    assert!(ended.stdout.contains("14 sent = 13 confirmed + 1 expired"), "{}", ended.stdout);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the demo leaves files");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let long: Vec<&&str> = lines.iter().filter(|line| line.chars().count() > 80).collect();
    assert!(long.is_empty(), "{long:#?}");
    // The same three lines as in the general help.
    let help = run(wsmb(directory.path()).arg("--help")).with(0).stdout;
    let last = &lines[lines.len() - 3..];
    assert!(help.contains(&last.join("\n")), "{last:#?}");
    assert!(last[0].contains("wsmb serve") && last[1].contains("receive") && last[2].contains("send"), "{last:#?}");
}

#[test]
fn the_demo_pauses_and_leaves_no_files_when_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Running::start(wsmb(directory.path()).arg("demo").env("TMPDIR", directory.path()));
    assert_eq!(demo.stdout.next(), "");
    let chapter = demo.stdout.next();
    let shown = Instant::now();
    let line = demo.stdout.next();
    assert!(shown.elapsed() > Duration::from_secs(2), "too fast to read: {chapter}\n{line}");
    assert!(demo.stdout.next().contains("gateway"));
    demo.terminate();
    demo.end().with(1).with_stderr("the demo was interrupted");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
