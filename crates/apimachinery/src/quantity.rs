//! Resource quantities: fixed-point numbers with a suffix, in upstream's canonical text form.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Which family of suffixes a quantity was written with, and is written in again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySI,
    /// `12M`
    #[default]
    DecimalSI,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    FormatWrong,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// `mantissa * 10^exponent`, never finer than 10^-9. Mantissas hold 38 digits: what goes beyond is rounded away
/// from zero when parsed and saturates in sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    exponent: i32,
    format: Format,
}

const NANO: i32 = -9;

impl Quantity {
    pub fn new(value: i64, format: Format) -> Self {
        Self { mantissa: value.into(), exponent: 0, format }
    }

    pub fn milli(value: i64, format: Format) -> Self {
        Self { mantissa: value.into(), exponent: -3, format }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse(text).map(|(quantity, _)| quantity)
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    pub fn signum(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// The value in whole units, rounded up (away from zero).
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// The value in thousandths, rounded up (away from zero).
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(-3)
    }

    /// The value in units of `10^scale`, rounded away from zero; saturates.
    pub fn scaled_value(&self, scale: i32) -> i64 {
        let scaled = rescale(self.mantissa, self.exponent.saturating_sub(scale));
        i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
    }

    /// For metrics and ratios only.
    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.exponent)
    }

    /// Multiplies by a whole number; saturates.
    #[must_use]
    pub fn times(self, factor: i64) -> Self {
        Self { mantissa: self.mantissa.saturating_mul(factor.into()), ..self }
    }

    fn binary_parts(&self) -> Option<(i128, usize)> {
        let whole = if self.exponent >= 0 {
            10i128.checked_pow(self.exponent.unsigned_abs())?.checked_mul(self.mantissa)?
        } else {
            let unit = 10i128.checked_pow(self.exponent.unsigned_abs())?;
            (self.mantissa % unit == 0).then(|| self.mantissa / unit)?
        };
        if whole.abs() < 1024 {
            return None;
        }
        let (mut number, mut power) = (whole, 0);
        while number.abs() >= 1024 && number % 1024 == 0 && power + 1 < BINARY.len() {
            number /= 1024;
            power += 1;
        }
        Some((number, power))
    }
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// `mantissa * 10^shift`, rounded away from zero, saturating.
fn rescale(mantissa: i128, shift: i32) -> i128 {
    let limit = if mantissa < 0 { i128::MIN } else { i128::MAX };
    let factor = 10i128.checked_pow(shift.unsigned_abs());
    match (shift >= 0, factor) {
        _ if mantissa == 0 => 0,
        (true, Some(factor)) => mantissa.checked_mul(factor).unwrap_or(limit),
        (true, None) => limit,
        (false, Some(factor)) => {
            let whole = mantissa / factor;
            if mantissa % factor == 0 { whole } else { whole + mantissa.signum() }
        }
        (false, None) => mantissa.signum(),
    }
}

/// The canonical text. Values above the largest suffix, which upstream prints without one, get an exponent.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mantissa == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySI
            && let Some((number, power)) = self.binary_parts()
        {
            return write!(f, "{number}{}", BINARY[power]);
        }
        let (mut number, mut exponent) = (self.mantissa, i64::from(self.exponent));
        while number % 10 == 0 {
            number /= 10;
            exponent += 1;
        }
        let extra = exponent.rem_euclid(3);
        exponent -= extra;
        number = number.saturating_mul(if extra == 2 {
            100
        } else if extra == 1 {
            10
        } else {
            1
        });
        let suffix = usize::try_from(exponent / 3 + 3).ok().and_then(|i| DECIMAL.get(i));
        match (self.format, suffix) {
            (_, _) if exponent == 0 => write!(f, "{number}"),
            (Format::DecimalSI | Format::BinarySI, Some(suffix)) => write!(f, "{number}{suffix}"),
            _ => write!(f, "{number}e{exponent}"),
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.mantissa, other.mantissa);
        if a.signum() != b.signum() || a == 0 {
            return a.signum().cmp(&b.signum());
        }
        let up = |mantissa: i128, by: i32| 10i128.checked_pow(by.unsigned_abs())?.checked_mul(mantissa);
        // The side with the larger exponent is brought down; where that overflows it is the larger in size.
        match self.exponent.cmp(&other.exponent) {
            Ordering::Equal => a.cmp(&b),
            Ordering::Greater => {
                up(a, self.exponent.saturating_sub(other.exponent)).map_or(a.cmp(&0), |a| a.cmp(&b))
            }
            Ordering::Less => {
                up(b, other.exponent.saturating_sub(self.exponent)).map_or(0.cmp(&b), |b| a.cmp(&b))
            }
        }
    }
}

