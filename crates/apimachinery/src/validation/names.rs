//! Forms of names. Each function returns what is wrong, in upstream's words; nothing means valid.

pub const DNS1123_LABEL_MAX_LENGTH: usize = 63;
pub const DNS1123_SUBDOMAIN_MAX_LENGTH: usize = 253;
pub const LABEL_VALUE_MAX_LENGTH: usize = 63;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
     or '-', and must start and end with an alphanumeric character";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1123_SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
     characters, '-' or '.', and must start and end with an alphanumeric character";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const DNS1035_LABEL_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
     start with an alphabetic character, and end with an alphanumeric character";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
     '-', '_' or '.', and must start and end with an alphanumeric character";

/// What a name is refused for.
pub type Messages = Vec<String>;

/// A name rule: the name, and whether it is only the beginning of one (`generateName`).
pub type NameFn<'a> = &'a dyn Fn(&str, bool) -> Messages;

pub fn max_len_error(length: usize) -> String {
    format!("must be no more than {length} characters")
}

fn max_bytes_error(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

pub fn inclusive_range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

fn collect<const N: usize>(checks: [(bool, &dyn Fn() -> String); N]) -> Messages {
    checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, message)| message()).collect()
}

fn all(text: &str, extra: &[u8]) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || extra.contains(&b))
}

fn label_shape(text: &str) -> bool {
    all(text, b"-") && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

fn subdomain_shape(text: &str) -> bool {
    text.split('.').all(label_shape)
}

fn label_key_shape(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().copied().all(inner)
}

pub fn is_dns1123_label(value: &str) -> Messages {
    collect([
        (value.len() > DNS1123_LABEL_MAX_LENGTH, &|| max_len_error(DNS1123_LABEL_MAX_LENGTH)),
        (!label_shape(value), &|| {
            if subdomain_shape(value) {
                "must not contain dots".to_owned()
            } else {
                regex_error(DNS1123_LABEL_MESSAGE, DNS1123_LABEL, &["my-name", "123-abc"])
            }
        }),
    ])
}

pub fn is_dns1123_subdomain(value: &str) -> Messages {
    collect([
        (value.len() > DNS1123_SUBDOMAIN_MAX_LENGTH, &|| max_len_error(DNS1123_SUBDOMAIN_MAX_LENGTH)),
        (!subdomain_shape(value), &|| {
            regex_error(DNS1123_SUBDOMAIN_MESSAGE, DNS1123_SUBDOMAIN, &["example.com"])
        }),
    ])
}

/// As [`is_dns1123_subdomain`], for search domains, whose labels may have underscores.
pub fn is_dns1123_subdomain_with_underscore(value: &str) -> Messages {
    const LABEL: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    const MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', \
         '-' or '.', and must start and end with an alphanumeric character";
    let label = |text: &str| {
        let text = text.strip_prefix('_').unwrap_or(text);
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(text.bytes().next()) && edge(text.bytes().last()) && all(text, b"-_")
    };
    collect([
        (value.len() > DNS1123_SUBDOMAIN_MAX_LENGTH, &|| max_len_error(DNS1123_SUBDOMAIN_MAX_LENGTH)),
        (!value.split('.').all(label), &|| {
            regex_error(MESSAGE, &format!(r"{LABEL}(\.{LABEL})*"), &["example.com"])
        }),
    ])
}

pub fn is_wildcard_dns1123_subdomain(value: &str) -> Messages {
    const MESSAGE: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, \
         which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
    collect([
        (value.len() > DNS1123_SUBDOMAIN_MAX_LENGTH, &|| max_len_error(DNS1123_SUBDOMAIN_MAX_LENGTH)),
        (!value.strip_prefix("*.").is_some_and(subdomain_shape), &|| {
            regex_error(MESSAGE, &format!(r"\*\.{DNS1123_SUBDOMAIN}"), &["*.example.com"])
        }),
    ])
}

pub fn is_dns1035_label(value: &str) -> Messages {
    collect([
        (value.len() > DNS1123_LABEL_MAX_LENGTH, &|| max_len_error(DNS1123_LABEL_MAX_LENGTH)),
        (!label_shape(value) || value.starts_with(|c: char| c.is_ascii_digit()), &|| {
            regex_error(DNS1035_LABEL_MESSAGE, DNS1035_LABEL, &["my-name", "abc-123"])
        }),
    ])
}

/// A label key: a name, with an optional domain in front of a slash.
pub fn is_qualified_name(value: &str) -> Messages {
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let error = || regex_error(LABEL_KEY_MESSAGE, LABEL_KEY, EXAMPLES);
    let mut parts = value.split('/');
    let mut messages = Messages::new();
    let name = match (parts.next().unwrap_or_default(), parts.next(), parts.next()) {
        (name, None, _) => name,
        (prefix, Some(name), None) => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_owned());
            } else {
                if prefix.len() > DNS1123_SUBDOMAIN_MAX_LENGTH {
                    messages.push(format!("prefix part {}", max_bytes_error(DNS1123_SUBDOMAIN_MAX_LENGTH)));
                }
                if !subdomain_shape(prefix) {
                    let error = regex_error(DNS1123_SUBDOMAIN_MESSAGE, DNS1123_SUBDOMAIN, &["example.com"]);
                    messages.push(format!("prefix part {error}"));
                }
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                error()
            )];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        messages.push(format!("name part {}", max_bytes_error(63)));
    }
    if !label_key_shape(name) {
        messages.push(format!("name part {}", error()));
    }
    messages
}

