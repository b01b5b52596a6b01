//! Writes the generated blocks of `docs/measurements.md`, `docs/measurements/details.md`, and the plots.
//!
//! Must never change text outside the marks of a block.

use std::fs;
use std::path::Path;

use super::results::Results;
use super::{goals, growth, tables};
use crate::Failure;

/// Formats a block.
type Write = fn(&Results) -> String;

/// The blocks of `measurements.md`, by name.
const BLOCKS: [(&str, Write); 3] = [("table", tables::summary), ("goals", goals::block), ("commits", tables::commits)];

/// The sections of `details.md`.
const DETAILS: [(&str, Write); 7] = [
    ("Compared with the bare relay, within one repetition", tables::ratios),
    ("Rates and spreads", tables::rates),
    ("Kept messages", tables::kept),
    ("An idle broker", tables::idle),
    ("Growth", growth::tables),
    ("Failures", tables::failures),
    ("Machine and versions", tables::machine),
];

const HEAD: &str = "# Measurements in detail\n\nThe tables behind [measurements.md](../measurements.md), written by `cargo xtask bench` \
                    from the runs in [runs.jsonl](runs.jsonl).\nA cell is a median, with the least and the most of all repetitions where they are \
                    in parentheses.\n";

/// Writes the page, the details and the plots below `target`.
///
/// # Errors
/// A file cannot be read or written, or the page has no marks for a block.
pub fn publish(results: &Results, page: &Path, target: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(page);
    let mut text = text.map_err(|error| Failure(format!("{} can't be read: {error}", page.display())))?;
    for (name, block) in BLOCKS {
        text = replace(&text, name, &block(results)).map_err(|why| Failure(format!("{}: {why}", page.display())))?;
    }
    write(&target.join("measurements.md"), &text)?;
    let folder = target.join("measurements");
    for (name, plot) in growth::plots(results) {
        write(&folder.join(format!("{name}.svg")), &plot.to_svg().map_err(Failure)?)?;
    }
    let sections = DETAILS.map(|(title, section)| format!("\n## {title}\n\n{}\n", section(results).trim()));
    write(&folder.join("details.md"), &(HEAD.to_owned() + &sections.concat()))
}

/// Writes a file, and creates its directory.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| fs::write(path, text));
    written.map_err(|error| Failure(format!("{} can't be written: {error}", path.display())))
}

/// Replaces the text between the marks of a block.
fn replace(text: &str, name: &str, block: &str) -> Result<String, String> {
    let begin = format!("<!-- begin: {name}, written by cargo xtask bench -->\n");
    let end = format!("<!-- end: {name} -->");
    let found = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, behind) = found.ok_or_else(|| format!("`{}` or `{end}` is missing", begin.trim_end()))?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{behind}", block.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_between_the_marks_is_replaced() {
        let text = "above\n<!-- begin: a, written by cargo xtask bench -->\nold\n<!-- end: a -->\nbelow\n";
        let once = replace(text, "a", "new\n").unwrap();
        assert_eq!(once, "above\n<!-- begin: a, written by cargo xtask bench -->\n\nnew\n\n<!-- end: a -->\nbelow\n");
        assert_eq!(replace(&once, "a", "new").unwrap(), once, "the same again changes nothing");
        assert!(replace(text, "b", "x").unwrap_err().contains("begin: b"));
        assert!(replace(&text.replace("end: a", "end: b"), "a", "x").is_err());
    }

    #[test]
    fn the_page_has_the_marks_of_every_block() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/measurements.md");
        let text = fs::read_to_string(page).unwrap();
        for (name, block) in BLOCKS {
            replace(&text, name, &block(&Results::default())).unwrap();
        }
    }
}
