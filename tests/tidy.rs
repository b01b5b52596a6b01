//! The house rules (ARCHITECTURE.md) as a test: what a reviewer should not have to look for.
//!
//! Text is looked at, not syntax trees: `scan` blanks out comments and strings first. Every rule is tried on samples too, so that a rule
//! that finds nothing is known to be able to find something.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/scan.rs"]
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rules::Source;

/// The repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Every file below `folder` with one of these endings, without what is built or belongs to git.
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

/// The Rust files of the repository, and which of them are tests.
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

/// Applies a rule to every source and fails with everything that it found.
#[track_caller]
fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let sources = sources();
    assert!(sources.len() > 20, "only {} source files were found", sources.len());
    fail_on(sources.iter().flat_map(rule).collect());
}

#[track_caller]
fn fail_on(found: Vec<String>) {
    assert!(found.is_empty(), "{} breaches of the house rules:\n{}", found.len(), found.join("\n"));
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
fn imports_run_one_way() {
    check(rules::import_direction);
}

#[test]
fn no_file_names_one_that_names_it() {
    let mut crates: BTreeMap<String, circles::Crate> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if let Some((name, module)) = circles::module(source.path()) {
            crates.entry(name).or_default().add(module, source.product_code());
        }
    }
    assert!(crates.len() > 5, "only {} crates were found", crates.len());
    let found = crates.iter().flat_map(|(name, files)| {
        files.circles().into_iter().map(move |circle| format!("{name}: {} → {}", circle.join(" → "), circle[0]))
    });
    fail_on(found.collect());
}

#[test]
fn modules_say_what_they_are_for() {
    check(rules::module_docs);
}

#[test]
fn nothing_panics_without_an_invariant() {
    check(rules::no_panic);
}

#[test]
fn the_pure_rooms_know_no_clock_and_no_socket() {
    check(rules::purity);
}

#[test]
fn no_value_is_for_tests_only() {
    check(rules::no_value_for_tests);
}

#[test]
fn no_test_is_ignored() {
    check(rules::no_ignored_test);
}

#[test]
fn no_text_speaks_of_one_machine_or_leaves_things_undone() {
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
fn every_test_that_the_pages_of_promises_name_exists() {
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
