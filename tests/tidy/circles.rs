//! No circle among the files of a crate: if a file names another one, directly or through others, that one does not name it.
//!
//! A declaration (`mod child;`) and a re-export (`pub use child::Name;`) are no imports: with them a module shows its parts, and uses none.
//! A name that a module has imported itself leads to where it comes from. Only paths that begin with `crate`, `super`, `self` or the name of a
//! child module are followed; other paths lead out of the crate or to something that an import has named already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// A module's path below its crate: `["broker", "channel"]`; empty for `lib.rs` and `main.rs`.
type Module = Vec<String>;

/// The files of one crate, and which file names which.
#[derive(Default)]
pub struct Crate {
    /// The code of each module, without comments, strings and tests.
    code: BTreeMap<Module, String>,
    /// What each module has imported: name → path, as it stands there.
    imported: BTreeMap<(Module, String), Vec<String>>,
}

/// The crate and the module that a source file is, if it belongs to the product.
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

    /// Every circle: the modules in it, in the order in which they name each other.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let named: BTreeMap<&Module, BTreeSet<Module>> =
            self.code.iter().map(|(module, code)| (module, self.names(module, code))).collect();
        let mut found = Vec::new();
        let mut reported = BTreeSet::new();
        for start in self.code.keys() {
            if !reported.contains(start)
                && let Some(circle) = shortest_circle(start, &named)
            {
                reported.extend(circle.iter().cloned());
                found.push(circle.iter().map(shown).collect());
            }
        }
        found
    }

    /// The other modules that a module names.
    fn names(&self, module: &Module, code: &str) -> BTreeSet<Module> {
        let imports = imports(code);
        let used = imports.into_iter().filter(|(public, _)| !public).map(|(_, path)| path);
        let paths = used.chain(inline_paths(code));
        paths.filter_map(|path| self.resolve(module, &path, 0)).filter(|named| named != module).collect()
    }

    /// The module in which a path ends, seen from `module`.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        // Imports that lead to each other are no valid program; 16 is more than any chain of re-exports.
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

/// The code without what would lead astray: a module inside the file counts as the file itself, and a visibility names nothing.
fn flat(code: &str) -> String {
    let mut code = code.replace("pub(in crate", "pub(in_crate");
    let mut from = 0;
    while let Some(at) = code[from..].find("mod ").map(|at| from + at) {
        from = at + "mod ".len();
        let Some(open) = code[from..].find(['{', ';']).map(|open| from + open) else { break };
        if code.as_bytes()[open] == b'{' {
            let end = block_end(&code, open);
            // One step up from the module inside is the file.
            let steps: Vec<&str> = code[open..end].split("super::super::").collect();
            let inside = steps.iter().map(|part| part.replace("super::", "self::")).collect::<Vec<_>>().join("super::");
            code.replace_range(open..end, &inside);
        }
    }
    code
}

/// Where the block that opens at `open` ends.
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

/// The shortest way from a module back to it.
fn shortest_circle(start: &Module, named: &BTreeMap<&Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in named.get(way.last()?).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way.iter().cloned().chain([next.clone()]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

/// Every path that `use` names, and whether it is a re-export. The path ends in the name under which it is known, if it was not renamed.
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

/// Takes `a::{b, c::d as e}` apart.
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

/// The members of a list, without those of lists in it.
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

/// Every path in the code outside `use`.
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

/// Where a word stands by itself.
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

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let mut all = Crate::default();
        for (path, code) in files {
            all.add(module(Path::new(path)).unwrap().1, (*code).to_owned());
        }
        all.circles()
    }

    #[test]
    fn files_and_their_modules() {
        let of = |path: &str| module(Path::new(path)).map(|(name, module)| (name, module.join("::")));
        let pair = |name: &str, module: &str| Some((name.to_owned(), module.to_owned()));
        assert_eq!(of("crates/core/src/lib.rs"), pair("core", ""));
        assert_eq!(of("crates/core/src/broker/mod.rs"), pair("core", "broker"));
        assert_eq!(of("crates/core/src/broker/channel.rs"), pair("core", "broker::channel"));
        assert_eq!(of("tests/e2e/main.rs"), None);
        assert_eq!(of("crates/core/build.rs"), None);
    }

    #[test]
    fn a_circle_of_two_and_of_three() {
        let two = [("crates/a/src/x.rs", "use crate::y::Y;"), ("crates/a/src/y.rs", "fn f() { crate::x::g() }")];
        assert_eq!(circles(&two), [["x", "y"]]);
        let three = [
            ("crates/a/src/x.rs", "use super::y::{A, B};"),
            ("crates/a/src/y.rs", "use crate::{q, z::C};"),
            ("crates/a/src/z.rs", "use crate::x;"),
            ("crates/a/src/q.rs", "use std::fmt;"),
        ];
        assert_eq!(circles(&three), [["x", "y", "z"]]);
    }

    #[test]
    fn a_parent_that_uses_its_child_is_not_used_by_it() {
        let parent = ("crates/a/src/lib.rs", "mod x;\nuse x::X;\nstruct A;");
        assert_eq!(circles(&[parent, ("crates/a/src/x.rs", "use super::A;\nstruct X;")]), [["the root", "x"]]);
        assert_eq!(circles(&[parent, ("crates/a/src/x.rs", "struct X;")]), [[""; 0]; 0]);
        let shows = ("crates/a/src/lib.rs", "mod x;\npub use x::X;\npub(crate) use x::Y;\nstruct A;");
        assert_eq!(circles(&[shows, ("crates/a/src/x.rs", "use super::A;")]), [[""; 0]; 0]);
    }

    #[test]
    fn a_module_inside_a_file_is_the_file() {
        let parent = ("crates/a/src/lib.rs", "mod x;\nuse x::X;");
        assert_eq!(circles(&[parent, ("crates/a/src/x.rs", "struct X;\nmod inner { use super::X; }")]), [[""; 0]; 0]);
    }

    #[test]
    fn an_imported_name_leads_to_its_home() {
        let parent = ("crates/a/src/lib.rs", "mod x;\nmod y;\npub use y::Y;");
        let sibling = ("crates/a/src/x.rs", "use crate::Y;");
        assert_eq!(circles(&[parent, sibling, ("crates/a/src/y.rs", "struct Y;")]), [[""; 0]; 0]);
        assert_eq!(circles(&[parent, sibling, ("crates/a/src/y.rs", "use super::x;")]), [["x", "y"]]);
    }
}
