//! An exact amount of a resource, for sums and comparisons; how it is written down again is not known here.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// A count in billionths, the finest step that a quantity can hold (`n`), so that sums never round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

impl Amount {
    pub const ZERO: Self = Self(0);

    pub fn from_units(units: i64) -> Self {
        Self(i128::from(units) * NANO)
    }

    pub fn from_millis(millis: i64) -> Self {
        Self(i128::from(millis) * (NANO / 1000))
    }

    /// Reads a quantity as upstream's grammar has it (`1.5Gi`, `250m`, `1e3`). What is finer than a billionth is
    /// rounded up, away from zero, as upstream rounds; `None` when it is no quantity at all.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        let (negative, rest) = match text.strip_prefix(['-', '+']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (numerator, denominator) = multiplier(suffix)?;
        // value = digits / 10^len(fraction) * numerator / denominator, in billionths
        let fraction = fraction.trim_end_matches('0');
        if whole.len() + fraction.len() > 27 {
            return None;
        }
        let digits = whole
            .chars()
            .chain(fraction.chars())
            .try_fold(0i128, |at, c| at.checked_mul(10)?.checked_add(i128::from(c.to_digit(10)?)))?;
        let divisor = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(denominator)?;
        let nanos = match digits.checked_mul(numerator).and_then(|n| n.checked_mul(NANO)) {
            Some(scaled) => div_up(scaled, divisor),
            // larger than any quantity may be: capped, as upstream caps at 2^63-1
            None => i128::from(i64::MAX) * NANO,
        };
        let nanos = nanos.min(i128::from(i64::MAX) * NANO);
        Some(Self(if negative { -nanos } else { nanos }))
    }

    /// A quantity of an object that validation has accepted; one that is not readable counts as nothing.
    pub fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whole units, rounded up (`Quantity.Value()`).
    pub fn value(self) -> i64 {
        clamp(div_up(self.0, NANO))
    }

    /// Thousandths, rounded up (`Quantity.MilliValue()`).
    pub fn milli_value(self) -> i64 {
        clamp(div_up(self.0, NANO / 1000))
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero.
fn div_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANO, 1),
        "T" => (1000 * NANO, 1),
        "P" => (1_000_000 * NANO, 1),
        "E" => (NANO * NANO, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs().min(27))?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_read_exactly() {
        let cases = [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1.5", 2, 1500),
            (".5", 1, 500),
            ("1.", 1, 1000),
            ("128Mi", 134_217_728, 134_217_728_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("1k", 1000, 1_000_000),
            ("1e3", 1000, 1_000_000),
            ("1E", 1_000_000_000_000_000_000, i64::MAX),
            ("1E3", 1000, 1_000_000),
            ("5e-1", 1, 500),
            ("1n", 1, 1),
            ("-1500m", -2, -1500),
            ("+2", 2, 2000),
            ("0.0001", 1, 1),
            ("99999999999999999999", i64::MAX, i64::MAX),
        ];
        for (text, value, milli) in cases {
            let amount = Amount::parse(text).unwrap_or_else(|| panic!("{text} is a quantity"));
            assert_eq!((amount.value(), amount.milli_value()), (value, milli), "{text}");
        }
        for text in ["", "-", ".", "1.2.3", "1x", "Mi", "1 Mi", "1ee3", "1e", "--1", "½"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = Amount::parse(&text);
        }

        #[test]
        fn integers_come_back(n in any::<i32>()) {
            prop_assert_eq!(Amount::parse(&n.to_string()).map(Amount::value), Some(i64::from(n)));
        }
    }
}
