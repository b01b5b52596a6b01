//! The command line. Each subcommand has one file: it parses its arguments, does its work with the other crates, and prints the result.
//!
//! Results go to standard output, all other text to standard error. A subcommand never ends the process (except for a second Ctrl-C, see `signals`): it
//! returns an outcome, and `main` exits with the code that [`run`] returns. Never prints a secret, except the password that `serve` makes at its first
//! start. Never takes a secret as an argument.

mod arguments;
#[cfg(feature = "bench")]
mod bench;
mod build;
#[cfg(feature = "tls")]
mod cert;
mod check;
mod completions;
mod connect;
mod contexts;
mod demo;
mod exec;
mod hints;
mod import;
mod login;
mod memory;
mod outcome;
mod output;
mod passwd;
mod ping;
mod queue;
mod receive;
mod send;
mod serve;
mod settings;
mod signals;
mod token;

use std::ffi::OsString;
use std::future::Future;

use clap::{CommandFactory as _, Parser, Subcommand};

use outcome::{Failure, Outcome};

/// A lightweight WebSocket message broker
///
/// Programs send messages to a channel, and other programs receive them. The broker keeps each message until it is received. The command "serve" runs the
/// broker; the other commands send and receive messages, or manage the broker and its files.
#[derive(Debug, Parser)]
#[command(
    name = "wsmb",
    version,
    arg_required_else_help = true,
    after_help = "\
Example, in three terminals:
  wsmb serve
  wsmb receive sms
  wsmb send sms '{\"receiver\":\"081234567890\",\"message\":\"Your code is 402913\"}'

Watch a demonstration in one terminal (30 seconds):
  wsmb demo"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Send(send::Send),
    Receive(receive::Receive),
    Ping(ping::Ping),
    Login(login::Login),
    Passwd(passwd::Passwd),
    Token(token::Token),
    #[cfg(feature = "tls")]
    Cert(cert::Cert),
    Check(check::Check),
    Queue(queue::Queue),
    Import(import::Import),
    #[cfg(feature = "bench")]
    Bench(bench::Bench),
    Demo(demo::Demo),
    Completions(completions::Completions),
}

/// Runs the command that `arguments` name. The first argument is the name of the program.
///
/// Returns the exit code: 0 = success, 1 = failure, 2 = misuse, 3 = a message reached no receiver and is not kept.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let printer = FailurePrinter {
        json: arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json"),
    };
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return printer.bad_arguments(&error),
    };
    let outcome = match cli.command {
        Command::Serve(command) => block_on(command.run()),
        Command::Send(command) => block_on(command.run()),
        Command::Receive(command) => block_on(command.run()),
        Command::Ping(command) => block_on(command.run()),
        Command::Login(command) => block_on(command.run()),
        Command::Passwd(command) => command.run(),
        Command::Token(command) => command.run(),
        #[cfg(feature = "tls")]
        Command::Cert(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Queue(command) => command.run(),
        Command::Import(command) => command.run(),
        #[cfg(feature = "bench")]
        Command::Bench(command) => command.run(),
        Command::Demo(command) => block_on(command.run()),
        Command::Completions(command) => command.run(Cli::command()),
    };
    match outcome {
        Ok(()) => 0,
        Err(Failure::Failed(reason)) => printer.failed(&reason, 1),
        Err(Failure::Reported) => 1,
        Err(Failure::NoReceiver) => 3,
        Err(Failure::Misuse(reason)) => printer.failed(&reason, 2),
    }
}

/// Prints failures on standard error, and with `--json` also as a JSON object on standard output.
#[derive(Clone, Copy)]
struct FailurePrinter {
    json: bool,
}

impl FailurePrinter {
    fn failed(self, reason: &str, exit_code: u8) -> u8 {
        output::print_error(reason);
        if self.json {
            // If standard output is closed, nobody reads the object.
            let _ = output::line(&serde_json::json!({ "error": reason, "exit_code": exit_code }).to_string());
        }
        exit_code
    }

    fn bad_arguments(self, error: &clap::Error) -> u8 {
        if let Some(reason) = hints::suggestion(error) {
            return self.failed(&reason, 2);
        }
        // If standard error is closed, nobody reads the message.
        let _ = error.print();
        let exit_code = u8::try_from(error.exit_code()).unwrap_or(2);
        if self.json && exit_code != 0 {
            let text = error.render().to_string();
            let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let _ = output::line(&serde_json::json!({ "error": reason, "exit_code": exit_code }).to_string());
        }
        exit_code
    }
}

/// Runs an asynchronous command on this thread. One thread is enough for one connection.
fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot create the event loop: {error}")))?;
    let outcome = runtime.block_on(work);
    // A background thread may still write to a full pipe or resolve a name. The program does not wait for it.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests;
