//! The examples of `docs/http.md`, executed, and the first request of the README.
//!
//! A code block in `sh`, `php` or `python` is run; the block in `json` or `text` behind it is its output, in which `…` stands for any text. A block
//! marked `background` runs on while the following ones run, like a program in another terminal, and an output marked `background` is what the last of
//! them has printed since. Each heading begins with a new broker, or starts its own with `wsmb serve`. `browser` runs the block in `js`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::broker::{Broker, Log, PASSWORD, PATIENCE, USER};
use crate::docs_examples::matches;

/// The address of the broker in the documentation.
pub const DOCUMENTED: &str = "127.0.0.1:8888";

/// A code block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block<'a> {
    line: usize,
    /// The line of the heading above.
    heading: usize,
    pub language: &'a str,
    is_background: bool,
    pub text: String,
}

/// The code blocks of a page.
pub fn blocks(page: &str) -> Vec<Block<'_>> {
    let (mut blocks, mut open, mut heading) = (Vec::new(), None::<Block<'_>>, 0);
    for (index, line) in page.lines().enumerate() {
        match &mut open {
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(block) => block.text += &format!("{line}\n"),
            None => {
                if line.starts_with('#') {
                    heading = index + 1;
                }
                if let Some(kind) = line.strip_prefix("```") {
                    let (language, mark) = kind.split_once(' ').unwrap_or((kind, ""));
                    assert!(matches!(mark, "" | "background"), "line {}: unknown mark: {mark}", index + 1);
                    let is_background = mark == "background";
                    open = Some(Block { line: index + 1, heading, language, is_background, text: String::new() });
                }
            }
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    blocks
}

/// A program that runs on. It is killed when dropped.
struct Program {
    child: Child,
    output: Log,
    errors: Log,
    /// The bytes of the output that were compared.
    compared: usize,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Waits until the output since the last comparison matches.
    #[track_caller]
    fn expect(&mut self, pattern: &str, line: usize) {
        let start = self.compared;
        let is_here = |text: &str| matches(pattern.trim(), text[start..].trim()).then_some(text.len());
        let found = self.output.wait(Instant::now() + PATIENCE, is_here);
        self.compared = found.unwrap_or_else(|| {
            let (output, errors) = (self.output.text(), self.errors.text());
            panic!("docs/http.md:{line}: expected\n{pattern}\ngot\n{}\nerrors: {errors}", &output[start..])
        });
    }
}

/// The blocks below one heading, with their broker.
struct Scene {
    dir: TempDir,
    address: SocketAddr,
    /// None: an example starts the broker.
    _broker: Option<Broker>,
    programs: Vec<Program>,
}

impl Scene {
    fn new(starts_broker: bool) -> Self {
        let broker = (!starts_broker).then(Broker::start);
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let address = broker.as_ref().map_or_else(free, Broker::address);
        Self { dir: tempfile::tempdir().expect("a directory"), address, _broker: broker, programs: Vec::new() }
    }

    /// The command that runs a block.
    fn command(&self, block: &Block<'_>) -> Command {
        let text = block.text.replace(DOCUMENTED, &self.address.to_string());
        // A program of its own for each block, because a shell reads its script while it runs.
        let file = format!("block-{}", block.line);
        std::fs::write(self.dir.path().join(&file), text).expect("a file");
        let (program, arguments): (_, &[&str]) = match block.language {
            "sh" => ("sh", &["-e"]),
            "php" => ("php", &["-d", "display_errors=stderr", "-d", "error_reporting=-1"]),
            _ => ("python3", &[]),
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(file);
        let folder = Path::new(env!("CARGO_BIN_EXE_wsmb")).parent().expect("its folder").to_path_buf();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path))).expect("a path");
        command.current_dir(self.dir.path()).env("PATH", path).env("no_proxy", "*").stdin(Stdio::null());
        command.env("HOME", self.dir.path()).env("XDG_CONFIG_HOME", self.dir.path().join(".config"));
        command.env("WSMB_SERVER__LISTEN", self.address.to_string()).env("WSMB_URL", format!("ws://{}", self.address));
        command
    }

    /// Runs a block to its end. Returns its output.
    #[track_caller]
    fn run(&self, block: &Block<'_>) -> String {
        let output = self.command(block).output().expect("a program; `cargo xtask test` installs it");
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "docs/http.md:{}: {text}{errors}", block.line);
        if block.text.contains("wsmb passwd") {
            // The broker reads the file by itself.
            let url = format!("http://{}/api/v1/channels/none/messages", self.address);
            let user = format!("{USER}:{PASSWORD}");
            until(|| {
                Command::new("curl")
                    .args(["-fs", "--noproxy", "*", "-u", &user, &url])
                    .output()
                    .is_ok_and(|got| got.status.success())
            });
        }
        text.into_owned()
    }

    /// Starts a block that runs on.
    fn start(&mut self, block: &Block<'_>) {
        let text = if block.language == "sh" { format!("exec {}", block.text) } else { block.text.clone() };
        let block = &Block { text, ..*block };
        let mut command = self.command(block);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program");
        let (output, errors) = (Log::default(), Log::default());
        output.follow(child.stdout.take().expect("its output"));
        errors.follow(child.stderr.take().expect("its errors"));
        self.programs.push(Program { child, output, errors, compared: 0 });
        if block.text.contains("wsmb serve") {
            until(|| TcpStream::connect(self.address).is_ok());
        }
    }
}

