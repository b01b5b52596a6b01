//! The command line: one file a subcommand. Every subcommand reads its arguments, does its work through the library, and says in plain
//! sentences what came of it.
//!
//! Results go to standard output, everything else to standard error. Nothing here ends the process: `main` does, with the
//! exit code that [`run`] gives it. No secret is ever printed but the password that `serve` makes on its first start, and none is ever suggested as an argument.

mod arguments;
#[cfg(feature = "bench")]
mod bench;
mod build;
mod check;
mod completions;
mod connect;
mod contexts;
mod demo;
mod exec;
mod hints;
mod import;
mod login;
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

use std::ffi::OsString;
use std::future::Future;

use clap::{CommandFactory as _, Parser, Subcommand};

use outcome::{Failure, Outcome};

/// A lightweight WebSocket message broker
///
/// Programs send messages to a channel and others receive them from it; what nobody has received is kept. One command is the broker
/// (serve), the others talk to it or look after it.
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

See it all in one terminal, in half a minute:  wsmb demo"
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
    Check(check::Check),
    Queue(queue::Queue),
    Import(import::Import),
    #[cfg(feature = "bench")]
    Bench(bench::Bench),
    Demo(demo::Demo),
    Completions(completions::Completions),
}

/// Runs the command that `arguments` (the program's name first) ask for.
///
/// Returns the exit code: 0 done, 1 failed, 2 misuse, 3 sent to nobody.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let says =
        Says { json: arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json") };
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return says.bad_arguments(&error),
    };
    let outcome = match cli.command {
        Command::Serve(command) => block_on(command.run()),
        Command::Send(command) => block_on(command.run()),
        Command::Receive(command) => block_on(command.run()),
        Command::Ping(command) => block_on(command.run()),
        Command::Login(command) => block_on(command.run()),
        Command::Passwd(command) => command.run(),
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
        Err(Failure::Failed(reason)) => says.failed(&reason, 1),
        Err(Failure::Said) => 1,
        Err(Failure::Nobody) => 3,
        Err(Failure::Misuse(reason)) => says.failed(&reason, 2),
    }
}

/// How a failure is said: in a sentence on standard error, and with `--json` in an object on standard output, too.
#[derive(Clone, Copy)]
struct Says {
    json: bool,
}

impl Says {
    fn failed(self, reason: &str, exit_code: u8) -> u8 {
        output::complain(reason);
        if self.json {
            // If this cannot be printed, there is nobody to be told.
            let _ = output::line(&serde_json::json!({ "error": reason, "exit_code": exit_code }).to_string());
        }
        exit_code
    }

    fn bad_arguments(self, error: &clap::Error) -> u8 {
        if let Some(reason) = hints::meant(error) {
            return self.failed(&reason, 2);
        }
        // If even this cannot be printed, there is nobody to be told.
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

/// Runs a client command: one thread does for one connection.
fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("the system gives this program no event queue: {error}")))?;
    let outcome = runtime.block_on(work);
    // A thread that still writes to a full pipe, or resolves a name, must not keep the program from ending.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests;
