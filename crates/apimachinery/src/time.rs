//! Times and durations as `metav1.Time`, `metav1.MicroTime` and `metav1.Duration` read and write them.

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Timelike, Utc};

pub type Time = DateTime<Utc>;

/// Go's layout strings: they show in its error messages.
const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// Reads an RFC 3339 time; fractions of a second are dropped, as in `metav1.Time`.
pub fn parse(text: &str) -> Result<Time, ParseError> {
    let time = Scanner { text, rest: text, layout: RFC3339 }.scan()?;
    Ok(time.with_nanosecond(0).unwrap_or(time))
}

/// Reads an RFC 3339 time with exactly six decimals, as in `metav1.MicroTime`.
pub fn parse_micro(text: &str) -> Result<Time, ParseError> {
    Scanner { text, rest: text, layout: RFC3339_MICRO }.scan()
}

/// `2006-01-02T15:04:05Z`
pub fn format(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `2006-01-02T15:04:05.000000Z`
pub fn format_micro(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Whether Go calls the time zero: the first second of year 1.
pub fn is_zero(time: Time) -> bool {
    (time.year(), time.ordinal(), time.num_seconds_from_midnight()) == (1, 1, 0) && time.nanosecond() == 0
}

/// A time from the `seconds` and `nanos` of a protobuf `Timestamp`; `None` outside the years JSON can show.
pub fn from_unix(seconds: i64, nanos: u32) -> Option<Time> {
    DateTime::from_timestamp(seconds, nanos).filter(|time| (0..=9999).contains(&time.year()))
}

struct Scanner<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Scanner<'_> {
    fn cannot(&self, element: &str) -> ParseError {
        let Self { text, rest, layout } = self;
        ParseError(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"))
    }

    fn out_of_range(&self, what: &str) -> ParseError {
        ParseError(format!("parsing time {:?}: {what} out of range", self.text))
    }

    fn number(&mut self, digits: usize, element: &str) -> Result<u32, ParseError> {
        match self.rest.get(..digits) {
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                self.rest = &self.rest[digits..];
                text.parse().map_err(|_| self.cannot(element))
            }
            _ => Err(self.cannot(element)),
        }
    }

    fn literal(&mut self, text: &str) -> Result<(), ParseError> {
        self.rest = self.rest.strip_prefix(text).ok_or_else(|| self.cannot(text))?;
        Ok(())
    }

    fn scan(mut self) -> Result<Time, ParseError> {
        let year = self.number(4, "2006")?;
        self.literal("-")?;
        let month = self.number(2, "01")?;
        self.literal("-")?;
        let day = self.number(2, "02")?;
        self.literal("T")?;
        let hour = self.number(2, "15")?;
        self.literal(":")?;
        let minute = self.number(2, "04")?;
        self.literal(":")?;
        let second = self.number(2, "05")?;
        let nanos = self.fraction()?;
        let offset = self.zone()?;
        if !self.rest.is_empty() {
            let (text, rest, layout) = (self.text, self.rest, self.layout);
            return Err(ParseError(format!("parsing time {text:?} as {layout:?}: extra text: {rest:?}")));
        }
        let year = i32::try_from(year).unwrap_or_default();
        for (what, wrong) in [
            ("month", !(1..=12).contains(&month)),
            ("day", month != 0 && NaiveDate::from_ymd_opt(year, month.clamp(1, 12), day).is_none()),
            ("hour", hour > 23),
            ("minute", minute > 59),
            ("second", second > 59),
        ] {
            if wrong {
                return Err(self.out_of_range(what));
            }
        }
        let local = NaiveDate::from_ymd_opt(year, month, day)
            .and_then(|date| date.and_hms_nano_opt(hour, minute, second, nanos))
            .ok_or_else(|| self.out_of_range("day"))?;
        let utc = local.and_utc().checked_sub_signed(chrono::TimeDelta::seconds(offset));
        utc.filter(|time| (0..=9999).contains(&time.year())).ok_or_else(|| self.out_of_range("year"))
    }

    fn fraction(&mut self) -> Result<u32, ParseError> {
        let exact = self.layout == RFC3339_MICRO;
        let Some(rest) = self.rest.strip_prefix(['.', ',']) else {
            return if exact { Err(self.cannot(".000000")) } else { Ok(0) };
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || (exact && digits != 6) {
            return Err(self.cannot(if exact { ".000000" } else { "Z07:00" }));
        }
        let nanos = rest[..digits].bytes().chain(std::iter::repeat(b'0')).take(9);
        self.rest = &rest[digits..];
        Ok(nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
    }

    fn zone(&mut self) -> Result<i64, ParseError> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let before = self.rest;
        let sign = match before.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.cannot("Z07:00")),
        };
        self.rest = &before[1..];
        let scanned = self.number(2, "").and_then(|hours| {
            self.literal(":")?;
            Ok((hours, self.number(2, "")?))
        });
        match scanned {
            Ok((hours, minutes)) if hours <= 24 && minutes < 60 => {
                Ok(sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
            }
            Ok(_) => Err(self.out_of_range("time zone offset hour")),
            Err(_) => {
                self.rest = before;
                Err(self.cannot("Z07:00"))
            }
        }
    }
}

/// Reads a Go duration (`1h30m`, `250ms`) as nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, ParseError> {
    let invalid = || ParseError(format!("time: invalid duration {text:?}"));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(ParseError(format!("time: missing unit in duration {text:?}"))),
            other => return Err(ParseError(format!("time: unknown unit {other:?} in duration {text:?}"))),
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let fraction = &fraction[..fraction.len().min(18)];
        let scale = 10i128.pow(u32::try_from(fraction.len()).unwrap_or_default());
        let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| invalid())? };
        let value = whole.checked_mul(nanos).ok_or_else(invalid)? + part * nanos / scale;
        total = total.checked_add(value).filter(|t| *t <= 1 << 63).ok_or_else(invalid)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// Writes nanoseconds as Go's `time.Duration` prints them: `1h30m0s`, `250ms`, `0s`.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let decimal = |unit: u64, name: &str| {
        let places = unit.ilog10() as usize;
        let fraction = format!("{:0places$}", size % unit, places = places);
        let fraction = if places == 0 { "" } else { fraction.trim_end_matches('0') };
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}{name}", size / unit)
    };
    let body = match size {
        0 => return "0s".to_owned(),
        1..1_000 => decimal(1, "ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let minutes = size / 60_000_000_000;
            let (hours, minutes) = (minutes / 60, minutes % 60);
            let seconds = format_seconds(size % 60_000_000_000);
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{body}")
}

fn format_seconds(nanos: u64) -> String {
    let fraction = format!("{:09}", nanos % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction}s", nanos / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times() {
        let cases = [
            ("2024-02-29T12:30:45Z", "2024-02-29T12:30:45Z"),
            ("2024-02-29T12:30:45.999Z", "2024-02-29T12:30:45Z"),
            ("2024-02-29T12:30:45+02:00", "2024-02-29T10:30:45Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).map(format).as_deref(), Ok(expected));
        }
        assert!(is_zero(parse("0001-01-01T00:00:00Z").unwrap()));
        let micro = parse_micro("2024-01-01T01:01:01.000123Z").unwrap();
        assert_eq!(format_micro(micro), "2024-01-01T01:01:01.000123Z");
    }

    #[test]
    fn refusals_read_as_in_go() {
        let cases = [
            ("", r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
            (
                "2024-01-01",
                r#"parsing time "2024-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#,
            ),
            ("2024-13-01T00:00:00Z", r#"parsing time "2024-13-01T00:00:00Z": month out of range"#),
            ("2023-02-29T00:00:00Z", r#"parsing time "2023-02-29T00:00:00Z": day out of range"#),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        assert!(parse_micro("2024-01-01T01:01:01Z").is_err());
    }

    #[test]
    fn durations() {
        let cases = [
            ("0", "0s"),
            ("1h", "1h0m0s"),
            ("90s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("250ms", "250ms"),
            ("1500us", "1.5ms"),
            ("3ns", "3ns"),
            ("-5m", "-5m0s"),
            ("1m0.25s", "1m0.25s"),
            ("1us", "1µs"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text).map(format_duration).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "1", "h", "1x", "99999999999h", "."] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = (parse(&text), parse_micro(&text), parse_duration(&text));
        }

        #[test]
        fn durations_round_trip(nanos in any::<i64>()) {
            if nanos != i64::MIN {
                prop_assert_eq!(parse_duration(&format_duration(nanos)).unwrap(), nanos);
            }
        }
    }
}
