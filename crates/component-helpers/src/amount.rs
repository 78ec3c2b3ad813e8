//! An exact amount of a resource, for sums and comparisons; how it was written does not matter here.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use apimachinery::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use quantity::Format;

/// A quantity without its way of writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(quantity::Quantity);

impl Amount {
    pub fn from_units(units: i64) -> Self {
        Self(quantity::Quantity::new(units, Format::DecimalSI))
    }

    pub fn from_millis(millis: i64) -> Self {
        Self(quantity::Quantity::milli(millis, Format::DecimalSI))
    }

    /// Reads a quantity as upstream does (`1.5Gi`, `250m`, `1e3`).
    pub fn parse(text: &str) -> Option<Self> {
        quantity::Quantity::parse(text).ok().map(Self)
    }

    /// A quantity of an object that validation has accepted; one that is not readable counts as nothing.
    pub fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    pub fn is_negative(self) -> bool {
        self.0.signum() < 0
    }

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// Whole units, rounded up (`Quantity.Value()`).
    pub fn value(self) -> i64 {
        self.0.value()
    }

    /// Thousandths, rounded up (`Quantity.MilliValue()`).
    pub fn milli_value(self) -> i64 {
        self.0.milli_value()
    }
}

/// As upstream writes it, with the family of suffixes that the first amount of a sum had.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
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
        Self(self.0 - other.0)
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_added_and_compared_whatever_their_form() {
        let amount = |text: &str| Amount::parse(text).unwrap_or_else(|| panic!("{text} is a quantity"));
        let cases = [
            ("100m", 1, 100),
            ("1.5", 2, 1500),
            ("128Mi", 134_217_728, 134_217_728_000),
            ("-1500m", -2, -1500),
        ];
        for (text, value, milli) in cases {
            assert_eq!((amount(text).value(), amount(text).milli_value()), (value, milli), "{text}");
        }
        assert_eq!(amount("1"), amount("1000m"));
        assert_eq!(amount("1Ki") + amount("1k"), Amount::from_units(2024));
        assert_eq!([amount("300m"), amount("0.7")].into_iter().sum::<Amount>(), Amount::from_units(1));
        assert!(amount("1Gi") > amount("1G") && (amount("1") - amount("1")).is_zero());
        assert_eq!(Amount::of(&Quantity("nonsense".into())), Amount::default());
        assert_eq!(Amount::parse("1x"), None);
    }
}
