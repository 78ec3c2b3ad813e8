//! The formats of texts and numbers that schemas of custom resources may ask for, judged as upstream judges them.
//! What is of a format that is not known here is taken as it is.

use std::net::Ipv6Addr;

use apimachinery::validation as names;
use chrono::NaiveDate;
use regex::Regex;

use crate::validation::url::parse_request;

/// By names without hyphens, which do not count.
const OF_TEXTS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// Whether values of a type can have a format.
pub fn is_recognized(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => OF_TEXTS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether a text has a format.
pub fn has(text: &str, format: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "byte" => {
            matches(text, r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$")
        }
        "cidr" => names::Cidr::parse_sloppy(text).is_some(),
        "creditcard" => is_credit_card(text),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => is_go_duration(text) || is_spelled_duration(text),
        "email" => is_email(text),
        "hexcolor" => matches(text, "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        "hostname" => is_host_name(text),
        "ipv4" => text.contains('.') && names::parse_ip_sloppy(text).is_some(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8slongname" => names::is_dns1123_subdomain(text).is_empty(),
        "k8sshortname" => names::is_dns1123_label(text).is_empty(),
        "mac" => is_mac(text),
        "rgbcolor" => is_rgb_color(text),
        "ssn" => text.len() == 11 && matches(text, "^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"),
        "uri" => parse_request(text).is_ok(),
        "uuid" => is_uuid(text, "", ""),
        "uuid3" => is_uuid(text, "3", ""),
        "uuid4" => is_uuid(text, "4", "89ab"),
        "uuid5" => is_uuid(text, "5", "89ab"),
        _ => true,
    }
}

fn matches(text: &str, pattern: &str) -> bool {
    Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

/// A UUID, with or without hyphens, whose version and variant are among these; none are any.
fn is_uuid(text: &str, version: &str, variant: &str) -> bool {
    let digit = |among: &str| if among.is_empty() { "[0-9a-f]".to_owned() } else { format!("[{among}]") };
    let (version, variant) = (digit(version), digit(variant));
    let pattern = format!(
        "(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{version}[0-9a-f]{{3}}-?{variant}[0-9a-f]{{3}}-?[0-9a-f]{{12}}$"
    );
    matches(text, &pattern)
}

fn is_date(text: &str) -> bool {
    matches(text, "^[0-9]{4}-[0-9]{2}-[0-9]{2}$") && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

/// A date, a `T` and a time with its zone, whatever numbers the zone has.
fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    is_date(date)
        && matches(time, "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$")
}

/// As Go writes durations: `1h30m`, `-1.5s`.
fn is_go_duration(text: &str) -> bool {
    matches(text, r"^[-+]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$")
}

/// As Scala writes them, anywhere in a text: `3 days`, `22 ns`.
fn is_spelled_duration(text: &str) -> bool {
    const EXACT: [&str; 13] = ["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk", "min", "sec"];
    const BEGINNINGS: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    let Ok(pattern) = Regex::new(r"([0-9]+)\s*([A-Za-zµ]+)") else { return false };
    pattern.captures_iter(text).any(|found| {
        let unit = found[2].to_lowercase();
        EXACT.contains(&unit.as_str()) || BEGINNINGS.iter().any(|beginning| unit.starts_with(beginning))
    })
}

/// An address, alone or in angle brackets behind a name, with a remark behind it or without; or a group of one such.
fn is_email(text: &str) -> bool {
    const ATOM: &str = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-[:^ascii:]]+";
    const QUOTED: &str = r#""(?:[^"\\\r\n]|\\.)*""#;
    let dotted = format!(r"{ATOM}(?:\.{ATOM})*");
    let local = r#""(?:[^"\\\r\n]|\\.)+""#;
    let address = format!(r"(?:{dotted}|{local})@[ \t]*(?:{dotted}|\[[^\[\]\\]*\])");
    let word = format!(r"(?:{ATOM}|{QUOTED}|\.)");
    let remark = r"[ \t]*(?:\([^()]*\)[ \t]*)*";
    let mailbox = format!(r"(?:{address}|(?:{word}[ \t]*)*<{address}>){remark}");
    matches(text, &format!(r"^[ \t]*(?:{mailbox}|(?:{word}[ \t]*)+:[ \t]*{mailbox};{remark})$"))
}

fn is_host_name(text: &str) -> bool {
    const PATTERN: &str = r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$";
    text.len() <= 255 && text.split('.').all(|label| label.len() <= 63) && matches(text, PATTERN)
}

/// Six, eight or twenty bytes by colons or hyphens, or in pairs by dots.
fn is_mac(text: &str) -> bool {
    let of = |separator: &str, digits: usize, groups: [usize; 3]| {
        groups.iter().any(|count| {
            let more = count - 1;
            matches(text, &format!("^[0-9a-fA-F]{{{digits}}}({separator}[0-9a-fA-F]{{{digits}}}){{{more}}}$"))
        })
    };
    of(":", 2, [6, 8, 20]) || of("-", 2, [6, 8, 20]) || of(r"\.", 4, [3, 4, 10])
}

fn is_rgb_color(text: &str) -> bool {
    const PART: &str = r"\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*";
    matches(text, &format!(r"^rgb\({PART},{PART},{PART}\)$"))
}

fn without(text: &str, among: impl Fn(char) -> bool) -> String {
    text.chars().filter(|c| !among(*c)).collect()
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> + '_ {
    text.chars().map(|c| c.to_digit(10).unwrap_or(10))
}

fn is_isbn10(text: &str) -> bool {
    let text = without(text, |c| c.is_whitespace() || c == '-');
    let sum: u32 = digits(&text).zip(1..).map(|(digit, weight)| digit * weight).sum();
    matches(&text, "^([0-9]{9}X|[0-9]{10})$") && sum.is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = without(text, |c| c.is_whitespace() || c == '-');
    let sum: u32 = digits(&text).zip([1, 3].into_iter().cycle()).map(|(digit, weight)| digit * weight).sum();
    matches(&text, "^[0-9]{13}$") && sum.is_multiple_of(10)
}

fn is_credit_card(text: &str) -> bool {
    const PATTERN: &str = "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$";
    let text = without(text, |c| !c.is_ascii_digit());
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 = digits(&text)
        .rev()
        .enumerate()
        .map(|(at, digit)| if at % 2 == 1 { doubled(digit) } else { digit })
        .sum();
    matches(&text, PATTERN) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_formats() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f1f77", "507f1f77bcf86cd79943901x"]),
            ("byte", &["AAAA", "AA==", "AAA="], &["", "A", "AA=", "A-=="]),
            ("cidr", &["10.0.0.0/8", "010.0.0.1/08", "fd00::/8"], &["10.0.0.0", "10.0.0.0/33"]),
            ("creditcard", &["4111 1111 1111 1111", "4111111111111111"], &["4111111111111112", "1"]),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-1-1", "2024-01-01T00:00:00Z"]),
            (
                "date-time",
                &["2024-01-01T00:00:00Z", "2024-01-01t23:59:59.5+99:99"],
                &["2024-01-01", "2024-01-01T24:00:00Z", "2024-01-01T00:00:00", "2024-01-01 00:00:00Z"],
            ),
            ("datetime", &["2024-01-01T00:00:00Z"], &["now"]),
            (
                "duration",
                &["0", "1h30m", "-1.5s", "22 ns", "3 days", "in 2 weeks"],
                &["", "1", "h", "3 years"],
            ),
            (
                "email",
                &[
                    "me@example.com",
                    "Me <me@host>",
                    "\"a b\"@example.com",
                    "a.b+c@[10.0.0.1]",
                    "a@host (me)",
                    "a@ host",
                    "us: me@host;",
                    "all of \"us\":Me <me@host> (me) ; (us)",
                ],
                &[
                    "us:;",
                    ":me@host;",
                    "us: me@host",
                    "us: a@host, b@host;",
                    "us: them: a@host;;",
                    "",
                    "me",
                    "me@",
                    "@host",
                    "a b@host",
                    "me@host>",
                    "a..b@host",
                    "\"\"@host",
                    "a@host\r\n",
                ],
            ),
            ("hexcolor", &["#FFF", "00ff00"], &["#FFFF", "red"]),
            ("hostname", &["example.com", "host", "1a", "a-b.london"], &["", "-a", "a_b", "example.c"]),
            ("ipv4", &["1.2.3.4", "01.2.3.4", "::ffff:1.2.3.4"], &["1.2.3", "::1"]),
            ("ipv6", &["::1", "::ffff:1.2.3.4"], &["1.2.3.4", "1::2::3"]),
            ("isbn", &["0321751043", "978-0321751041"], &["0321751044", "978-0321751042"]),
            ("isbn10", &["0-321-75104-3", "080442957X"], &["978-0321751041"]),
            ("isbn13", &["978-0321751041"], &["0321751043"]),
            ("k8s-long-name", &["a.b-c"], &["A.b", "a..b", ""]),
            ("k8s-short-name", &["a-b"], &["a.b", "-a"]),
            (
                "mac",
                &["01:23:45:67:89:ab", "01-23-45-67-89-ab-cd-ef", "0123.4567.89ab"],
                &["01:23", "01:23-45:67:89:ab"],
            ),
            ("password", &["", "any"], &[]),
            ("rgbcolor", &["rgb(0, 10,255)"], &["rgb(0,10)", "rgb(256,0,0)", "rgb(00,0,0)"]),
            ("ssn", &["123-45-6789", "123 45 6789"], &["123456789", "12-345-6789"]),
            ("uri", &["https://example.com", "/path", "urn:a"], &["", "path", "https://a b"]),
            (
                "uuid",
                &["123e4567-e89b-12d3-a456-426614174000", "123E4567E89B12D3A456426614174000"],
                &["123e4567"],
            ),
            ("uuid3", &["123e4567-e89b-32d3-0456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]),
            ("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-42d3-0456-426614174000"]),
            ("uuid5", &["123e4567-e89b-52d3-B456-426614174000"], &["123e4567-e89b-42d3-a456-426614174000"]),
            ("odd", &["", "any"], &[]),
        ];
        for (format, fine, wrong) in cases {
            fine.iter().for_each(|text| assert!(has(text, format), "{format}: {text}"));
            wrong.iter().for_each(|text| assert!(!has(text, format), "{format}: {text}"));
        }
        for format in OF_TEXTS {
            let is_tested = |(name, _, _): &&(&str, &[&str], &[&str])| name.replace('-', "") == format;
            assert!(cases.iter().any(|case| is_tested(&case)), "{format}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in r"(\PC|[-0-9a-f:.@<>TZ]){0,30}", at in 0..OF_TEXTS.len()) {
            let _ = has(&text, OF_TEXTS[at]);
        }
    }

    #[test]
    fn formats_belong_to_types() {
        for (kind, format, known) in [
            ("string", "date-time", true),
            ("", "k8s-short-name", true),
            ("string", "int32", false),
            ("integer", "int64", true),
            ("integer", "uint64", false),
            ("number", "double", true),
            ("object", "date", false),
        ] {
            assert_eq!(is_recognized(kind, format), known, "{kind} {format}");
        }
    }
}
