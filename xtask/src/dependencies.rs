//! Checks licences, sources and Rust versions of all dependencies, and writes the licence notices that are shipped with the program.
//!
//! `deny.toml` lists the allowed licences and registries; `cargo metadata` lists the dependencies. `cargo xtask notices` writes `THIRD-PARTY.md`,
//! and `cargo xtask test` fails if the file is out of date. Must never skip a dependency: one that cannot be read is a failure.

mod notices;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use crate::{Failure, cargo};

const RULES: &str = "deny.toml";

const NOTICES: &str = "THIRD-PARTY.md";

/// The part of the output of `cargo metadata` that is used here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Clone, Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    rust_version: Option<String>,
    #[serde(default)]
    authors: Vec<String>,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Debug, Deserialize)]
struct DepKind {
    kind: Option<String>,
}

/// The contents of `deny.toml`.
#[derive(Debug, Default, PartialEq)]
struct Rules {
    /// Allowed licences, the preferred one first.
    licences: Vec<String>,
    registries: Vec<String>,
}

impl Rules {
    fn read() -> Result<Self, Failure> {
        let text = fs::read_to_string(RULES).map_err(|error| Failure(format!("{RULES} cannot be read: {error}")))?;
        let rules = Self { licences: list(&text, "allow"), registries: list(&text, "allow-registry") };
        if rules.licences.is_empty() || rules.registries.is_empty() {
            return Err(Failure(format!("{RULES} allows no licence or no registry")));
        }
        Ok(rules)
    }

    /// Returns the licences under which a crate is used. If the crate offers a choice, the preferred allowed licence is used.
    ///
    /// # Errors
    /// The expression is invalid, or needs a licence that is not allowed.
    fn chosen(&self, expression: &str) -> Result<Vec<String>, String> {
        let parsed = Expression::parse_mode(expression, ParseMode::LAX)
            .map_err(|error| format!("cannot be understood: {}", error.reason))?;
        let preferred: Vec<Licensee> = self.licences.iter().filter_map(|name| Licensee::parse(name).ok()).collect();
        let found = parsed.minimized_requirements(&preferred).map_err(|_| format!("is not allowed by {RULES}"))?;
        Ok(found.iter().map(LicenseReq::to_string).collect())
    }
}

/// Returns the strings of the list with this key. Reads lists of plain strings only; `deny.toml` has no others.
fn list(text: &str, key: &str) -> Vec<String> {
    let Some((_, rest)) = text.split_once(&format!("\n{key} = [")) else { return Vec::new() };
    let inside = rest.split(']').next().unwrap_or_default();
    inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Fails if a dependency is not allowed, or if `THIRD-PARTY.md` is out of date.
pub fn check() -> Result<(), Failure> {
    let (rules, metadata) = (Rules::read()?, metadata()?);
    let mut problems = Vec::new();
    for package in metadata.packages.iter().filter(|package| package.source.is_some()) {
        let found = violations(&rules, package).into_iter();
        problems.extend(found.map(|violation| format!("{} {} {violation}", package.name, package.version)));
    }
    problems.extend(too_new(&metadata.packages));
    if !problems.is_empty() {
        return Err(Failure(format!("refused dependencies:\n  {}", problems.join("\n  "))));
    }
    let written = fs::read_to_string(NOTICES).unwrap_or_default();
    if written != notices::text(&rules, &shipped(&metadata))? {
        return Err(Failure(format!("{NOTICES} does not match Cargo.lock; run `cargo xtask notices`")));
    }
    Ok(())
}

/// Writes `THIRD-PARTY.md`.
pub fn write() -> Result<(), Failure> {
    let (rules, metadata) = (Rules::read()?, metadata()?);
    let text = notices::text(&rules, &shipped(&metadata))?;
    fs::write(NOTICES, text).map_err(|error| Failure(format!("{NOTICES} cannot be written: {error}")))
}

/// Returns the problems of a package's licence and source.
fn violations(rules: &Rules, package: &Package) -> Vec<String> {
    let mut violations = Vec::new();
    let source = package.source.as_deref().unwrap_or_default();
    if !rules.registries.iter().any(|registry| source == format!("registry+{registry}")) {
        violations.push(format!("comes from {source}, which {RULES} does not allow"));
    }
    match package.license.as_deref() {
        None => violations.push("states no licence".to_owned()),
        Some(licence) => {
            let refused = rules.chosen(licence).err();
            violations.extend(refused.map(|why| format!("has the licence {licence:?}, which {why}")));
        }
    }
    violations
}

/// Returns the packages that need a newer Rust than `rust-version` of `wsmb`.
fn too_new(packages: &[Package]) -> Vec<String> {
    let number =
        |text: &str| text.split('.').map(|part| part.parse().unwrap_or(0)).chain([0, 0]).take(3).collect::<Vec<u32>>();
    let own =
        packages.iter().find(|package| package.name == "wsmb").and_then(|package| package.rust_version.as_deref());
    let Some(own) = own else { return vec!["wsmb states no rust-version".to_owned()] };
    let newer = packages
        .iter()
        .filter(|package| package.rust_version.as_deref().is_some_and(|other| number(other) > number(own)));
    let problems = newer.map(|package| {
        let needs = package.rust_version.as_deref().unwrap_or_default();
        format!("{} {} needs Rust {needs}; Cargo.toml states {own}", package.name, package.version)
    });
    problems.collect()
}

/// Returns the packages whose code is in the program, with all features, on all systems.
fn shipped(metadata: &Metadata) -> Vec<&Package> {
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let root = metadata.packages.iter().find(|package| package.name == "wsmb" && package.source.is_none());
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = root.map(|package| package.id.as_str()).into_iter().collect();
    while let Some(id) = open.pop() {
        if !found.insert(id) {
            continue;
        }
        let normal = |edge: &&Edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
        let edges = nodes.get(id).map(|node| node.deps.iter().filter(normal)).into_iter().flatten();
        open.extend(edges.map(|edge| edge.pkg.as_str()));
    }
    let mut packages: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some() && found.contains(package.id.as_str()))
        .collect();
    packages.sort_by_key(|package| (&package.name, &package.version));
    packages
}

