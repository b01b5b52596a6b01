//! The rules. Each takes a source and returns its breaches, as sentences that name file and line.

use std::path::PathBuf;

use crate::scan;

/// Lines of a source file, of a file of tests, and of a function, at most.
const FILE_LINES: usize = 500;
const TEST_FILE_LINES: usize = 900;
const FUNCTION_LINES: usize = 70;

/// Which rooms a room of the library may import. `main.rs` imports `cli`; whoever is not named here may import nothing.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("limits", GROUND),
    ("message", GROUND),
    ("network", GROUND),
    ("policy", GROUND),
    ("protocol", GROUND),
    ("broker", GROUND),
    ("store", GROUND),
    ("auth", GROUND),
    ("config", GROUND),
    ("server", &["limits", "message", "network", "policy", "protocol", "broker", "store", "auth", "config"]),
    ("client", &["limits", "message", "network", "policy", "protocol"]),
    ("load", &["limits", "message", "network", "policy", "protocol", "client"]),
    ("http", &["limits", "message", "network", "policy", "protocol", "broker", "store", "auth", "config", "server"]),
    (
        "cli",
        &[
            "limits", "message", "network", "policy", "protocol", "broker", "store", "auth", "config", "server",
            "client", "load", "http",
        ],
    ),
    ("main", &["cli"]),
];

/// What everybody may know.
const GROUND: &[&str] = &["limits", "message", "network", "policy"];

/// What the rooms without I/O must not name, and the reason.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "the runtime belongs to the server"),
    ("Instant", "the time is an argument"),
    ("SystemTime", "the time is an argument"),
    ("TcpStream", "sockets belong to the server"),
    ("TcpListener", "sockets belong to the server"),
    ("UdpSocket", "sockets belong to the server"),
    ("std::net", "sockets belong to the server"),
    ("std::fs", "files belong to the store"),
    ("std::thread", "threads belong to the server and the store"),
    ("rusqlite", "the database belongs to the store"),
];

/// What ends the process, or the thread, where nobody expects it.
const PANICS: &[&str] = &[
    ".unwrap()",
    ".expect(",
    ".unwrap_err()",
    ".expect_err(",
    "panic!(",
    "unreachable!(",
    "todo!(",
    "unimplemented!(",
];

/// One Rust file.
pub struct Source {
    path: PathBuf,
    text: String,
    /// Without comments and strings.
    code: String,
    is_test: bool,
}

impl Source {
    pub fn new(path: PathBuf, text: String, is_test: bool) -> Self {
        let code = scan::code_only(&text);
        Self { path, text, code, is_test }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The room of the library that the file belongs to: `src/server/gate.rs` is `server`.
    fn room(&self) -> Option<String> {
        let below = self.path.strip_prefix("src").ok()?;
        let first = below.components().next()?.as_os_str().to_string_lossy().into_owned();
        Some(first.trim_end_matches(".rs").to_string())
    }
}

/// No file is too long to be read at a sitting.
pub fn file_length(source: &Source) -> Vec<String> {
    let most = if source.is_test { TEST_FILE_LINES } else { FILE_LINES };
    let lines = source.text.lines().count();
    if lines > most { vec![format!("{}: {lines} lines, at most {most}", source.name())] } else { Vec::new() }
}

/// No function is too long to be seen at once.
pub fn function_length(source: &Source) -> Vec<String> {
    scan::functions(&source.code)
        .into_iter()
        .filter(|function| function.last - function.first + 1 > FUNCTION_LINES)
        .map(|function| {
            let lines = function.last - function.first + 1;
            format!(
                "{}:{}: `{}` has {lines} lines, at most {FUNCTION_LINES}",
                source.name(),
                function.first,
                function.name
            )
        })
        .collect()
}

/// No arrow upwards, no circle.
pub fn import_direction(source: &Source) -> Vec<String> {
    let Some(room) = source.room().filter(|room| room != "lib" && !source.is_test) else { return Vec::new() };
    let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| allowed);
    let code = scan::without_tests(&source.code);
    imports(&code)
        .into_iter()
        .filter(|(_, imported)| *imported != room && is_room(imported) && !allowed.contains(&imported.as_str()))
        .map(|(line, imported)| format!("{}:{line}: `{room}` must not import `{imported}`", source.name()))
        .collect()
}

