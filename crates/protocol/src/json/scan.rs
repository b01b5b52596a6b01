//! A scanner of JSON text (RFC 8259): finds the ranges of values, and checks the grammar, in one pass.
//!
//! The scanner accepts exactly the texts that `serde_json` accepts, and is several times as fast. It has no error messages: a caller that needs one parses
//! the text with `serde_json`. Never allocates, never recurses, and never checks that strings are UTF-8: the caller must have done this.

use std::borrow::Cow;
use std::ops::Range;

use super::plain;
use crate::limits;

/// The text is not JSON, or is nested too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotJson;

type Scanned<T> = Result<T, NotJson>;

/// A text, and the position of the scanner in it.
pub(crate) struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
    /// The number of objects and lists that may still be opened inside each other.
    levels: usize,
}

/// One bit for each open object (1) or list (0). The lowest bit is the innermost one.
type OpenBrackets = u128;

const _: () = assert!(limits::JSON_DEPTH <= OpenBrackets::BITS as usize);

impl<'a> Scanner<'a> {
    /// Makes a scanner at the beginning of `json`. The text may nest at most `depth` levels, and at most [`limits::JSON_DEPTH`].
    pub(crate) fn new(json: &'a [u8], depth: usize) -> Self {
        Self::starting_at(0, json, depth)
    }

    /// Makes a scanner for the JSON text that begins at `start` in `bytes`.
    pub(crate) fn starting_at(start: usize, bytes: &'a [u8], depth: usize) -> Self {
        Self { json: bytes, at: start, levels: depth.min(limits::JSON_DEPTH) }
    }

    /// Skips white space, and returns the next byte without consuming it. Returns 0 at the end; JSON never contains a 0.
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        let (at, byte) = next(self.json, self.at);
        self.at = at;
        byte
    }

    /// Scans the next object. Calls `member` with each name, which may contain escapes; `member` must scan the value.
    ///
    /// # Errors
    /// There is no valid object, it is nested too deep, or `member` returned an error.
    #[inline]
    pub(crate) fn object(&mut self, mut member: impl FnMut(&mut Self, &'a [u8]) -> Scanned<()>) -> Scanned<()> {
        self.enter(b'{')?;
        if self.peek() == b'}' {
            return self.leave();
        }
        loop {
            let start = expect(self.json, self.at, b'"')?;
            let end = string(self.json, start)?;
            self.at = expect(self.json, end, b':')?;
            member(self, self.json.get(start..end - 1).ok_or(NotJson)?)?;
            match self.peek() {
                b',' => self.at += 1,
                b'}' => return self.leave(),
                _ => return Err(NotJson),
            }
        }
    }

    /// Scans the next list. Calls `element` for each element; `element` must scan one value.
    ///
    /// # Errors
    /// There is no valid list, it is nested too deep, or `element` returned an error.
    #[inline]
    pub(crate) fn list(&mut self, mut element: impl FnMut(&mut Self) -> Scanned<()>) -> Scanned<()> {
        self.enter(b'[')?;
        if self.peek() != b']' {
            loop {
                element(self)?;
                match self.peek() {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return Err(NotJson),
                }
            }
        }
        self.leave()
    }

    /// Scans the next value of any type. Returns its range without the white space around it.
    ///
    /// # Errors
    /// There is no valid value, or it is nested too deep.
    #[inline(always)]
    pub(crate) fn value(&mut self) -> Scanned<Range<usize>> {
        let (start, first) = next(self.json, self.at);
        self.at = match first {
            b'"' => string(self.json, start + 1)?,
            b'{' | b'[' => brackets(self.json, start, self.levels)?,
            _ => scalar(self.json, start, first)?,
        };
        Ok(start..self.at)
    }

    /// Checks that only white space is left.
    ///
    /// # Errors
    /// There is other text.
    #[inline]
    pub(crate) fn end(&mut self) -> Scanned<()> {
        self.peek();
        if self.at == self.json.len() { Ok(()) } else { Err(NotJson) }
    }

    #[inline]
    fn enter(&mut self, opener: u8) -> Scanned<()> {
        self.levels = self.levels.checked_sub(1).ok_or(NotJson)?;
        self.at = expect(self.json, self.at, opener)?;
        Ok(())
    }

    /// Consumes a closing bracket, which must be the next byte.
    #[inline]
    fn leave(&mut self) -> Scanned<()> {
        self.at += 1;
        self.levels += 1;
        Ok(())
    }
}

/// Returns the name of a member without escapes.
///
/// # Errors
/// The name has an unpaired surrogate. (The scanner does not check values for that.)
#[inline]
pub(crate) fn unescaped(name: &[u8]) -> Scanned<Cow<'_, [u8]>> {
    if !name.contains(&b'\\') {
        return Ok(Cow::Borrowed(name));
    }
    let quoted = [b"\"", name, b"\""].concat();
    serde_json::from_slice(&quoted).map(|name: String| Cow::Owned(name.into_bytes())).map_err(|_| NotJson)
}

