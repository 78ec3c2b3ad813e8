//! URLs as Go's `net/url` takes them apart, as far as the checks of configuration files need it.

use apimachinery::field::quote;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url<'u> {
    pub scheme: String,
    pub user: Option<&'u str>,
    pub host: &'u str,
    pub query: &'u str,
    pub fragment: &'u str,
}

/// The error is the one of Go's `url.Parse`.
pub fn parse(text: &str) -> Result<Url<'_>, String> {
    let wrong = |why: &str| format!("parse {}: {why}", quote(text));
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err(wrong("net/url: invalid control character in URL"));
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, rest) = scheme(rest).map_err(|why| wrong(&why))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url { scheme, query, fragment, ..Url::default() };
    let Some(rest) = rest.strip_prefix("//") else { return Ok(url) };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            url.user = Some(user);
            host
        }
        None => authority,
    };
    check_host(host).map_err(|why| wrong(&why))?;
    url.host = host;
    Ok(url)
}

fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    match text.split('/').next().unwrap_or_default().contains(':') {
        true => Err("first path segment in URL cannot contain colon".into()),
        false => Ok((String::new(), text)),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("missing ']' in host")?,
        None => match host.find(':') {
            Some(at) => host.split_at(at),
            None => (host, ""),
        },
    };
    if let Some(bad) = name.chars().find(|c| " \"<>\\^`{}|".contains(*c)) {
        return Err(format!("invalid character {} in host name", quote(&bad.to_string())));
    }
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !port.is_empty() && (!port.starts_with(':') || !digits.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {} after host", quote(port)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_as_by_go() {
        let url = parse("HTTPS://u:p@h.example:8443/a/b?q=1#f").expect("a URL");
        assert_eq!(
            (url.scheme.as_str(), url.user, url.host, url.query, url.fragment),
            ("https", Some("u:p"), "h.example:8443", "q=1", "f")
        );
        assert_eq!(parse("https://[::1]:6443/x").expect("a URL").host, "[::1]:6443");
        assert_eq!(parse("kubernetes/serviceaccount").expect("a URL").scheme, "");
        for (text, why) in [
            ("https://a b", "invalid character \" \" in host name"),
            ("https://h:x", "invalid port \":x\" after host"),
            ("://h", "missing protocol scheme"),
            ("1a:b", "first path segment in URL cannot contain colon"),
            ("https://[::1", "missing ']' in host"),
        ] {
            assert_eq!(parse(text).expect_err("wrong"), format!("parse {text:?}: {why}"));
        }
        assert!(parse("https://h\n").expect_err("wrong").ends_with("invalid control character in URL"));
    }
}
