//! A scanner of JSON text (RFC 8259): finds where values lie, and checks the grammar of all that it passes, in one pass.
//!
//! It takes exactly what `serde_json` takes, several times as fast, and never says what is wrong: whoever must tell asks
//! `serde_json`. Never builds anything, never recurses, and never checks that strings are UTF-8, which its caller has done.

use std::borrow::Cow;
use std::ops::Range;

use super::plain;
use crate::limits;

/// The text is no JSON, or nests too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotJson;

type Scanned<T> = Result<T, NotJson>;

/// One text and how far it is read.
pub(crate) struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
    /// Objects and lists that may be open from here on, one in the other.
    levels: usize,
}

/// One bit for each object or list that is open, the innermost lowest: 1 for an object.
type Open = u128;

const _: () = assert!(limits::JSON_DEPTH <= Open::BITS as usize);

impl<'a> Scanner<'a> {
    /// A scanner at the start of `json`, which may nest `depth` levels, and no more than [`limits::JSON_DEPTH`].
    pub(crate) fn new(json: &'a [u8], depth: usize) -> Self {
        Self::starting_at(0, json, depth)
    }

    /// The same within `bytes`, where the JSON begins at `start`.
    pub(crate) fn starting_at(start: usize, bytes: &'a [u8], depth: usize) -> Self {
        Self { json: bytes, at: start, levels: depth.min(limits::JSON_DEPTH) }
    }

    /// The next byte that is no white space, not taken; 0, which is allowed nowhere, at the end.
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        let (at, byte) = next(self.json, self.at);
        self.at = at;
        byte
    }

    /// Walks through the object that comes next. `member` gets each name as it stands between its quotes, and must read that member's
    /// value.
    ///
    /// # Errors
    /// There is no object, or it is broken, or `member` said so.
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

    /// Walks through a list. `element` must read one value.
    ///
    /// # Errors
    /// There is no list, or it is broken or nested too deep, or `element` said so.
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

    /// Reads one value, whatever it is. The range is where it lies, without the white space around it.
    ///
    /// # Errors
    /// There is none, or it is broken.
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

    /// Checks that nothing but white space is left.
    ///
    /// # Errors
    /// Something is.
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

    /// Takes the closing bracket, at which it stands.
    #[inline]
    fn leave(&mut self) -> Scanned<()> {
        self.at += 1;
        self.levels += 1;
        Ok(())
    }
}

/// A member's name without its escapes.
///
/// # Errors
/// It holds half a surrogate pair. (In a value, that is nobody's business before the value is used; a name is used here.)
#[inline]
pub(crate) fn unescaped(name: &[u8]) -> Scanned<Cow<'_, [u8]>> {
    if !name.contains(&b'\\') {
        return Ok(Cow::Borrowed(name));
    }
    let quoted = [b"\"", name, b"\""].concat();
    serde_json::from_slice(&quoted).map(|name: String| Cow::Owned(name.into_bytes())).map_err(|_| NotJson)
}

// What follows takes where something begins, and returns where it ends, so that both stay in registers.

/// The byte at `at`; 0, which is allowed nowhere outside of strings and within them neither, at the end.
#[inline]
fn byte(json: &[u8], at: usize) -> u8 {
    json.get(at).copied().unwrap_or(0)
}

/// Where the next byte that is no white space lies, and what it is.
#[inline(always)]
fn next(json: &[u8], at: usize) -> (usize, u8) {
    let found = byte(json, at);
    if found > b' ' { (at, found) } else { behind_space(json, at) }
}

#[inline(never)]
fn behind_space(json: &[u8], mut at: usize) -> (usize, u8) {
    loop {
        match byte(json, at) {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            found => return (at, found),
        }
    }
}

/// Behind `wanted`, which must come next.
#[inline]
fn expect(json: &[u8], at: usize, wanted: u8) -> Scanned<usize> {
    let (at, found) = next(json, at);
    if found == wanted { Ok(at + 1) } else { Err(NotJson) }
}

/// Behind the object or list that opens at `at`.
fn brackets(json: &[u8], mut at: usize, levels: usize) -> Scanned<usize> {
    let (mut open, mut depth): (Open, usize) = (0, 0);
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
                    open = open << 1 | Open::from(first == b'{');
                    let (inside, found) = next(json, at + 1);
                    at = inside;
                    // What closes is two behind what opens.
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

/// Behind the string whose contents begin at `at`.
#[inline(always)]
fn string(json: &[u8], at: usize) -> Scanned<usize> {
    // Most are short, and have no escapes.
    let end = plain::near(json, at);
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

/// Behind the escape whose backslash is at `at`.
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

/// Behind a value that is neither a string nor in brackets.
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

/// Behind one or more digits.
#[inline]
fn digits(json: &[u8], start: usize) -> Scanned<usize> {
    let end = plain::digits(json, start);
    if end > start { Ok(end) } else { Err(NotJson) }
}