fn metadata() -> Result<Metadata, Failure> {
    let mut command: Command = cargo();
    command.args(["metadata", "--format-version", "1", "--all-features", "--locked"]);
    let output = command.output().map_err(|error| Failure(format!("cargo metadata cannot be started: {error}")))?;
    if !output.status.success() {
        return Err(Failure(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr))));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure(format!("the output of cargo metadata cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Rules { licences: list(&["MIT", "Apache-2.0", "ISC"]), registries: list(&["https://example.org/index"]) }
    }

    fn package(licence: Option<&str>, source: &str) -> Package {
        Package {
            id: "one".to_owned(),
            name: "one".to_owned(),
            version: "1.2.3".to_owned(),
            license: licence.map(str::to_owned),
            source: Some(source.to_owned()),
            rust_version: None,
            authors: Vec::new(),
            manifest_path: PathBuf::from("Cargo.toml"),
        }
    }

    #[test]
    fn the_lists_are_read() {
        let text =
            "[licenses]\nallow = [\n    \"MIT\",\n    \"ISC\",\n]\n[sources]\nallow-registry = [\"https://a\"]\n";
        assert_eq!(list(text, "allow"), ["MIT", "ISC"]);
        assert_eq!(list(text, "allow-registry"), ["https://a"]);
        assert_eq!(list(text, "deny"), [""; 0]);
    }

    #[test]
    fn all_needed_licences_and_the_preferred_alternative_are_chosen() {
        let rules = rules();
        for (expression, chosen) in [
            ("MIT OR Apache-2.0", &["MIT"][..]),
            ("Apache-2.0/MIT", &["MIT"]),
            ("Apache-2.0 AND ISC", &["Apache-2.0", "ISC"]),
            ("(GPL-3.0-only OR Apache-2.0) AND MIT", &["MIT", "Apache-2.0"]),
        ] {
            let mut found = rules.chosen(expression).expect(expression);
            let mut chosen: Vec<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
            found.sort();
            chosen.sort();
            assert_eq!(found, chosen, "{expression}");
        }
        for expression in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "no licence at all"] {
            assert!(rules.chosen(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn a_refused_licence_or_source_is_reported() {
        let rules = rules();
        assert_eq!(violations(&rules, &package(Some("MIT"), "registry+https://example.org/index")), [""; 0]);
        for (licence, source, part) in [
            (None, "registry+https://example.org/index", "states no licence"),
            (Some("GPL-3.0-only"), "registry+https://example.org/index", "GPL-3.0-only"),
            (Some("MIT"), "git+https://example.org/index", "comes from git+"),
            (Some("MIT"), "registry+https://example.org/index-of-another", "comes from"),
        ] {
            let found = violations(&rules, &package(licence, source));
            assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
        }
    }

    #[test]
    fn a_dependency_that_needs_a_newer_rust_is_reported() {
        let with = |name: &str, version: &str| Package {
            name: name.to_owned(),
            rust_version: Some(version.to_owned()),
            ..package(Some("MIT"), "registry+https://example.org/index")
        };
        assert_eq!(too_new(&[with("wsmb", "1.94"), with("one", "1.94.0"), with("two", "1.9")]), [""; 0]);
        assert_eq!(too_new(&[with("wsmb", "1.94"), with("one", "1.94.1")]).len(), 1);
        assert_eq!(too_new(&[with("one", "1.94.1")]), ["wsmb states no rust-version"]);
    }
}