// The functions below take a start position and return an end position, so that both stay in registers.

/// Returns the byte at `at`; 0 at the end. JSON never contains a 0.
#[inline]
fn byte(json: &[u8], at: usize) -> u8 {
    json.get(at).copied().unwrap_or(0)
}

/// Returns the position and the value of the next byte that is not white space.
#[inline(always)]
fn next(json: &[u8], at: usize) -> (usize, u8) {
    let found = byte(json, at);
    if found > b' ' { (at, found) } else { skip_space(json, at) }
}

#[inline(never)]
fn skip_space(json: &[u8], mut at: usize) -> (usize, u8) {
    loop {
        match byte(json, at) {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            found => return (at, found),
        }
    }
}

/// Returns the position after `wanted`, which must be the next byte.
#[inline]
fn expect(json: &[u8], at: usize, wanted: u8) -> Scanned<usize> {
    let (at, found) = next(json, at);
    if found == wanted { Ok(at + 1) } else { Err(NotJson) }
}

/// Returns the position after the object or list that begins at `at`.
fn brackets(json: &[u8], mut at: usize, levels: usize) -> Scanned<usize> {
    let (mut open, mut depth): (OpenBrackets, usize) = (0, 0);
    let mut first = byte(json, at);
    loop {
        'inside: {
            at = match first {
                b'"' => string(json, at + 1)?,
                b'{' | b'[' => {
                    if depth == levels {
                        return Err(NotJson);
                    }
                    depth += 1;
                    open = open << 1 | OpenBrackets::from(first == b'{');
                    let (inside, found) = next(json, at + 1);
                    at = inside;
                    // In ASCII, a closing bracket is the opening bracket plus 2.
                    if found != first + 2 {
                        break 'inside;
                    }
                    inside
                }
                _ => scalar(json, at, first)?,
            };
            loop {
                let (end, found) = next(json, at);
                at = end + 1;
                match found {
                    b',' => break 'inside,
                    b'}' if open & 1 == 1 => {}
                    b']' if open & 1 == 0 => {}
                    _ => return Err(NotJson),
                }
                open >>= 1;
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
        }
        if open & 1 == 1 {
            at = expect(json, at, b'"')?;
            at = string(json, at)?;
            at = expect(json, at, b':')?;
        }
        (at, first) = next(json, at);
    }
}

/// Returns the position after the string whose contents begin at `at`.
#[inline(always)]
fn string(json: &[u8], at: usize) -> Scanned<usize> {
    // Most strings are short, and have no escapes.
    let end = plain::end_in_block(json, at);
    if byte(json, end) == b'"' { Ok(end + 1) } else { long_string(json, end) }
}

#[inline(never)]
fn long_string(json: &[u8], mut at: usize) -> Scanned<usize> {
    loop {
        at = plain::end(json, at);
        match byte(json, at) {
            b'"' => return Ok(at + 1),
            b'\\' => at = escape(json, at)?,
            _ => return Err(NotJson),
        }
    }
}

/// Returns the position after the escape whose backslash is at `at`.
fn escape(json: &[u8], at: usize) -> Scanned<usize> {
    match byte(json, at + 1) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 2),
        b'u' => {
            let digits = json.get(at + 2..at + 6).ok_or(NotJson)?;
            if digits.iter().all(u8::is_ascii_hexdigit) { Ok(at + 6) } else { Err(NotJson) }
        }
        _ => Err(NotJson),
    }
}

/// Returns the position after a number, `true`, `false` or `null`.
#[inline]
fn scalar(json: &[u8], at: usize, first: u8) -> Scanned<usize> {
    let literal = |word: &[u8]| {
        let end = at + word.len();
        if json.get(at..end) == Some(word) { Ok(end) } else { Err(NotJson) }
    };
    match first {
        b'-' | b'0'..=b'9' => number(json, at),
        b't' => literal(b"true"),
        b'f' => literal(b"false"),
        b'n' => literal(b"null"),
        _ => Err(NotJson),
    }
}

fn number(json: &[u8], start: usize) -> Scanned<usize> {
    let whole = start + usize::from(byte(json, start) == b'-');
    let mut at = digits(json, whole)?;
    if at > whole + 1 && byte(json, whole) == b'0' {
        return Err(NotJson);
    }
    if byte(json, at) == b'.' {
        at = digits(json, at + 1)?;
    }
    if matches!(byte(json, at), b'e' | b'E') {
        at += 1;
        at = digits(json, at + usize::from(matches!(byte(json, at), b'+' | b'-')))?;
    }
    Ok(at)
}

/// Returns the position after one or more digits.
#[inline]
fn digits(json: &[u8], start: usize) -> Scanned<usize> {
    let end = plain::digits(json, start);
    if end > start { Ok(end) } else { Err(NotJson) }
}
