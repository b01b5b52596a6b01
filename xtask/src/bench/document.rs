//! The generated parts of `docs/measurements.md`: each stands between two marks, and everything else is left as it was written.

use std::fs;
use std::path::Path;

use super::results::Results;
use super::{goals, growth, tables};
use crate::Failure;

/// What makes a block's text.
type Write = fn(&Results) -> String;

/// The blocks, by name.
const BLOCKS: [(&str, Write); 10] = [
    ("summary", tables::summary),
    ("ratios", tables::ratios),
    ("failures", tables::failures),
    ("goals", goals::block),
    ("growth", growth::block),
    ("rates", tables::rates),
    ("kept", tables::kept),
    ("idle", tables::idle),
    ("machine", tables::machine),
    ("commands", tables::commands),
];

/// Writes the document with its blocks as the results have them, and the plots, below `target`.
///
/// # Errors
/// A file cannot be read or written, or the document has no place for a block.
pub fn publish(results: &Results, template: &Path, target: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(template);
    let mut text = text.map_err(|error| Failure(format!("{} can't be read: {error}", template.display())))?;
    for (name, block) in BLOCKS {
        text =
            replace(&text, name, &block(results)).map_err(|why| Failure(format!("{}: {why}", template.display())))?;
    }
    write(&target.join("measurements.md"), &text)?;
    let plots = target.join("plots");
    fs::create_dir_all(&plots).map_err(|error| Failure(format!("{} can't be made: {error}", plots.display())))?;
    for (name, plot) in growth::plots(results) {
        write(&plots.join(format!("{name}.svg")), &plot.to_svg())?;
    }
    Ok(())
}

/// Writes a file.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure(format!("{} can't be written: {error}", path.display())))
}

/// The text with what stands between the marks of a block replaced.
fn replace(text: &str, name: &str, block: &str) -> Result<String, String> {
    const END: &str = "<!-- end -->";
    let begin = format!("<!-- begin: {name}, written by cargo xtask bench -->\n");
    let mut found = text.match_indices(&begin);
    let (Some((at, _)), None) = (found.next(), found.next()) else {
        return Err(format!("`{}` must stand in it once", begin.trim_end()));
    };
    let (before, rest) = text.split_at(at + begin.len());
    let Some(end) = rest.find(END) else { return Err(format!("the block {name} has no `{END}`")) };
    if rest[..end].contains("<!-- begin:") {
        return Err(format!("the block {name} has no `{END}` before the next one begins"));
    }
    Ok(format!("{before}\n{}\n\n{}", block.trim(), &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "above\n<!-- begin: a, written by cargo xtask bench -->\nold\n<!-- end -->\nbetween\n\
                        <!-- begin: b, written by cargo xtask bench -->\n<!-- end -->\nbelow\n";

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let once = replace(TEXT, "a", "new\n").unwrap();
        assert!(
            once.starts_with(
                "above\n<!-- begin: a, written by cargo xtask bench -->\n\nnew\n\n<!-- end -->\nbetween\n"
            )
        );
        assert!(once.ends_with("<!-- end -->\nbelow\n"));
        assert_eq!(replace(&once, "a", "new").unwrap(), once, "the same again changes nothing");
        assert!(replace(&once, "b", "x").unwrap().contains("\nx\n\n<!-- end -->\nbelow"));
    }

    #[test]
    fn a_place_that_is_missing_is_told() {
        assert!(replace(TEXT, "c", "x").unwrap_err().contains("begin: c"));
        assert!(replace(&format!("{TEXT}{TEXT}"), "a", "x").is_err(), "two places");
        assert!(replace(&TEXT.replacen("<!-- end -->", "", 1), "a", "x").unwrap_err().contains("before the next"));
        assert!(replace(&TEXT.replace("<!-- end -->", ""), "b", "x").unwrap_err().contains("has no"));
    }

    #[test]
    fn the_document_has_a_place_for_every_block() {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/measurements.md");
        let text = fs::read_to_string(template).unwrap();
        for (name, block) in BLOCKS {
            replace(&text, name, &block(&Results::default())).unwrap();
        }
    }
}
