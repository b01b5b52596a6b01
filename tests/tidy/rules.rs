//! The rules. Each takes a source and returns its violations, with file and line.

use std::path::{Path, PathBuf};

use crate::scan;

/// The most lines of a file and of a function.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// The crates of this workspace that each crate may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("protocol", &["core"]),
    ("store", &["core"]),
    ("auth", &["core"]),
    ("config", &["core", "protocol"]),
    ("tls", &[]),
    ("server", &["core", "protocol", "store", "auth", "tls"]),
    ("client", &["core", "protocol", "tls"]),
    ("load", &["core", "protocol", "client"]),
    ("wsmb", &["core", "protocol", "store", "auth", "config", "server", "client", "load", "tls"]),
];

/// Names that the crates without I/O must not use, with the reason.
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

/// The files of the server that do no I/O: they get bytes and events, and return descriptions of actions.
const PURE_FILES: &[&str] = &[
    "crates/server/src/engine",
    "crates/server/src/outbox",
    "crates/server/src/queue",
    "crates/server/src/registry",
    "crates/server/src/request",
    "crates/server/src/batch",
    "crates/server/src/encoding",
    "crates/server/src/replies",
    "crates/server/src/timers",
];

/// Further names that those files must not use.
const IMPURE_ENGINE: &[(&str, &str)] = &[
    ("tracing", "the hub logs a turn's outcome"),
    ("Counters", "the hub counts a turn's outcome"),
    ("Mutex", "the hub has the lock"),
    ("getrandom", "random numbers are arguments"),
];

/// Calls that may panic.
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
    /// The text without comments and strings.
    code: String,
    is_test: bool,
}

impl Source {
    pub fn new(path: PathBuf, text: String, is_test: bool) -> Self {
        let code = scan::code_only(&text);
        Self { path, text, code, is_test }
    }

    /// The path relative to the repository.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is compiled for tests only.
    pub fn is_test(&self) -> bool {
        self.is_test
    }

    /// The code without comments, strings and tests.
    pub fn product_code(&self) -> String {
        scan::without_tests(&self.code)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The crate of the file: `server` for `crates/server/src/hub.rs`.
    fn package(&self) -> Option<String> {
        let below = self.path.strip_prefix("crates").ok()?;
        Some(below.components().next()?.as_os_str().to_string_lossy().into_owned())
    }
}

/// No file exceeds the limit of lines.
pub fn file_length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines > FILE_LINES {
        vec![format!("{}: {lines} lines, at most {FILE_LINES}", source.name())]
    } else {
        Vec::new()
    }
}

/// No function exceeds the limit of lines.
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

/// A crate imports only the allowed crates. (Cargo itself refuses only cycles.)
pub fn import_direction(source: &Source) -> Vec<String> {
    let Some(package) = source.package().filter(|_| !source.is_test) else { return Vec::new() };
    let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == package).map_or(&[][..], |(_, allowed)| allowed);
    let code = source.product_code();
    imports(&code)
        .into_iter()
        .filter(|(_, imported)| is_crate(imported) && !allowed.contains(&imported.as_str()))
        .map(|(line, imported)| format!("{}:{line}: `{package}` must not import `{imported}`", source.name()))
        .collect()
}

fn is_crate(name: &str) -> bool {
    MAY_IMPORT.iter().any(|(package, _)| *package == name)
}

/// The crates that the code names (`wsmb_store::` is `store`), with their lines.
fn imports(code: &str) -> Vec<(usize, String)> {
    let prefix = "wsmb_";
    code.match_indices(prefix).map(|(at, _)| (scan::line_of(code, at), word(&code[at + prefix.len()..]))).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// A file begins with a doc comment of its module.
pub fn module_docs(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        Vec::new()
    } else {
        vec![format!("{}: does not start with `//!`", source.name())]
    }
}

