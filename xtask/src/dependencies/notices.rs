//! The text of `THIRD-PARTY.md`: the copyright lines and licences of the crates in the program.
//!
//! The licences require the copyright lines and the licence text. Each crate's section has its copyright lines; each licence text is printed once.
//! The texts of MIT and Apache-2.0 are in the repository already, so the file has only the texts of other licences, from the crates' files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Package, Rules};
use crate::Failure;

/// The licences of this project. Their texts are in the repository.
const OWN: &[&str] = &["MIT", "Apache-2.0"];

const HEAD: &str = "\
# What others wrote

The program contains the crates of this list, in the versions of `Cargo.lock`, with every feature and on any system. `cargo xtask notices` writes this file.
Of several licences that a crate offers, the first that is allowed by `deny.toml` is named. The texts of MIT and Apache-2.0 are in `LICENSE-MIT` and
`LICENSE-APACHE`; the others follow the list. SQLite, which the crate `libsqlite3-sys` contains, is in the public domain.
";

/// Returns the contents of `THIRD-PARTY.md`.
pub(super) fn text(rules: &Rules, packages: &[&Package]) -> Result<String, Failure> {
    let mut out = HEAD.to_owned();
    // The names of the crates by licence text.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        let unusable = |why: &str| Failure(format!("{name}: {why}"));
        let expression = package.license.as_deref().ok_or_else(|| unusable("states no licence"))?;
        let chosen = rules.chosen(expression).map_err(|why| unusable(&format!("{expression:?} {why}")))?;
        let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
        let files = files(folder).map_err(|error| unusable(&format!("its licence cannot be read: {error}")))?;
        // Writing to a `String` can't fail.
        let _ = write!(out, "\n## {name}\n\nLicence: {}\n", chosen.join(" and "));
        let lines = copyright_lines(&files);
        for line in if lines.is_empty() { authors_line(package) } else { lines } {
            let _ = write!(out, "\n    {line}");
        }
        out.push('\n');
        if chosen.iter().any(|licence| !OWN.contains(&licence.as_str())) {
            if files.is_empty() {
                return Err(unusable("has no licence file"));
            }
            for text in files {
                texts.entry(text).or_default().push(name.clone());
            }
        }
    }
    for (text, names) in texts {
        let _ = write!(out, "\n## The licence text of {}\n\n```text\n{}\n```\n", names.join(", "), text.trim_end());
    }
    Ok(out)
}

/// Returns a copyright line for a crate whose files have none.
fn authors_line(package: &Package) -> Vec<String> {
    if package.authors.is_empty() {
        return vec![format!("Copyright: the authors of {}", package.name)];
    }
    vec![format!("Copyright: {}", package.authors.join(", "))]
}

/// Returns the texts of a crate's licence files, in the order of the file names, with LF line ends.
fn files(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_uppercase()).unwrap_or_default();
        if path.is_file()
            && ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
                .iter()
                .any(|head| name.starts_with(head))
        {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Ok(String::from_utf8_lossy(&fs::read(path)?).replace('\r', ""))).collect()
}

/// Returns the copyright lines without duplicates.
fn copyright_lines(files: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let lines = files.iter().flat_map(|text| text.lines()).map(str::trim);
    let lines = lines.filter(|line| {
        let lower = line.to_ascii_lowercase();
        let names = lower.contains("(c)")
            || lower.contains('©')
            || lower.bytes().any(|byte| byte.is_ascii_digit())
            || lower.contains("authors");
        // The appendix of Apache-2.0 has a copyright line with placeholders.
        (lower.starts_with("copyright") || lower.starts_with("©"))
            && names
            && !lower.contains("yyyy")
            && !lower.contains("copyright notice")
    });
    lines.filter(|line| seen.insert((*line).to_owned())).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copyright_line_is_found_once() {
        let file = "Copyright (c) 2014 One\n\n2. Grant of Copyright License.\nCopyright [yyyy] [name of copyright owner]\n\
                    copyright notice and this permission notice\n  Copyright 2016 Two  \nCopyright (c) 2014 One\n© 2020 Three\n";
        assert_eq!(
            copyright_lines(&[file.to_owned()]),
            ["Copyright (c) 2014 One", "Copyright 2016 Two", "© 2020 Three"]
        );
    }
}
