//! An administrator's connection that stays open between statements, for locks and transactions. The session runs the server's command-line client on pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::{Kind, PATIENCE, process};

/// One connection. Dropping it ends its transaction.
pub struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    kind: Kind,
    marks: u32,
}

impl Session {
    #[track_caller]
    pub(super) fn start(kind: Kind, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = process::spawn(command).expect("the command line client");
        let input = child.stdin.take().expect("its standard input");
        let output = BufReader::new(child.stdout.take().expect("its standard output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, input, lines, kind, marks: 0 }
    }

    /// Sends a statement without waiting for its end, because another session blocks it.
    #[track_caller]
    pub fn begin(&mut self, statement: &str) {
        writeln!(self.input, "{statement};").and_then(|()| self.input.flush()).expect("the command line client");
    }

    /// Runs a statement and returns its rows.
    #[track_caller]
    pub fn run(&mut self, statement: &str) -> Vec<String> {
        self.marks += 1;
        let mark = format!("mark {}", self.marks);
        self.begin(&format!("{statement};\nSELECT '{mark}'"));
        let mut rows = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{} does not answer {statement}", self.kind.name()));
            if line == mark {
                return rows;
            }
            rows.push(line);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
