//! Finds import cycles between the files of a crate: a file must not import another file that imports it, directly or through others.
//!
//! A declaration (`mod child;`) and a re-export (`pub use child::Name;`) do not count as imports, because the module does not use the name.
//! A re-exported name is resolved to its original module. Only paths that begin with `crate`, `super`, `self` or the name of a
//! child module are resolved; other paths lead out of the crate or begin with an imported name, whose import counts already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// A module's path below its crate: `["broker", "channel"]`; empty for `lib.rs` and `main.rs`.
type Module = Vec<String>;

/// The files of one crate and their imports.
#[derive(Default)]
pub struct Crate {
    /// The code of each module, without comments, strings and tests.
    code: BTreeMap<Module, String>,
    /// The imports of each module: name → path, as written in the source.
    imported: BTreeMap<(Module, String), Vec<String>>,
}

/// The crate and the module of a source file; `None` for files outside `crates/*/src`.
pub fn module(path: &Path) -> Option<(String, Module)> {
    let below = path.strip_prefix("crates").ok()?.with_extension("");
    let mut parts = below.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
        _ => None,
    });
    let (name, source) = (parts.next()?, parts.next()?);
    let mut module: Module = parts.collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    (source == "src").then_some((name, module))
}

impl Crate {
    /// Adds a file. `code` has no comments, strings and tests.
    pub fn add(&mut self, module: Module, code: String) {
        let code = flat(&code);
        for (_, path) in imports(&code) {
            if let Some(name) = path.last().filter(|name| *name != "*") {
                self.imported.insert((module.clone(), name.clone()), path.clone());
            }
        }
        self.code.insert(module, code);
    }

    /// All cycles: the modules of each, in the order of the imports.
    pub fn cycles(&self) -> Vec<Vec<String>> {
        let named: BTreeMap<&Module, BTreeSet<Module>> =
            self.code.iter().map(|(module, code)| (module, self.names(module, code))).collect();
        let mut found = Vec::new();
        let mut reported = BTreeSet::new();
        for start in self.code.keys() {
            if !reported.contains(start)
                && let Some(cycle) = shortest_cycle(start, &named)
            {
                reported.extend(cycle.iter().cloned());
                found.push(cycle.iter().map(shown).collect());
            }
        }
        found
    }

    /// The modules that a module imports.
    fn names(&self, module: &Module, code: &str) -> BTreeSet<Module> {
        let imports = imports(code);
        let used = imports.into_iter().filter(|(public, _)| !public).map(|(_, path)| path);
        let paths = used.chain(inline_paths(code));
        paths.filter_map(|path| self.resolve(module, &path, 0)).filter(|named| named != module).collect()
    }

    /// The module that a path in `module` leads to.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        // A limit for cyclic re-exports, which are no valid program; longer than any chain of re-exports.
        if depth > 16 {
            return None;
        }
        let mut at = module.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => {
                while rest.get(1).is_some_and(|next| next == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
                at.pop();
            }
            first => {
                if !self.code.contains_key(&child(&at, first)) {
                    return None;
                }
                at.push(first.to_owned());
            }
        }
        rest = &rest[1..];
        while let Some(next) = rest.first() {
            let deeper = child(&at, next);
            if self.code.contains_key(&deeper) {
                at = deeper;
                rest = &rest[1..];
            } else if let Some(path) = self.imported.get(&(at.clone(), next.clone())) {
                let longer: Vec<String> = path.iter().chain(&rest[1..]).cloned().collect();
                return self.resolve(&at, &longer, depth + 1).or(Some(at));
            } else {
                break;
            }
        }
        Some(at)
    }
}

/// Rewrites the code so that an inline module counts as the file itself, and `pub(in crate…)` is not taken for a path.
fn flat(code: &str) -> String {
    let mut code = code.replace("pub(in crate", "pub(in_crate");
    let mut from = 0;
    while let Some(at) = code[from..].find("mod ").map(|at| from + at) {
        from = at + "mod ".len();
        let Some(open) = code[from..].find(['{', ';']).map(|open| from + open) else { break };
        if code.as_bytes()[open] == b'{' {
            let end = block_end(&code, open);
            // `super` in an inline module is the file itself.
            let steps: Vec<&str> = code[open..end].split("super::super::").collect();
            let inside = steps.iter().map(|part| part.replace("super::", "self::")).collect::<Vec<_>>().join("super::");
            code.replace_range(open..end, &inside);
        }
    }
    code
}

/// The position of the brace that closes the block at `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn shown(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// The shortest cycle through a module, by breadth-first search.
fn shortest_cycle(start: &Module, named: &BTreeMap<&Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut paths_found = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !paths_found.is_empty() {
        let mut longer = Vec::new();
        for path in paths_found {
            for next in named.get(path.last()?).into_iter().flatten() {
                if next == start {
                    return Some(path);
                }
                if seen.insert(next.clone()) {
                    longer.push(path.iter().cloned().chain([next.clone()]).collect());
                }
            }
        }
        paths_found = longer;
    }
    None
}

