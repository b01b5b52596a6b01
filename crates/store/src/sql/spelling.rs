//! Names and texts in a latin1 column of MySQL, which may contain rows of two encodings.
//!
//! A connection that declares its character set stores `ü` as the byte FC. The PHP broker's connection declares none, so a server whose default is
//! latin1 stores its bytes unchanged: `ü` in UTF-8, C3 BC, which any other connection reads as `Ã¼`. The bytes of a row show its encoding: **bytes
//! that are valid UTF-8 are UTF-8, all others are latin1**. The broker writes names so that this rule decodes them: a name whose latin1 bytes are
//! valid UTF-8 (`Ã¼` itself), or which latin1 cannot hold, is written as UTF-8. So no name is ever read as another name.
//!
//! In this module, a *spelling* is the column's text as a Unicode connection reads it. MySQL's latin1 is Windows-1252, with control characters for
//! the five bytes that Windows-1252 leaves out, so that each byte has a character. No function here fails.

use std::borrow::Cow;

use super::text::Charset;

/// The characters of the bytes 80 to 9F in MySQL's latin1.
const C1: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}', '\u{2030}',
    '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}',
    '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}',
    '\u{17e}', '\u{178}',
];

/// The character of a byte.
fn character(byte: u8) -> char {
    match byte {
        0x80..=0x9f => C1[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

/// The byte of a character; `None` if it has none.
fn byte(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0..=0x7f | 0xa0..=0xff) => u8::try_from(code).ok(),
        _ => C1.iter().position(|known| *known == character).and_then(|index| u8::try_from(index + 0x80).ok()),
    }
}

/// The spelling of a text whose UTF-8 bytes are stored.
fn utf8_spelling(text: &str) -> String {
    text.bytes().map(character).collect()
}

/// The text, if the spelling's bytes are valid UTF-8 and not ASCII.
fn decode_utf8(spelling: &str) -> Option<String> {
    if spelling.is_ascii() {
        return None;
    }
    let bytes: Option<Vec<u8>> = spelling.chars().map(byte).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok())
}

impl Charset {
    /// Decodes a spelling.
    pub(super) fn read(self, spelling: String) -> String {
        match self {
            Self::MySqlLatin1 => decode_utf8(&spelling).unwrap_or(spelling),
            _ => spelling,
        }
    }

    /// Whether the column can hold a name, in any spelling.
    pub(super) fn holds_name(self, name: &str) -> bool {
        match self {
            Self::MySqlLatin1 => !name.contains('\0'),
            _ => self.holds(name),
        }
    }

    /// Encodes a name for the column.
    pub(super) fn written(self, name: &str) -> Cow<'_, str> {
        if self != Self::MySqlLatin1 || (self.holds(name) && decode_utf8(name).is_none()) {
            Cow::Borrowed(name)
        } else {
            Cow::Owned(utf8_spelling(name))
        }
    }

    /// Every spelling of a name in the column.
    pub(super) fn spellings(self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        let written = self.written(name);
        // A name that is written as UTF-8 has another spelling only if its characters are all in Windows-1252.
        let other = (self == Self::MySqlLatin1 && !name.is_ascii()).then(|| match &written {
            Cow::Borrowed(_) => Some(Cow::Owned(utf8_spelling(name))),
            Cow::Owned(_) => (decode_utf8(name).is_none() && name.chars().all(|it| byte(it).is_some()))
                .then_some(Cow::Borrowed(name)),
        });
        std::iter::once(written).chain(other.flatten())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LATIN1: Charset = Charset::MySqlLatin1;

    #[test]
    fn each_byte_has_one_character() {
        for value in 0..=u8::MAX {
            assert_eq!(byte(character(value)), Some(value));
        }
        assert_eq!((byte('日'), byte('\u{80}')), (None, None));
    }

    #[test]
    fn both_kinds_of_rows_are_read() {
        for (spelling, name) in [
            ("sms", "sms"),
            ("Ã¼", "ü"),
            ("ü", "ü"),
            ("StraÃŸe", "Straße"),
            ("æ—¥æœ¬", "日本"),
            ("Ã\u{192}Â¼", "Ã¼"),
            ("â‚¬", "€"),
            ("€", "€"),
            ("ðŸ˜€", "😀"),
            ("Ã", "Ã"),
        ] {
            assert_eq!(LATIN1.read(spelling.to_owned()), name, "{spelling}");
            assert!(LATIN1.spellings(name).any(|known| known == spelling), "{spelling} is no spelling of {name}");
            assert_eq!(Charset::Unicode.read(spelling.to_owned()), spelling);
        }
        let spellings = |name: &'static str| LATIN1.spellings(name).collect::<Vec<_>>();
        assert_eq!(spellings("sms"), ["sms"]);
        assert_eq!(spellings("ü"), ["ü", "Ã¼"]);
        assert_eq!(spellings("Ã¼"), ["Ã\u{192}Â¼"], "what looks like UTF-8 is written as UTF-8");
        assert_eq!(spellings("日本"), ["æ—¥æœ¬"]);
        assert_eq!(Charset::Unicode.spellings("ü").count(), 1);
    }

    proptest! {
        /// A written name is read unchanged, and no row is found under two names.
        #[test]
        fn no_name_is_read_as_another(name in "[a-cÃ¼Â¤€ƒß日😀é\u{80}-\u{9f}\u{a0}-\u{ff}]{1,6}") {
            prop_assert!(LATIN1.holds_name(&name));
            prop_assert_eq!(LATIN1.read(LATIN1.written(&name).into_owned()), name.clone());
            for spelling in LATIN1.spellings(&name) {
                prop_assert_eq!(LATIN1.read(spelling.into_owned()), name.clone());
            }
        }

        /// For any bytes of a row, a query for the decoded name finds the row.
        #[test]
        fn whatever_is_read_is_found(bytes in prop::collection::vec(1_u8.., 0..8)) {
            let spelling: String = bytes.iter().copied().map(character).collect();
            let name = LATIN1.read(spelling.clone());
            prop_assert!(LATIN1.spellings(&name).any(|known| known == spelling));
        }
    }
}
