//! Tests of arguments, help texts and exit codes. `tests/cli` tests the commands with the real binary.

use clap::CommandFactory;

use super::*;

fn exit_code(arguments: &[&str]) -> u8 {
    run([&["wsmb"], arguments].concat().into_iter().map(OsString::from))
}

#[test]
fn the_definition_of_the_arguments_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_text_has_an_example() {
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains("Example"), "{name} shows no example:\n{help}");
        assert!(help.contains(&format!("wsmb {name}")), "{name} does not show itself:\n{help}");
    }
}

#[test]
fn invalid_arguments_give_exit_code_2() {
    let table: &[&[&str]] = &[
        &["nonsense"],
        &["send"],
        &["send", "sms"],
        &["send", "", "x"],
        &["send", "sms", "x", "--ttl", "soon"],
        &["send", "sms", "x", "--timeout", "1h"],
        &["send", "sms", "-", "--id", "x"],
        &["send", "sms", "x", "--url", "http://localhost"],
        &["receive"],
        &["receive", "a\nb"],
        &["receive", "sms", "--workers", "2"],
        &["receive", "sms", "--exec", "true", "--workers", "0"],
        &["receive", "sms", "--count", "0"],
        &["ping", "--url", "localhost"],
    ];
    for arguments in table {
        assert_eq!(exit_code(arguments), 2, "{arguments:?}");
    }
}