/// Every path in a `use` statement, and whether the statement is a re-export. `as NAME` is dropped.
fn imports(code: &str) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    for statement in code.split_inclusive(';') {
        let Some(at) = find_word(statement, "use") else { continue };
        let before = statement[..at].trim_end();
        let public = before.ends_with("pub") || before.ends_with(')') && before.contains("pub(");
        let tree = statement[at + "use".len()..].trim_end_matches(';');
        let flat: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        expand(&flat, &mut Vec::new(), &mut |path| found.push((public, path)));
    }
    found
}

/// Expands `a::{b, c::d as e}` into its paths.
fn expand(tree: &str, before: &mut Vec<String>, give: &mut impl FnMut(Vec<String>)) {
    let tree = tree.trim();
    let (path, list) = match tree.split_once('{') {
        Some((path, list)) => (path, Some(list.trim_end().trim_end_matches('}'))),
        None => (tree.split(" as ").next().unwrap_or(tree), None),
    };
    let depth = before.len();
    before.extend(path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    match list {
        None => {
            let is_self = before.len() > 1 && before.last().is_some_and(|last| last == "self");
            give(before[..before.len() - usize::from(is_self)].to_vec());
        }
        Some(list) => split_list(list).into_iter().for_each(|member| expand(member, before, give)),
    }
    before.truncate(depth);
}

/// The members of a list, split at its top level.
fn split_list(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0_usize, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                members.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members.push(&list[start..]);
    members.into_iter().filter(|member| !member.trim().is_empty()).collect()
}

/// Every path in the code outside of `use`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for statement in code.split_inclusive(';') {
        let end = find_word(statement, "use").unwrap_or(statement.len());
        let text = &statement[..end];
        let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c: char| !part(c)).filter(|word| word.contains("::") && !word.starts_with(':')) {
            found.push(word.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect());
        }
    }
    found
}

/// The position of a whole word.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        !text[..at].chars().next_back().is_some_and(is_part)
            && text[at + word.len()..].chars().next().is_some_and(char::is_whitespace)
    })
}

#[cfg(test)]
mod samples {
    use super::*;

    fn cycles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let mut all = Crate::default();
        for (path, code) in files {
            all.add(module(Path::new(path)).unwrap().1, (*code).to_owned());
        }
        all.cycles()
    }

    #[test]
    fn a_file_is_mapped_to_its_crate_and_module() {
        let of = |path: &str| module(Path::new(path)).map(|(name, module)| (name, module.join("::")));
        let pair = |name: &str, module: &str| Some((name.to_owned(), module.to_owned()));
        assert_eq!(of("crates/core/src/lib.rs"), pair("core", ""));
        assert_eq!(of("crates/core/src/broker/mod.rs"), pair("core", "broker"));
        assert_eq!(of("crates/core/src/broker/channel.rs"), pair("core", "broker::channel"));
        assert_eq!(of("tests/e2e/main.rs"), None);
        assert_eq!(of("crates/core/build.rs"), None);
    }

    #[test]
    fn cycles_of_two_and_three_files_are_found() {
        let two = [("crates/a/src/x.rs", "use crate::y::Y;"), ("crates/a/src/y.rs", "fn f() { crate::x::g() }")];
        assert_eq!(cycles(&two), [["x", "y"]]);
        let three = [
            ("crates/a/src/x.rs", "use super::y::{A, B};"),
            ("crates/a/src/y.rs", "use crate::{q, z::C};"),
            ("crates/a/src/z.rs", "use crate::x;"),
            ("crates/a/src/q.rs", "use std::fmt;"),
        ];
        assert_eq!(cycles(&three), [["x", "y", "z"]]);
    }

    #[test]
    fn a_parent_and_a_child_that_use_each_other_are_a_cycle() {
        let parent = ("crates/a/src/lib.rs", "mod x;\nuse x::X;\nstruct A;");
        assert_eq!(cycles(&[parent, ("crates/a/src/x.rs", "use super::A;\nstruct X;")]), [["the root", "x"]]);
        assert_eq!(cycles(&[parent, ("crates/a/src/x.rs", "struct X;")]), [[""; 0]; 0]);
        let shows = ("crates/a/src/lib.rs", "mod x;\npub use x::X;\npub(crate) use x::Y;\nstruct A;");
        assert_eq!(cycles(&[shows, ("crates/a/src/x.rs", "use super::A;")]), [[""; 0]; 0]);
    }

    #[test]
    fn an_inline_module_counts_as_its_file() {
        let parent = ("crates/a/src/lib.rs", "mod x;\nuse x::X;");
        assert_eq!(cycles(&[parent, ("crates/a/src/x.rs", "struct X;\nmod inner { use super::X; }")]), [[""; 0]; 0]);
    }

    #[test]
    fn a_reexported_name_is_resolved_to_its_module() {
        let parent = ("crates/a/src/lib.rs", "mod x;\nmod y;\npub use y::Y;");
        let sibling = ("crates/a/src/x.rs", "use crate::Y;");
        assert_eq!(cycles(&[parent, sibling, ("crates/a/src/y.rs", "struct Y;")]), [[""; 0]; 0]);
        assert_eq!(cycles(&[parent, sibling, ("crates/a/src/y.rs", "use super::x;")]), [["x", "y"]]);
    }
}
