//! Numbers as JSON writes them, exactly: for columns that must not hold another number than the message.
//!
//! Never rounds. What is too long to be a number that anybody meant is none.

use crate::limits;

/// A number: its digits, without zeros at either end, times a power of ten. Zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exact {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Exact {
    /// Reads a number of JSON (RFC 8259 section 6): no plus, no leading zeros, no blanks, so that a telephone number is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > limits::STORE_NUMBER_CHARS {
            return None;
        }
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, rest) = leading_digits(rest)?;
        if whole.len() > 1 && whole.starts_with('0') {
            return None;
        }
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => leading_digits(rest)?,
            None => ("", rest),
        };
        let power = match rest.strip_prefix(['e', 'E']) {
            Some(power) => {
                leading_digits(power.strip_prefix(['+', '-']).unwrap_or(power)).filter(|(_, rest)| rest.is_empty())?;
                power.parse::<i32>().ok()?
            }
            None => rest.is_empty().then_some(0)?,
        };
        let all = format!("{whole}{fraction}");
        let significant = all.trim_end_matches('0');
        let zeros = i64::try_from(all.len() - significant.len()).ok()?;
        let digits = significant.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        Some(Self { negative, digits, exponent: i64::from(power) - i64::try_from(fraction.len()).ok()? + zeros })
    }

    /// How many digits it has before the point, if it has any but zeros.
    fn magnitude(&self) -> i64 {
        i64::try_from(self.digits.len()).unwrap_or(i64::MAX).saturating_add(self.exponent)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    pub(super) fn is_negative(&self) -> bool {
        self.negative
    }

    /// Whether it has at most so many digits before and behind the point. Fewer than none behind are zeros before it.
    pub(super) fn fits(&self, before: i64, behind: i64) -> bool {
        self.is_zero() || (self.magnitude() <= before && self.exponent >= -behind)
    }

    /// As a whole number; `None` if it is none, or has more digits than any column of whole numbers.
    pub(super) fn whole(&self) -> Option<i128> {
        if !self.fits(i64::from(i64::MAX.ilog10()) + 2, 0) {
            return None;
        }
        self.plain().parse().ok()
    }

    /// Its digits without a power. Only for one that [`Self::fits`].
    pub(super) fn plain(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
        let magnitude = self.magnitude();
        match usize::try_from(magnitude) {
            _ if self.is_zero() => "0".to_owned(),
            _ if self.exponent >= 0 => format!("{sign}{}{}", self.digits, zeros(self.exponent)),
            Ok(before @ 1..) => {
                let (whole, fraction) = self.digits.split_at(before);
                format!("{sign}{whole}.{fraction}")
            }
            _ => format!("{sign}0.{}{}", zeros(-magnitude), self.digits),
        }
    }
}

/// At least one digit, and what follows.
fn leading_digits(text: &str) -> Option<(&str, &str)> {
    let rest = text.trim_start_matches(|character: char| character.is_ascii_digit());
    let digits = &text[..text.len() - rest.len()];
    (!digits.is_empty()).then_some((digits, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_those_of_json_and_exact() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.000", "0"),
            ("0e5", "0"),
            ("7", "7"),
            ("-120", "-120"),
            ("12.50", "12.5"),
            ("1e3", "1000"),
            ("1.5E+2", "150"),
            ("125e-2", "1.25"),
            ("5e-3", "0.005"),
            ("-0.10", "-0.1"),
            ("18446744073709551616", "18446744073709551616"),
        ] {
            assert_eq!(Exact::parse(text).map(|number| number.plain()).as_deref(), Some(expected), "{text}");
        }
        let long = "1".repeat(limits::STORE_NUMBER_CHARS + 1);
        for text in [
            "",
            "-",
            "+1",
            "007",
            "-01",
            ".5",
            "1.",
            "1e",
            "1e+",
            "1e+-1",
            "1e99999999999",
            " 1",
            "1 ",
            "1,5",
            "0x1",
            "inf",
            "NaN",
            "٣",
            &long,
        ] {
            assert_eq!(Exact::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_fits_or_not() {
        for (text, before, behind, expected) in [
            ("123.45", 3, 2, true),
            ("123.450", 3, 2, true),
            ("123.456", 3, 2, false),
            ("1234", 3, 2, false),
            ("0.001", 0, 3, true),
            ("1", 0, 3, false),
            ("1200", 4, -2, true),
            ("1250", 4, -2, false),
            ("1e2000000000", 1_000, 0, false),
            ("1e-2000000000", 0, 1_000, false),
            ("0e2000000000", 0, 0, true),
        ] {
            assert_eq!(Exact::parse(text).expect(text).fits(before, behind), expected, "{text}");
        }
        let whole = |text: &str| Exact::parse(text).expect(text).whole();
        assert_eq!(whole("1.0e1"), Some(10));
        assert_eq!(whole("-9223372036854775808"), Some(i128::from(i64::MIN)));
        assert_eq!(whole("18446744073709551615"), Some(i128::from(u64::MAX)));
        assert_eq!((whole("0.5"), whole("1e20"), whole("1e2000000000")), (None, None, None));
    }

    proptest! {
        #[test]
        fn whole_numbers_come_back(number: i64) {
            prop_assert_eq!(Exact::parse(&number.to_string()).and_then(|exact| exact.whole()), Some(i128::from(number)));
        }

        #[test]
        fn what_json_takes_is_a_number_and_nothing_else(text in "-?[0-9.eE+-]{0,8}") {
            let exact = Exact::parse(&text);
            let json = serde_json::from_str::<serde_json::Number>(&text);
            // JSON's reader knows no numbers beyond those of a computer.
            prop_assert!(exact.is_some() == json.is_ok() || json.is_err_and(|error| error.to_string().contains("range")));
            if let Some(number) = exact.filter(|number| number.fits(400, 400)) {
                prop_assert_eq!(number.plain().parse::<f64>().ok(), text.parse::<f64>().ok());
            }
        }
    }
}