/// Keeps the format of the left side unless that is zero.
impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        if self.is_zero() || other.is_zero() {
            let some = if self.is_zero() { other } else { self };
            return Self { format, ..some };
        }
        let exponent = self.exponent.min(other.exponent);
        let left = rescale(self.mantissa, self.exponent.saturating_sub(exponent));
        let right = rescale(other.mantissa, other.exponent.saturating_sub(exponent));
        Self { mantissa: left.saturating_add(right), exponent, format }
    }
}

impl std::ops::Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { mantissa: self.mantissa.saturating_neg(), ..self }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        std::ops::Add::add(self, -other)
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::ops::SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// The text that upstream writes for a quantity it read as `text`: some forms that are not strictly canonical
/// (`1.500`) are kept as they came.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, ParseError> {
    let (quantity, keep) = parse(text)?;
    Ok(if keep { Cow::Borrowed(text) } else { Cow::Owned(quantity.to_string()) })
}

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let rest = rest.trim_start_matches('0');
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let exponent = &suffix[letters..];
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::FormatWrong);
    }
    Ok(Parts { negative, whole: if whole.is_empty() { "0" } else { whole }, fraction, suffix })
}

fn interpret(suffix: &str) -> Option<(i32, Format)> {
    if let Some(power) = BINARY.iter().skip(1).position(|s| *s == suffix) {
        return Some(((i32::try_from(power).ok()? + 1) * 10, Format::BinarySI));
    }
    if let Some(power) = DECIMAL.iter().position(|s| *s == suffix) {
        return Some((i32::try_from(power).ok()? * 3 - 9, Format::DecimalSI));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((exponent, Format::DecimalExponent))
}

/// The quantity, and whether upstream would print it back as it came.
fn parse(text: &str) -> Result<(Quantity, bool), ParseError> {
    /// As many digits as Go's fast path takes; only what goes through it may keep its text.
    const FAST_DIGITS: usize = 18;
    if text.is_empty() {
        return Err(ParseError::FormatWrong);
    }
    let Parts { negative, whole, fraction, suffix } = split(text)?;
    let (power, mut format) = interpret(suffix).ok_or(ParseError::Suffix)?;
    let digits = whole.len() + fraction.len();
    let (mut mantissa, mut exponent) = (0i128, 0i32);
    let mut inexact = false;
    for (at, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let places = i32::from(at >= whole.len());
        let next = mantissa.checked_mul(10).and_then(|m| m.checked_add((digit - b'0').into()));
        match next {
            Some(next) if exponent <= 0 && !inexact => {
                mantissa = next;
                exponent -= places;
            }
            // Out of room: further digits only count as size, and that they were not all zero.
            _ => {
                inexact |= digit != b'0';
                exponent += 1 - places;
            }
        }
    }
    mantissa += i128::from(inexact);
    let in_range = |mantissa: i128| mantissa <= i64::MAX.into();
    let keep = match format {
        Format::BinarySI => {
            let room = 15 - i64::from(power) * 3 / 10 - 1;
            let fits = digits as i64 <= room && fraction.is_empty();
            fits && mantissa & 7 != 0 && in_range(mantissa << power)
        }
        Format::DecimalSI | Format::DecimalExponent => {
            let scale = i64::from(power) - fraction.len() as i64;
            let (ends, starts) = (format!("{whole}{fraction}"), !whole.starts_with('0'));
            digits <= FAST_DIGITS
                && scale >= i64::from(NANO)
                && scale % 3 == 0
                && starts
                && !ends.ends_with("000")
        }
    };
    if format == Format::BinarySI {
        let limit = i128::from(i64::MAX);
        let scaled = mantissa.checked_mul(1i128 << power).unwrap_or(i128::MAX);
        let over = Quantity { mantissa: scaled, exponent, format }
            > Quantity { mantissa: limit, exponent: 0, format };
        (mantissa, exponent) = if over { (limit, 0) } else { (scaled, exponent) };
    } else {
        exponent = exponent.saturating_add(power);
    }
    if exponent < NANO {
        mantissa = rescale(mantissa, exponent.saturating_sub(NANO));
        exponent = NANO;
    }
    let one = Quantity { mantissa: 1, exponent: 0, format };
    let mut quantity = Quantity { mantissa, exponent, format };
    if format == Format::BinarySI && mantissa > 0 && quantity < one {
        format = Format::DecimalSI;
    }
    quantity.format = format;
    if negative {
        quantity = -quantity;
    }
    Ok((quantity, keep && mantissa != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        let cases = [
            ("0", "0"),
            ("0m", "0"),
            ("-0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.5k", "1500"),
            ("2000000", "2M"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1Ki", "1Ki"),
            ("1000Ki", "1000Ki"),
            ("8Ki", "8Ki"),
            ("0.5Ki", "512"),
            ("1.5Gi", "1536Mi"),
            ("0.5Mi", "512Ki"),
            ("64Gi", "64Gi"),
            ("1025Mi", "1025Mi"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("1E6", "1E6"),
            ("12e-1", "1200e-3"),
            ("1.500", "1.500"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("9Ei", "9223372036854775807"),
            ("1000E", "1e21"),
            ("+5", "+5"),
            ("05", "05"),
            ("1.", "1."),
            ("0.000001", "1u"),
            ("123456789k", "123456789k"),
            ("1000000000000000000000", "1e21"),
            ("0.0001Ki", "102400u"),
            ("-1.5Gi", "-1536Mi"),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refusals() {
        let cases = [
            ("", ParseError::FormatWrong),
            ("1.1.Mi", ParseError::FormatWrong),
            ("1 ", ParseError::FormatWrong),
            ("1i", ParseError::Suffix),
            ("aoeu", ParseError::FormatWrong),
            ("1K", ParseError::Suffix),
            ("1e", ParseError::Suffix),
            ("1Mib", ParseError::FormatWrong),
        ];
        for (text, expected) in cases {
            assert_eq!(Quantity::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn arithmetic() {
        let q = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!((q("1") + q("500m")).to_string(), "1500m");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("2Gi") - q("1Mi")).to_string(), "2047Mi");
        assert_eq!((q("100m") - q("1")).to_string(), "-900m");
        assert_eq!((q("1001m").value(), q("1m").milli_value(), q("1u").milli_value()), (2, 1, 1));
        assert_eq!((q("-1001m").value(), q("1Ki").value(), q("2").milli_value()), (-2, 1024, 2000));
        assert_eq!(q("1e400").value(), i64::MAX);
        assert!(
            q("1Ki") > q("1k") && q("1e9999") > q("9Ei") && q("-1e9999") < q("0") && q("1000m") == q("1")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[-+]?[0-9.]{0,45}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,11}") {
            if let Ok(once) = canonical(&text) {
                let quantity = Quantity::parse(&text).unwrap();
                prop_assert_eq!(canonical(&once).unwrap(), once.clone());
                let _ = (quantity + quantity, quantity.value(), quantity.cmp(&Quantity::default()));
            }
        }

        #[test]
        fn order_is_that_of_the_numbers(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000) {
            let milli = |v| Quantity::milli(v, Format::DecimalSI);
            prop_assert_eq!(milli(a).cmp(&milli(b)), a.cmp(&b));
            prop_assert_eq!(Quantity::parse(&milli(a).to_string()).unwrap(), milli(a));
            prop_assert_eq!((milli(a) + milli(b)).milli_value(), a + b);
        }
    }
}