fn is_room(name: &str) -> bool {
    MAY_IMPORT.iter().any(|(room, _)| *room == name)
}

/// What stands behind `crate::` and `wsmb::`, with its line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "wsmb::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let line = scan::line_of(code, at);
            let list = rest.strip_prefix('{').map(first_words).unwrap_or_else(|| vec![word(rest)]);
            found.extend(list.into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first word of each member of `{a::b, c::{d, e}, f}`, without its opening brace.
fn first_words(rest: &str) -> Vec<String> {
    let (mut depth, mut words, mut start) = (0, Vec::new(), 0);
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                words.push(word(rest[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                words.push(word(rest[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    words
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// A module opens with what it is for.
pub fn module_docs(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        Vec::new()
    } else {
        vec![format!("{}: does not start with `//!`", source.name())]
    }
}

/// Nothing panics outside tests, unless a comment says why it cannot happen.
pub fn no_panic(source: &Source) -> Vec<String> {
    if source.is_test {
        return Vec::new();
    }
    let code = scan::without_tests(&source.code);
    let (code, text): (Vec<&str>, Vec<&str>) = (code.lines().collect(), source.text.lines().collect());
    let mut found = Vec::new();
    for (index, line) in code.iter().enumerate() {
        for panic in PANICS.iter().filter(|panic| line.contains(**panic)) {
            if !has_invariant(&code, &text, index) {
                found.push(format!(
                    "{}:{}: `{panic}` without an `// invariant:` comment above",
                    source.name(),
                    index + 1
                ));
            }
        }
    }
    found
}

/// Whether the statement that this line belongs to has an `// invariant:` comment above it or in it.
fn has_invariant(code: &[&str], text: &[&str], line: usize) -> bool {
    if text[line].contains("// invariant:") {
        return true;
    }
    for above in (0..line).rev() {
        let is_comment = text[above].trim_start().starts_with("//");
        if is_comment && text[above].contains("// invariant:") {
            return true;
        }
        let ends_here = code[above].trim_end().ends_with([';', '{', '}', ',']) || text[above].trim().is_empty();
        if !is_comment && ends_here {
            return false;
        }
    }
    false
}

/// The core and the protocol do no I/O and read no clock.
pub fn purity(source: &Source) -> Vec<String> {
    if source.is_test || !matches!(source.room().as_deref(), Some("broker" | "protocol")) {
        return Vec::new();
    }
    let code = scan::without_tests(&source.code);
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        for (name, reason) in IMPURE.iter().filter(|(name, _)| contains_word(line, name)) {
            found.push(format!("{}:{}: `{name}`: {reason}", source.name(), index + 1));
        }
    }
    found
}

fn contains_word(line: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + name.len()..].chars().next().is_some_and(is_part)
    })
}

/// A test runs or is not there.
pub fn no_ignored_test(source: &Source) -> Vec<String> {
    let lines = source.code.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
    lines.map(|(index, _)| format!("{}:{}: an ignored test", source.name(), index + 1)).collect()
}

/// No path of one person's machine; nothing left undone without a word on what works meanwhile.
pub fn forbidden_text(name: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file passes its own test.
    let paths = ["work", "home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let undone = ["TO", "FIX", "X"].iter().zip(["DO", "ME", "XX"]).map(|(start, end)| format!("{start}{end}"));
    let undone: Vec<String> = undone.collect();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for path in paths.iter().filter(|path| line.contains(*path)) {
            found.push(format!("{name}:{}: a path of one machine (`{path}`)", index + 1));
        }
        for mark in undone.iter().filter(|mark| contains_word(line, mark) && !line.contains("meanwhile")) {
            found.push(format!("{name}:{}: `{mark}` that does not say what works meanwhile", index + 1));
        }
    }
    found
}

/// The keys of a TOML file, as `section.key`.
pub fn keys(example: &str) -> Vec<String> {
    let table: toml::Table = example.parse().unwrap_or_else(|error| panic!("the example configuration: {error}"));
    let mut found = Vec::new();
    for (section, value) in &table {
        match value {
            toml::Value::Table(entries) => found.extend(entries.keys().map(|key| format!("{section}.{key}"))),
            _ => found.push(section.clone()),
        }
    }
    found
}

/// The tests that a page names: `path/file.rs::function` in backticks.
pub fn named_tests(page: &str) -> Vec<(String, String)> {
    let spans = page.split('`').skip(1).step_by(2);
    spans
        .filter_map(|span| span.split_once(".rs::"))
        .map(|(file, function)| (format!("{file}.rs"), function.to_owned()))
        .collect()
}

/// Whether a file has a test function of this name.
pub fn has_test(text: &str, function: &str) -> bool {
    let declared = format!("fn {function}(");
    text.match_indices(&declared).any(|(at, _)| {
        let above = text[..at].trim_end_matches("async ").trim_end_matches("pub ").trim_end();
        let last = above.rsplit('\n').map(str::trim).find(|line| !line.starts_with("//"));
        last.is_some_and(|line| line.starts_with("#[") && (line.contains("test") || line.contains("expect")))
    })
}

#[cfg(test)]
mod samples {
    //! Every rule finds what it is to find, and leaves alone what is good.

    use super::{
        Source, file_length, forbidden_text, function_length, has_test, import_direction, keys, module_docs,
        named_tests, no_ignored_test, no_panic, purity,
    };

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.into(), text.into(), false)
    }

    fn test(path: &str, text: &str) -> Source {
        Source::new(path.into(), text.into(), true)
    }

    #[test]
    fn long_files() {
        assert!(file_length(&source("src/a.rs", &"\n".repeat(500))).is_empty());
        assert_eq!(file_length(&source("src/a.rs", &"\n".repeat(501))), ["src/a.rs: 501 lines, at most 500"]);
        assert!(file_length(&test("tests/a.rs", &"\n".repeat(900))).is_empty());
        assert_eq!(file_length(&test("tests/a.rs", &"\n".repeat(901))).len(), 1);
    }

    #[test]
    fn long_functions() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    g(\"}\");\n".repeat(lines - 2));
        assert!(function_length(&source("src/a.rs", &function(70))).is_empty());
        assert_eq!(function_length(&source("src/a.rs", &function(71))), ["src/a.rs:1: `f` has 71 lines, at most 70"]);
    }

    #[test]
    fn arrows_upwards() {
        for (path, text, wanted) in [
            ("src/broker/mod.rs", "use crate::limits;\nuse crate::broker::event;\nuse crate::message::{A, B};", 0),
            ("src/broker/mod.rs", "use crate::store::Store;", 1),
            ("src/broker/mod.rs", "use crate::{limits, store::{A, limits}, config};", 2),
            ("src/broker/mod.rs", "// use crate::store;\n#[cfg(test)]\nmod tests {\n    use crate::store;\n}", 0),
            ("src/limits.rs", "fn f() { crate::server::g() }", 1),
            ("src/server/gate.rs", "use crate::store::Store;\nuse crate::auth;", 0),
            ("src/server/gate.rs", "use crate::cli;", 1),
            ("src/client/mod.rs", "use crate::protocol::frame;\nuse crate::server;", 1),
            ("src/cli/send.rs", "use crate::client::Client;", 0),
            ("src/main.rs", "fn main() { wsmb::cli::run() }", 0),
            ("src/main.rs", "fn main() { wsmb::server::run() }", 1),
            ("src/new_room.rs", "use crate::limits;", 1),
            ("src/lib.rs", "pub use crate::cli;", 0),
        ] {
            assert_eq!(import_direction(&source(path, text)).len(), wanted, "{path}: {text}");
        }
    }

    #[test]
    fn modules_without_a_word() {
        assert!(module_docs(&source("src/a.rs", "//! For this.\n")).is_empty());
        assert_eq!(module_docs(&source("src/a.rs", "use x;\n//! Too late.\n")).len(), 1);
    }

    #[test]
    fn panics() {
        for (text, wanted) in [
            ("fn f() { x.unwrap() }", 1),
            ("fn f() {\n    x.expect(\"y\");\n    panic!(\"z\");\n    unreachable!()\n}", 3),
            ("fn f() {\n    // invariant: x is there, g put it in.\n    x.unwrap();\n}", 0),
            (
                "fn f() {\n    // invariant: x is there,\n    // as g put it in.\n    let y = x\n        .map(z)\n        .unwrap();\n}",
                0,
            ),
            ("fn f() {\n    // invariant: x is there.\n    x.unwrap();\n    y.unwrap();\n}", 1),
            ("fn f() { x.unwrap_or(y); \"x.unwrap()\"; } // .unwrap()", 0),
            ("#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap() }\n}", 0),
        ] {
            assert_eq!(no_panic(&source("src/a.rs", text)).len(), wanted, "{text}");
        }
        assert!(no_panic(&test("tests/a.rs", "fn f() { x.unwrap() }")).is_empty());
    }

    #[test]
    fn clocks_and_sockets() {
        let text = "use std::time::{Duration, Instant};\nuse tokio::sync;\nfn f() { Instant_free() }";
        assert_eq!(purity(&source("src/broker/a.rs", text)).len(), 2);
        assert_eq!(purity(&source("src/protocol/a.rs", "use std::net::TcpStream;")).len(), 2);
        assert!(purity(&source("src/server/a.rs", text)).is_empty());
        assert!(purity(&source("src/broker/a.rs", "// Instant\nuse std::time::Duration;")).is_empty());
    }

    #[test]
    fn ignored_tests() {
        assert_eq!(no_ignored_test(&source("src/a.rs", "#[test]\n#[ignore = \"x\"]\nfn f() {}")).len(), 1);
        assert!(no_ignored_test(&source("src/a.rs", "// #[ignore]\nfn f() {}")).is_empty());
    }

    #[test]
    fn forbidden_words() {
        let undone = format!("{}{}", "TO", "DO");
        assert_eq!(forbidden_text("a", &format!("see /{}/a\n", "home")).len(), 1);
        assert_eq!(forbidden_text("a", &format!("// {undone}: more")).len(), 1);
        assert!(forbidden_text("a", &format!("// {undone}: the store; meanwhile memory is used")).is_empty());
        assert!(forbidden_text("a", "a homely text").is_empty());
    }

    #[test]
    fn tests_that_a_page_names() {
        let page = "| all | `tests/a.rs::one`, `tests/b.rs::two` and `cargo test` |";
        let pair = |file: &str, function: &str| (file.to_owned(), function.to_owned());
        assert_eq!(named_tests(page), [pair("tests/a.rs", "one"), pair("tests/b.rs", "two")]);
        let text = "#[test]\nfn one() {}\n\n#[tokio::test]\nasync fn two() {}\n\nfn three() {}\n";
        assert!(has_test(text, "one") && has_test(text, "two"));
        assert!(!has_test(text, "three") && !has_test(text, "on") && !has_test(text, "four"));
    }

    #[test]
    fn keys_of_a_table() {
        assert_eq!(keys("top = 1\n[a]\nb = 2 # c = 3\n"), ["a.b", "top"]);
    }
}
