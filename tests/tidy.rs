//! The rules of ARCHITECTURE.md as tests, so that a reviewer need not check them.
//!
//! The rules search text, not syntax trees: `scan` blanks comments and strings first. Every rule is tested with samples, because a broken rule would find
//! nothing.

#[path = "tidy/cycles.rs"]
mod cycles;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/scan.rs"]
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rules::Source;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Adds every file below `folder` with one of these endings, except build output and git's files.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "wsmb-data" {
                files(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
}

/// The Rust files of the repository. A file is a test if it is below `tests`, `benches` or `fuzz`, or a module for tests.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files(root(), &[".rs"], &mut paths);
    let texts: Vec<(PathBuf, String)> =
        paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).expect("a source file"))).collect();
    let tests: BTreeSet<PathBuf> = texts.iter().flat_map(|(path, text)| scan::test_modules(path, text)).collect();
    texts
        .into_iter()
        .map(|(path, text)| {
            let relative = path.strip_prefix(root()).expect("a path below the root").to_path_buf();
            let folders = ["tests", "benches", "fuzz"];
            let is_test = tests.iter().any(|test| path.starts_with(test) || path.starts_with(test.with_extension("")))
                || folders.iter().any(|folder| relative.starts_with(folder));
            Source::new(relative, text, is_test)
        })
        .collect()
}

/// Applies a rule to every source, and fails with all violations.
#[track_caller]
fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let sources = sources();
    assert!(sources.len() > 20, "only {} source files were found", sources.len());
    fail_on(sources.iter().flat_map(rule).collect());
}

#[track_caller]
fn fail_on(found: Vec<String>) {
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn files_are_short() {
    check(rules::file_length);
}

#[test]
fn functions_are_short() {
    check(rules::function_length);
}

#[test]
fn crates_import_only_the_allowed_crates() {
    check(rules::import_direction);
}

#[test]
fn files_of_a_crate_have_no_import_cycles() {
    let mut crates: BTreeMap<String, cycles::Crate> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if let Some((name, module)) = cycles::module(source.path()) {
            crates.entry(name).or_default().add(module, source.product_code());
        }
    }
    assert!(crates.len() > 5, "only {} crates were found", crates.len());
    let found = crates.iter().flat_map(|(name, files)| {
        files.cycles().into_iter().map(move |cycle| format!("{name}: {} → {}", cycle.join(" → "), cycle[0]))
    });
    fail_on(found.collect());
}

#[test]
fn modules_have_a_doc_comment() {
    check(rules::module_docs);
}

#[test]
fn every_panic_has_an_invariant_comment() {
    check(rules::no_panic);
}

#[test]
fn pure_files_use_no_clock_and_no_io() {
    check(rules::purity);
}

#[test]
fn no_value_depends_on_cfg_test() {
    check(rules::no_value_for_tests);
}

#[test]
fn conditions_on_the_operating_system_stand_in_platform_modules() {
    check(rules::platform_conditions);
}

#[test]
fn no_test_is_ignored() {
    check(rules::no_ignored_test);
}

#[test]
fn no_text_contains_a_local_path_or_a_marker_of_unfinished_work() {
    let mut paths = Vec::new();
    files(root(), &[".rs", ".toml", ".md", ".yml", ".php", ".sh", "run"], &mut paths);
    let found = paths.iter().flat_map(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
        rules::forbidden_text(&name, &text)
    });
    fail_on(found.collect());
}

#[test]
fn every_key_of_the_example_configuration_is_documented() {
    let example = std::fs::read_to_string(root().join("wsmb.example.toml")).expect("wsmb.example.toml");
    let docs = std::fs::read_to_string(root().join("docs/configuration.md")).expect("docs/configuration.md");
    let keys = rules::keys(&example);
    assert!(keys.len() > 10, "only {} keys were found in wsmb.example.toml", keys.len());
    let missing = keys.into_iter().filter(|key| !docs.contains(&format!("`{key}`")));
    fail_on(missing.map(|key| format!("`{key}` is in wsmb.example.toml and not in docs/configuration.md")).collect());
}

#[test]
fn every_test_that_the_docs_name_exists() {
    for (name, least) in [("docs/trust.md", 40), ("docs/security.md", 20)] {
        let page = std::fs::read_to_string(root().join(name)).expect(name);
        let named = rules::named_tests(&page);
        assert!(named.len() > least, "only {} tests are named in {name}", named.len());
        let missing = named.into_iter().filter(|(file, function)| {
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            !rules::has_test(&text, function)
        });
        fail_on(missing.map(|(file, function)| format!("{name}: {file} has no test `{function}`")).collect());
    }
}
