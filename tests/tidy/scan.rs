//! A small part of Rust's grammar: comments, strings, functions and items for tests.

use std::path::{Path, PathBuf};

/// The source with comments, strings and character literals replaced by blanks. Line numbers stay the same.
pub fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that starts at `at`; `at` if none starts there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at..] {
        ['/', '/', ..] => find(chars, at, |rest| rest[0] == '\n'),
        ['/', '*', ..] => block_comment_end(chars, at),
        ['r' | 'b' | 'c', ..] if !after_word => raw_string_end(chars, at).unwrap_or(at),
        ['"', ..] => quoted_end(chars, at + 1, '"'),
        ['\'', '\\', ..] => quoted_end(chars, at + 1, '\''),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&at| stop(&chars[at..])).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0, at);
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The end of `r"…"`, `r#"…"#`, `br"…"`: a raw string. Strings with other prefixes are found by their quotes.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let start = if matches!(chars[at], 'b' | 'c') && chars.get(at + 1) == Some(&'r') { at + 2 } else { at + 1 };
    if chars[start - 1] != 'r' {
        return None;
    }
    let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + hashes) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let end = find(chars, start + hashes + 1, |rest| rest.starts_with(&close));
    Some((end + close.len()).min(chars.len()))
}

fn quoted_end(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// A function: its name, and its first and last line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub first: usize,
    pub last: usize,
}

/// Every function with a body. `code` is the result of [`code_only`].
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let after_word = code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if after_word || name.is_empty() {
            continue;
        }
        if let Some(end) = item_end(code, at)
            && code[..end].ends_with('}')
        {
            found.push(Function { name, first: line_of(code, at), last: line_of(code, end - 1) });
        }
    }
    found
}

/// The line of the byte `at`, counted from 1.
pub fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The end of the item that starts at `at`, after its closing brace or semicolon.
fn item_end(code: &str, at: usize) -> Option<usize> {
    let (mut braces, mut others) = (0, 0);
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 && others == 0 {
                    return Some(at + offset + 1);
                }
            }
            ';' if braces == 0 && others == 0 => return Some(at + offset + 1),
            _ => {}
        }
    }
    None
}

/// The code with all items for tests replaced by blanks.
pub fn without_tests(code: &str) -> String {
    let mut code = code.to_string();
    while let Some((at, end)) = test_item(&code) {
        let blank: String = code[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(at..end, &blank);
    }
    code
}

/// The start and the end of the first item that is compiled for tests only.
fn test_item(code: &str) -> Option<(usize, usize)> {
    let at = ["#[cfg(test)]", "#[cfg(all(test", "#[test]"].iter().filter_map(|attribute| code.find(attribute)).min()?;
    // The attribute's own brackets close before the item begins.
    let item = at + code[at..].find(']')? + 1;
    Some((at, item_end(code, item).unwrap_or(code.len())))
}

/// The files of the modules that `path` declares for tests only (`#[cfg(test)] mod name;`).
pub fn test_modules(path: &Path, source: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new(""));
    let own = if ["mod", "lib", "main"].contains(&&*stem) { folder.to_path_buf() } else { folder.join(&*stem) };
    let mut modules = Vec::new();
    for (at, attribute) in source.match_indices("#[cfg(test)]") {
        let Some(item) = source[at + attribute.len()..].split([';', '{']).next() else { continue };
        let given = item
            .split_once("#[path = \"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(file, _)| folder.join(file));
        let name = item.rsplit_once("mod ").filter(|(before, _)| !before.contains("fn ")).map(|(_, name)| name.trim());
        match (given, name) {
            (Some(file), Some(_)) => modules.push(file),
            (None, Some(name)) => modules.extend([own.join(format!("{name}.rs")), own.join(name).join("mod.rs")]),
            _ => {}
        }
    }
    modules
}

#[test]
fn comments_and_strings_are_blanked_and_lines_are_kept() {
    let blank = |source: &str| code_only(source).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(blank("a // { \n b /* { /* } */ \n */ c"), "a b c");
    assert_eq!(blank("let s = \"{ \\\" {\"; t"), "let s = ; t");
    assert_eq!(blank("let s = r#\"{ \" { \"#; br\"{\"; b\"{\"; c"), "let s = ; ; b ; c");
    assert_eq!(blank("match c { '{' => 1, '\\'' => 2, '\\u{7d}' => 3 }"), "match c { => 1, => 2, => 3 }");
    assert_eq!(blank("fn f<'a>(x: &'a str) -> &'a str { x }"), "fn f<'a>(x: &'a str) -> &'a str { x }");
    assert_eq!(blank("writer\"x\" bar"), "writer bar");
    assert_eq!(code_only("\"a\n\nb\" x\n").matches('\n').count(), 3);
}

#[test]
fn functions_are_found_with_their_lines() {
    let code = "trait T { fn no_body(&self); }\n\npub fn one() -> [u8; 3] {\n    if x { y }\n}\nconst fn two() {}\n";
    let function = |name: &str, first, last| Function { name: name.into(), first, last };
    assert_eq!(functions(code), [function("one", 3, 5), function("two", 6, 6)]);
}

#[test]
fn items_for_tests_are_blanked() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n#[cfg(test)]\nuse x::y;\nfn c() {}\n#[test]\nfn d() { e() }\n";
    let left = without_tests(code);
    assert_eq!(left.split_whitespace().collect::<String>(), "fna(){}fnc(){}");
    assert_eq!(left.lines().count(), code.lines().count());
}

#[test]
fn files_of_test_modules_are_found() {
    let found = test_modules(
        Path::new("src/a/b.rs"),
        "#[cfg(test)]\nmod tests;\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod y;\n#[cfg(test)]\nfn f() {}",
    );
    assert_eq!(found, ["src/a/b/tests.rs", "src/a/b/tests/mod.rs", "src/a/x.rs"].map(PathBuf::from));
    assert_eq!(test_modules(Path::new("src/a/mod.rs"), "#[cfg(test)] pub mod t;")[0], Path::new("src/a/t.rs"));
}