#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_example_of_the_http_page_works() {
    let blocks = blocks(include_str!("../../../docs/http.md"));
    let (mut scene, mut printed, mut heading) = (None::<Scene>, String::new(), 0);
    for block in &blocks {
        if heading != block.heading {
            heading = block.heading;
            drop(scene.take());
            let starts = |other: &Block<'_>| other.heading == heading && other.text.contains("wsmb serve");
            let runs =
                |other: &Block<'_>| other.heading == heading && matches!(other.language, "sh" | "php" | "python");
            scene = blocks.iter().any(runs).then(|| Scene::new(blocks.iter().any(starts)));
        }
        let current = scene.as_mut();
        match (block.language, block.is_background) {
            ("sh" | "php" | "python", true) => current.expect("a scene").start(block),
            ("sh" | "php" | "python", false) => printed = current.expect("a scene").run(block),
            ("json" | "text", true) => {
                current.and_then(|scene| scene.programs.last_mut()).expect("a program").expect(&block.text, block.line);
            }
            ("json" | "text", false) => {
                let (pattern, printed) = (block.text.trim(), printed.trim());
                assert!(matches(pattern, printed), "docs/http.md:{}: expected\n{pattern}\ngot\n{printed}", block.line);
            }
            ("toml" | "js", false) => {}
            (language, _) => panic!("docs/http.md:{}: no test runs {language}", block.line),
        }
    }
}

#[test]
fn the_first_request_of_the_readme_works() {
    let readme = include_str!("../../../README.md");
    let blocks = blocks(readme);
    let block = blocks.iter().find(|block| block.text.contains("curl -u wsmb ")).expect("a request with curl");
    let expected = &blocks[blocks.iter().position(|other| other == block).expect("its place") + 1];
    let mut scene = Scene::new(false);
    let receive = format!("wsmb receive sms --url ws://{}\n", scene.address);
    let text = block.text.replace("curl -u wsmb ", &format!("curl -u {USER}:{PASSWORD} "));
    let run = |line, text| Block { line, heading: 0, language: "sh", is_background: false, text };
    scene.start(&run(0, format!("env WSMB_USER={USER} WSMB_PASSWORD={PASSWORD} {receive}")));
    let printed = scene.run(&run(block.line, text));
    assert!(matches(expected.text.trim(), printed.trim()), "{printed}");
}

#[test]
fn blocks_are_found_with_their_marks() {
    let found = blocks("# a\n```sh background\nx\n# y\n```\n## b\n```json\n{}\n```\n");
    let block = |line, heading, language, is_background, text: &str| Block {
        line,
        heading,
        language,
        is_background,
        text: text.to_owned(),
    };
    assert_eq!(found, [block(2, 1, "sh", true, "x\n# y\n"), block(7, 6, "json", false, "{}\n")]);
}
