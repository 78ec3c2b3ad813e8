//! Sets of indexes as Jobs write them, such as `0,3-5`.

use apimachinery::field::quote;

type Interval = (i64, i64);

/// How many indexes a set has.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    let mut last: Option<i64> = None;
    let mut total = 0;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (low, high) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= low) {
            return Err(format!("non-increasing order, previous: {last}, current: {low}"));
        }
        total += high - low + 1;
        last = Some(high);
    }
    Ok(total)
}

fn interval(text: &str, completions: i64) -> Result<Interval, String> {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |text: &str| -> Result<i64, String> {
        let number: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {}", quote(text)))?;
        if number >= completions {
            return Err(format!("too large index: {}", quote(text)));
        }
        Ok(number)
    };
    match parts[..] {
        [one] => number(one).map(|number| (number, number)),
        [low, high] => {
            let (low, high) = (number(low)?, number(high)?);
            if low >= high {
                return Err(format!("non-increasing order, previous: {low}, current: {high}"));
            }
            Ok((low, high))
        }
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            quote(text)
        )),
    }
}

/// The first index that two sets share; parts that cannot be read are passed over.
pub fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<Interval> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (completed, failed) = (read(completed), read(failed));
    let (mut c, mut f) = (completed.iter().peekable(), failed.iter().peekable());
    while let (Some((c_low, c_high)), Some((f_low, f_high))) = (c.peek(), f.peek()) {
        if c_low <= f_high && f_low <= c_high {
            return Some(*c_low.max(f_low));
        }
        if c_low <= f_low {
            c.next()
        } else {
            f.next()
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let cases = [
            ("", Ok(0)),
            ("1", Ok(1)),
            ("0,3-5,7", Ok(5)),
            ("3-1", Err("non-increasing order, previous: 3, current: 1")),
            ("2,1", Err("non-increasing order, previous: 2, current: 1")),
            ("10", Err("too large index: \"10\"")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
        ];
        for (text, expected) in cases {
            assert_eq!(count(text, 10), expected.map_err(str::to_owned), "{text}");
        }
        assert!(count("1-2-3", 10).is_err());
        assert_eq!(overlap("0-3,7", "4,6-8", 10), Some(7));
        assert_eq!(overlap("0-3", "4", 10), None);
    }
}