/// No call may panic outside tests, unless a comment says why it cannot happen.
pub fn no_panic(source: &Source) -> Vec<String> {
    if source.is_test {
        return Vec::new();
    }
    let code = source.product_code();
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

/// Whether the statement of this line has an `// invariant:` comment above it or in it.
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

/// The core, the protocol and the server's engine do no I/O and read no clock. The engine also neither counts nor logs.
pub fn purity(source: &Source) -> Vec<String> {
    let is_engine = PURE_FILES.iter().any(|file| source.name().starts_with(file));
    if source.is_test || !(is_engine || matches!(source.package().as_deref(), Some("core" | "protocol"))) {
        return Vec::new();
    }
    let code = source.product_code();
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let of_engine = IMPURE_ENGINE.iter().filter(|_| is_engine);
        for (name, reason) in IMPURE.iter().chain(of_engine).filter(|(name, _)| contains_word(line, name)) {
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

/// No value depends on `cfg!(test)`, because the tests of dependent crates would use another value.
pub fn no_value_for_tests(source: &Source) -> Vec<String> {
    let lines = source.code.lines().enumerate().filter(|(_, line)| line.contains("cfg!(test)"));
    lines
        .map(|(index, _)| format!("{}:{}: `cfg!(test)`; make the value an argument", source.name(), index + 1))
        .collect()
}

/// Names of operating systems in a `cfg`.
const SYSTEMS: &[&str] = &["unix", "windows", "target_os", "target_family", "target_env", "target_vendor"];

/// A condition on the operating system stands only in the file `platform.rs` of a crate, or in the folder `platform`.
pub fn platform_conditions(source: &Source) -> Vec<String> {
    let below = |package: &String| source.path.strip_prefix(Path::new("crates").join(package).join("src")).ok();
    let Some(file) = source.package().as_ref().and_then(below).filter(|_| !source.is_test) else { return Vec::new() };
    if file.starts_with("platform") || file == Path::new("platform.rs") {
        return Vec::new();
    }
    let code = source.product_code();
    conditions(&code)
        .filter(|(_, condition)| SYSTEMS.iter().any(|system| contains_word(condition, system)))
        .map(|(at, _)| {
            let line = scan::line_of(&code, at);
            format!(
                "{}:{line}: a `cfg` of an operating system; it belongs into the crate's `platform.rs`",
                source.name()
            )
        })
        .collect()
}

/// The condition of each `cfg(…)`, `cfg!(…)` and `cfg_attr(…)`, with its position.
fn conditions(code: &str) -> impl Iterator<Item = (usize, &str)> {
    ["cfg(", "cfg!(", "cfg_attr("].into_iter().flat_map(move |start| {
        code.match_indices(start).map(|(at, start)| {
            let mut depth = 1;
            let end = code[at + start.len()..].find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            (at, &code[at..end.map_or(code.len(), |end| at + start.len() + end)])
        })
    })
}

/// No test is ignored.
pub fn no_ignored_test(source: &Source) -> Vec<String> {
    let lines = source.code.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
    lines.map(|(index, _)| format!("{}:{}: an ignored test", source.name(), index + 1)).collect()
}

/// No path of one machine, and no marker of unfinished work without a note about the meanwhile.
pub fn forbidden_text(name: &str, text: &str) -> Vec<String> {
    // Concatenated, so that this file passes its own rule.
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
    //! Every rule finds violations in bad samples, and none in good samples.

    use super::{
        Source, file_length, forbidden_text, function_length, has_test, import_direction, keys, module_docs,
        named_tests, no_ignored_test, no_panic, no_value_for_tests, platform_conditions, purity,
    };

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.into(), text.into(), false)
    }

    fn test(path: &str, text: &str) -> Source {
        Source::new(path.into(), text.into(), true)
    }

    #[test]
    fn file_length_finds_long_files() {
        assert!(file_length(&source("src/a.rs", &"\n".repeat(500))).is_empty());
        assert_eq!(file_length(&source("src/a.rs", &"\n".repeat(501))), ["src/a.rs: 501 lines, at most 500"]);
        assert_eq!(file_length(&test("tests/a.rs", &"\n".repeat(501))).len(), 1);
    }

    #[test]
    fn function_length_finds_long_functions() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    g(\"}\");\n".repeat(lines - 2));
        assert!(function_length(&source("src/a.rs", &function(70))).is_empty());
        assert_eq!(function_length(&source("src/a.rs", &function(71))), ["src/a.rs:1: `f` has 71 lines, at most 70"]);
    }

    #[test]
    fn import_direction_finds_forbidden_imports() {
        for (path, text, wanted) in [
            ("crates/core/src/broker/mod.rs", "use crate::limits;\nuse std::fmt;", 0),
            ("crates/core/src/broker/mod.rs", "use wsmb_store::Store;", 1),
            (
                "crates/core/src/broker/mod.rs",
                "// use wsmb_store;\n#[cfg(test)]\nmod tests {\n    use wsmb_store;\n}",
                0,
            ),
            ("crates/store/src/lib.rs", "use wsmb_core::message::Message;\nfn f() { wsmb_auth::g() }", 1),
            ("crates/server/src/hub.rs", "use wsmb_store::Store;\nuse wsmb_auth;", 0),
            ("crates/server/src/hub.rs", "use wsmb_config::Config;", 1),
            ("crates/server/src/hub.rs", "use wsmb_client::Client;", 1),
            ("crates/client/src/lib.rs", "use wsmb_protocol::frame;\nuse wsmb_server as server;", 1),
            ("crates/wsmb/src/cli/send.rs", "use wsmb_client::Client;", 0),
            ("crates/new/src/lib.rs", "use wsmb_core::limits;", 1),
            ("tests/e2e/main.rs", "use wsmb_server::run;", 0),
        ] {
            assert_eq!(import_direction(&source(path, text)).len(), wanted, "{path}: {text}");
        }
    }

    #[test]
    fn module_docs_finds_modules_without_a_doc_comment() {
        assert!(module_docs(&source("src/a.rs", "//! For this.\n")).is_empty());
        assert_eq!(module_docs(&source("src/a.rs", "use x;\n//! Too late.\n")).len(), 1);
    }

    #[test]
    fn no_panic_finds_panics_without_an_invariant() {
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
    fn purity_finds_clocks_and_io() {
        let text = "use std::time::{Duration, Instant};\nuse tokio::sync;\nfn f() { Instant_free() }";
        assert_eq!(purity(&source("crates/core/src/broker/a.rs", text)).len(), 2);
        assert_eq!(purity(&source("crates/protocol/src/a.rs", "use std::net::TcpStream;")).len(), 2);
        assert!(purity(&source("crates/server/src/a.rs", text)).is_empty());
        assert_eq!(purity(&source("crates/server/src/engine/a.rs", text)).len(), 2);
        assert_eq!(purity(&source("crates/server/src/engine.rs", "use tracing::warn;\nuse std::fmt;")).len(), 1);
        assert!(purity(&source("crates/core/src/broker/a.rs", "// Instant\nuse std::time::Duration;")).is_empty());
    }

    #[test]
    fn no_value_for_tests_finds_cfg_test() {
        assert_eq!(no_value_for_tests(&source("a.rs", "const A: u8 = if cfg!(test) { 1 } else { 2 };")).len(), 1);
        assert!(no_value_for_tests(&source("a.rs", "#[cfg(test)]\nmod tests;")).is_empty());
    }

    #[test]
    fn platform_conditions_are_found_outside_platform_modules() {
        let found = |path: &str, text: &str| platform_conditions(&source(path, text)).len();
        for condition in [
            "#[cfg(unix)]\nfn f() {}",
            "#[cfg(all(feature = \"a\",\n    not(windows)))]\nfn f() {}",
            "#[cfg_attr(target_os = \"linux\", allow(dead_code))]\nfn f() {}",
            "const A: bool = cfg!(any(target_env = \"gnu\", windows));",
        ] {
            assert_eq!(found("crates/a/src/b/c.rs", condition), 1, "{condition}");
            assert_eq!(found("crates/a/src/platform.rs", condition), 0, "{condition}");
            assert_eq!(found("crates/a/src/platform/b.rs", condition), 0, "{condition}");
            assert_eq!(found("tests/a/main.rs", condition), 0, "{condition}");
        }
        for text in [
            "#[cfg(feature = \"unix\")]\nfn f() {}",
            "#[cfg(target_arch = \"x86_64\")]\nfn f() { unix() }",
            "#[cfg(all(test, unix))]\nmod tests {}",
            "#[cfg(test)]\nmod tests {\n    #[cfg(unix)]\n    fn f() {}\n}",
            "// cfg(unix)",
        ] {
            assert_eq!(found("crates/a/src/b.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn no_ignored_test_finds_ignored_tests() {
        assert_eq!(no_ignored_test(&source("src/a.rs", "#[test]\n#[ignore = \"x\"]\nfn f() {}")).len(), 1);
        assert!(no_ignored_test(&source("src/a.rs", "// #[ignore]\nfn f() {}")).is_empty());
    }

    #[test]
    fn forbidden_text_finds_paths_and_markers() {
        let undone = format!("{}{}", "TO", "DO");
        assert_eq!(forbidden_text("a", &format!("see /{}/a\n", "home")).len(), 1);
        assert_eq!(forbidden_text("a", &format!("// {undone}: more")).len(), 1);
        assert!(forbidden_text("a", &format!("// {undone}: the store; meanwhile memory is used")).is_empty());
        assert!(forbidden_text("a", "a homely text").is_empty());
    }

    #[test]
    fn named_tests_are_found_in_a_page_and_a_file() {
        let page = "| all | `tests/a.rs::one`, `tests/b.rs::two` and `cargo test` |";
        let pair = |file: &str, function: &str| (file.to_owned(), function.to_owned());
        assert_eq!(named_tests(page), [pair("tests/a.rs", "one"), pair("tests/b.rs", "two")]);
        let text = "#[test]\nfn one() {}\n\n#[tokio::test]\nasync fn two() {}\n\nfn three() {}\n";
        assert!(has_test(text, "one") && has_test(text, "two"));
        assert!(!has_test(text, "three") && !has_test(text, "on") && !has_test(text, "four"));
    }

    #[test]
    fn keys_of_tables_are_found() {
        assert_eq!(keys("top = 1\n[a]\nb = 2 # c = 3\n"), ["a.b", "top"]);
    }
}