pub fn is_valid_label_value(value: &str) -> Messages {
    collect([
        (value.len() > LABEL_VALUE_MAX_LENGTH, &|| max_bytes_error(LABEL_VALUE_MAX_LENGTH)),
        (!value.is_empty() && !label_key_shape(value), &|| {
            regex_error(LABEL_VALUE_MESSAGE, &format!("({LABEL_KEY})?"), &["MyValue", "my_value", "12345"])
        }),
    ])
}

pub fn is_c_identifier(value: &str) -> Messages {
    const MESSAGE: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
         alphanumeric characters or '_'";
    let shape = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    collect([(!shape, &|| regex_error(MESSAGE, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"]))])
}

/// What an environment variable may be called since `RelaxedEnvironmentVariableValidation`.
pub fn is_relaxed_env_var_name(value: &str) -> Messages {
    const MESSAGE: &str =
        "a valid environment variable name must consist only of printable ASCII characters other than '='";
    let printable = value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    collect([
        (value.is_empty(), &|| "environment variable name must be non-empty".to_owned()),
        (!printable, &|| MESSAGE.to_owned()),
    ])
}

pub fn is_env_var_name(value: &str) -> Messages {
    const MESSAGE: &str = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', \
         or '.', and must not start with a digit";
    let shape = !value.is_empty()
        && !value.starts_with(|c: char| c.is_ascii_digit())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let mut messages = collect([(!shape, &|| {
        regex_error(MESSAGE, "[-._a-zA-Z][-._a-zA-Z0-9]*", &["my.env-name", "MY_ENV.NAME", "MyEnvName1"])
    })]);
    messages.extend(has_ch_dir_prefix(value));
    messages
}

/// A key of a ConfigMap or a Secret.
pub fn is_config_map_key(value: &str) -> Messages {
    const MESSAGE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
    let shape = !value.is_empty()
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let mut messages = collect([
        (value.len() > DNS1123_SUBDOMAIN_MAX_LENGTH, &|| max_len_error(DNS1123_SUBDOMAIN_MAX_LENGTH)),
        (!shape, &|| regex_error(MESSAGE, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"])),
    ]);
    messages.extend(has_ch_dir_prefix(value));
    messages
}

fn has_ch_dir_prefix(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

pub fn is_valid_port_num(port: i64) -> Messages {
    is_in_range(port, 1, 65535)
}

pub fn is_in_range(value: i64, low: i64, high: i64) -> Messages {
    collect([(!(low..=high).contains(&value), &|| inclusive_range_error(low, high))])
}

pub fn is_valid_port_name(port: &str) -> Messages {
    let owned = |text: &'static str| move || text.to_owned();
    collect([
        (port.len() > 15, &|| max_len_error(15)),
        (
            port.is_empty() || !all(port, b"-"),
            &owned("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
        ),
        (!port.bytes().any(|b| b.is_ascii_lowercase()), &owned("must contain at least one letter (a-z)")),
        (port.contains("--"), &owned("must not contain consecutive hyphens")),
        (port.starts_with('-') || port.ends_with('-'), &owned("must not begin or end with a hyphen")),
    ])
}

pub fn is_valid_percent(percent: &str) -> Messages {
    let digits = percent.strip_suffix('%').unwrap_or_default();
    let shape = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    collect([(!shape, &|| {
        let message = "a valid percent string must be a numeric string followed by an ending '%'";
        regex_error(message, "[0-9]+%", &["1%", "93%"])
    })])
}

pub fn is_http_header_name(value: &str) -> Messages {
    let shape = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    collect([(!shape, &|| {
        let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
        regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"])
    })])
}

/// Names that only have to fit into a URL path.
pub fn is_path_segment_name(name: &str) -> Messages {
    match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => is_path_segment_prefix(name),
    }
}

pub fn is_path_segment_prefix(name: &str) -> Messages {
    ["/", "%"].into_iter().filter(|c| name.contains(c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A dash at the end of a `generateName` is fine: something follows it.
fn mask_trailing_dash(name: &str, prefix: bool) -> String {
    match name.strip_suffix('-') {
        Some(rest) if prefix && !rest.is_empty() => {
            let mut chars = rest.chars();
            chars.next_back();
            format!("{}a", chars.as_str())
        }
        _ => name.to_owned(),
    }
}

pub fn name_is_dns_subdomain(name: &str, prefix: bool) -> Messages {
    is_dns1123_subdomain(&mask_trailing_dash(name, prefix))
}

pub fn name_is_dns_label(name: &str, prefix: bool) -> Messages {
    is_dns1123_label(&mask_trailing_dash(name, prefix))
}

pub fn name_is_dns1035_label(name: &str, prefix: bool) -> Messages {
    is_dns1035_label(&mask_trailing_dash(name, prefix))
}

pub fn name_is_path_segment(name: &str, prefix: bool) -> Messages {
    if prefix { is_path_segment_prefix(name) } else { is_path_segment_name(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Messages, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(rule(name), Messages::new(), "{name:?}");
        }
        for name in bad {
            assert_ne!(rule(name), Messages::new(), "{name:?}");
        }
    }

    #[test]
    fn forms() {
        let long = "a".repeat(64);
        check(is_dns1123_label, &["a", "0", "a-b", "a--b"], &["", "-a", "a-", "A", "a.b", "a_b", &long, "é"]);
        check(is_dns1123_subdomain, &["a.b", "0.0", &long], &["", ".", "a..b", "a.", "A.b", "a.-b"]);
        check(is_dns1035_label, &["a1"], &["1a", "", "a-"]);
        check(
            is_qualified_name,
            &["simple", "1.2", "a_b-c.D", "example.com/Name"],
            &["", "/n", "p/", "a/b/c", "UP/n", "-a", &long],
        );
        check(is_valid_label_value, &["", "A.b_c-1"], &["-a", "a b", &long, "a/b"]);
        check(is_c_identifier, &["_a1", "A"], &["", "1a", "a-b"]);
        check(is_env_var_name, &["A.b-c", "_"], &["1a", "", "..a", "a=b"]);
        check(is_relaxed_env_var_name, &["1a", "a b", "*"], &["", "a=b", "é", "\n"]);
        check(is_config_map_key, &["a.b", ".a"], &["", ".", "..", "..a", "a/b"]);
        check(is_valid_port_name, &["http", "p-1"], &["", "1", "a--b", "-a", "a-", "A", "abcdefghijklmnop"]);
        check(is_valid_percent, &["1%"], &["%", "1", "a%", ""]);
        check(is_path_segment_name, &["a:b", "A"], &[".", "..", "a/b", "a%b"]);
        check(is_wildcard_dns1123_subdomain, &["*.a.b"], &["*", "*.", "a.*"]);
        assert_eq!(name_is_dns_label("my-", true), Messages::new());
        assert_ne!(name_is_dns_label("my-", false), Messages::new());
    }

    #[test]
    fn messages_read_as_upstream() {
        assert_eq!(
            is_dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
              start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
              validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(is_dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(is_valid_port_num(0), ["must be between 1 and 65535, inclusive"]);
    }
}
