//! URLs as Go's `net/url` reads them, with its words where it refuses one.

use apimachinery::field::quote;

/// The parts of a URL, as far as they are judged. What is escaped stays so.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Url<'a> {
    pub scheme: String,
    pub user: Option<&'a str>,
    pub host: &'a str,
    pub query: &'a str,
    pub fragment: &'a str,
}

/// A URL, which may be relative and have a fragment.
pub fn parse(raw: &str) -> Result<Url<'_>, String> {
    let (whole, fragment) = raw.split_once('#').unwrap_or((raw, ""));
    let refuse = |url: &str, why: String| format!("parse {}: {why}", quote(url));
    let url = read(whole, false).map_err(|why| refuse(whole, why))?;
    unescapes(fragment).map_err(|why| refuse(raw, why))?;
    Ok(Url { fragment, ..url })
}

/// A URL as a request has it: absolute, or an absolute path.
pub fn parse_request(raw: &str) -> Result<Url<'_>, String> {
    read(raw, true).map_err(|why| format!("parse {}: {why}", quote(raw)))
}

fn read(raw: &str, of_request: bool) -> Result<Url<'_>, String> {
    if raw.bytes().any(|b| b.is_ascii_control()) {
        return Err("net/url: invalid control character in URL".into());
    }
    if raw.is_empty() && of_request {
        return Err("empty url".into());
    }
    if raw == "*" {
        return Ok(Url::default());
    }
    let (scheme, rest) = scheme(raw)?;
    let mut url = Url { scheme: scheme.to_lowercase(), ..Url::default() };
    let (mut rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    url.query = query;
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            return Ok(url);
        }
        if of_request {
            return Err("invalid URI for request".into());
        }
        if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err("first path segment in URL cannot contain colon".into());
        }
    }
    let may_have_host = !scheme.is_empty() || (!of_request && !rest.starts_with("///"));
    if let Some(after) = rest.strip_prefix("//").filter(|_| may_have_host) {
        let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
        rest = path;
        (url.user, url.host) = self::authority(authority)?;
    }
    unescapes(rest)?;
    Ok(url)
}

fn scheme(raw: &str) -> Result<(&str, &str), String> {
    for (index, c) in raw.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if index > 0 => {}
            ':' if index == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((&raw[..index], &raw[index + 1..])),
            _ => break,
        }
    }
    Ok(("", raw))
}

fn authority(authority: &str) -> Result<(Option<&str>, &str), String> {
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    self::host(host)?;
    if let Some(user) = user {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
        if !user.chars().all(fits) {
            return Err("net/url: invalid userinfo".into());
        }
        unescapes(user)?;
    }
    Ok((user, host))
}

fn host(host: &str) -> Result<(), String> {
    let port = if host.starts_with('[') {
        let end = host.rfind(']').ok_or("missing ']' in host")?;
        &host[end + 1..]
    } else {
        host.rfind(':').map_or("", |colon| &host[colon..])
    };
    let digits = port.strip_prefix(':');
    if !(port.is_empty() || digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))) {
        return Err(format!("invalid port {} after host", quote(port)));
    }
    // what is behind a zone's `%25` may escape more
    let zone =
        host.starts_with('[').then(|| host.rfind(']').and_then(|end| host[..end].find("%25"))).flatten();
    let (name, zone) = host.split_at(zone.unwrap_or(host.len()));
    let fits = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "!$&'()*+,;=:[]<>\"-_.~".contains(c);
    for (part, in_zone) in [(name, false), (zone, true)] {
        for (at, c) in part.char_indices() {
            if c != '%' && !fits(c) {
                return Err(format!("invalid character {} in host name", quote(&c.to_string())));
            }
            if c != '%' {
                continue;
            }
            let value = escaped(part, at)?;
            let may_be =
                value == b'%' || if in_zone { value == b' ' || fits(value.into()) } else { value >= 0x80 };
            if !may_be {
                return Err(not_escaped(part, at));
            }
        }
    }
    Ok(())
}

/// Whether every escape in a part is one.
fn unescapes(part: &str) -> Result<(), String> {
    part.match_indices('%').try_for_each(|(at, _)| escaped(part, at).map(|_| ()))
}

/// The byte that the escape at a place stands for.
fn escaped(part: &str, at: usize) -> Result<u8, String> {
    let digits = part.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(|| not_escaped(part, at))
}

/// Shows the three bytes of what is no escape, of which the last may be the first of a character.
fn not_escaped(part: &str, at: usize) -> String {
    let bytes = &part.as_bytes()[at..part.len().min(at + 3)];
    let whole = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let mut shown = quote(whole);
    if let Some(cut) = bytes.get(whole.len()..).filter(|cut| !cut.is_empty()) {
        shown.pop();
        shown.extend(cut.iter().map(|b| format!("\\x{b:02x}")));
        shown.push('"');
    }
    format!("invalid URL escape {shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let url = parse("HTTPS://me:pw@host:443/path?q#f").unwrap();
        let expected =
            Url { scheme: "https".into(), user: Some("me:pw"), host: "host:443", query: "q", fragment: "f" };
        assert_eq!(url, expected);
        assert_eq!(parse("host:8080/path").unwrap().scheme, "host");
        for relative in ["", "path", "/path", "//host/path", "https:opaque"] {
            assert!(parse(relative).is_ok(), "{relative}");
        }
    }

    #[test]
    fn what_is_no_url() {
        let cases = [
            ("https://host\n", "parse \"https://host\\n\": net/url: invalid control character in URL"),
            (":80", "parse \":80\": missing protocol scheme"),
            ("1:80", "parse \"1:80\": first path segment in URL cannot contain colon"),
            ("https://host:a/b", "parse \"https://host:a/b\": invalid port \":a\" after host"),
            ("https://a b", "parse \"https://a b\": invalid character \" \" in host name"),
            ("https://[::1", "parse \"https://[::1\": missing ']' in host"),
            ("https://host/%zz1", "parse \"https://host/%zz1\": invalid URL escape \"%zz\""),
            ("https://host/%1", "parse \"https://host/%1\": invalid URL escape \"%1\""),
            ("https://host/%é", "parse \"https://host/%é\": invalid URL escape \"%é\""),
            ("https://host/%1é", "parse \"https://host/%1é\": invalid URL escape \"%1\\xc3\""),
            ("https://h%41", "parse \"https://h%41\": invalid URL escape \"%41\""),
            ("https://^%zz", "parse \"https://^%zz\": invalid character \"^\" in host name"),
            ("https://a{b@host", "parse \"https://a{b@host\": net/url: invalid userinfo"),
        ];
        for (raw, why) in cases {
            assert_eq!(parse(raw), Err(why.to_owned()), "{raw}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in r"(https:)?(//)?(\PC|[:/?#@%\[\]]){0,20}") {
            let _ = (parse(&text), parse_request(&text));
        }
    }

    #[test]
    fn urls_of_requests() {
        for (raw, fine) in [
            ("https://host/path", true),
            ("/path", true),
            ("urn:isbn:1", true),
            ("*", true),
            ("", false),
            ("path", false),
            ("host name", false),
        ] {
            assert_eq!(parse_request(raw).is_ok(), fine, "{raw}");
        }
    }
}
