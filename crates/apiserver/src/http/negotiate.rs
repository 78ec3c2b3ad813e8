//! Which format a body is in and which one its answer takes.

use apimachinery::Status;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn parse(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json" => Some(Self::Json),
            "application/yaml" => Some(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// What an object or list is turned into before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    Itself,
    Table,
    PartialObjectMetadata,
    PartialObjectMetadataList,
}

/// The answer a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub format: Format,
    pub r#as: As,
    pub pretty: bool,
}

/// What an answer may be.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// A watch, event by event.
    pub stream: bool,
    /// There are columns to show it in.
    pub tables: bool,
}

/// The formats that answers can take, for the error that names them.
pub const SUPPORTED: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// The formats of watches, for the same.
const STREAMED: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// One of the media types that a client takes.
pub struct Clause<'a> {
    pub media_type: &'a str,
    pub parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn format(&self) -> Option<Format> {
        match self.media_type {
            "*/*" | "application/*" => Some(Format::Json),
            media_type => Format::parse(media_type),
        }
    }
}

/// What a client says it takes: anything, where it says nothing.
pub fn accept(headers: &HeaderMap) -> &str {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.is_empty() { "*/*" } else { accept }
}

/// The media types of `Accept`, the best first.
pub fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut out: Vec<Clause<'_>> = accept
        .split(',')
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media_type = parts.next().filter(|text| !text.is_empty())?;
            let parameters: Vec<(&str, &str)> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
                .collect();
            let quality = parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, q)| q.parse().ok());
            Some(Clause { media_type, parameters, quality: quality.unwrap_or(1.0) })
        })
        .collect();
    // a stable sort: of equals, the first wins
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    out
}

/// The first clause of `Accept` that can be served. Where no clause can, 406.
/// Tables come in JSON and YAML, and only of what can be shown as one.
pub fn accepted(headers: &HeaderMap, pretty: Option<&str>, asked: Asked) -> Result<Accepted, Status> {
    let pretty = is_pretty(headers, pretty);
    for clause in clauses(accept(headers)) {
        let Some(format) = clause.format() else { continue };
        let parameter = |name: &str| clause.parameter(name);
        let r#as = match (parameter("as"), parameter("g"), parameter("v")) {
            (None, ..) => As::Itself,
            (Some("Table"), ..) if !asked.tables || format == Format::Protobuf => continue,
            (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => As::Table,
            (Some("PartialObjectMetadata"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => {
                As::PartialObjectMetadata
            }
            (Some("PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => {
                As::PartialObjectMetadataList
            }
            _ => continue,
        };
        // a watch of YAML documents is not a thing
        if asked.stream && format == Format::Yaml {
            break;
        }
        return Ok(Accepted { format, r#as, pretty });
    }
    Err(not_acceptable(if asked.stream { &STREAMED } else { &SUPPORTED }))
}

/// The format of an answer that comes in one shape alone.
pub fn plain(headers: &HeaderMap, pretty: Option<&str>) -> Result<Accepted, Status> {
    let mut clauses = clauses(accept(headers)).into_iter().filter(|clause| clause.parameter("as").is_none());
    let format = clauses.find_map(|clause| clause.format()).ok_or_else(|| not_acceptable(&SUPPORTED))?;
    Ok(Accepted { format, r#as: As::Itself, pretty: is_pretty(headers, pretty) })
}

fn not_acceptable(accepted: &[&str]) -> Status {
    Status::not_acceptable(format!("only the following media types are accepted: {}", accepted.join(", ")))
}

fn is_pretty(headers: &HeaderMap, asked: Option<&str>) -> bool {
    match asked {
        None | Some("") => is_browser_or_curl(headers),
        Some(value) => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

fn is_browser_or_curl(headers: &HeaderMap) -> bool {
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    agent.is_some_and(|agent| ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name)))
}

/// The format of a request body; without a content type it is JSON.
pub fn content(headers: &HeaderMap) -> Result<Format, Status> {
    let media_type = media_type(headers);
    if media_type.is_empty() {
        return Ok(Format::Json);
    }
    let parameters = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // as in Go, nothing may be among the parameters that is none, but for a semicolon too many
    let well_formed = |part: &str| part.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty());
    let mut parts = parameters.split(';').skip(1).map(str::trim);
    let well_formed = parts.all(|part| part.is_empty() || well_formed(part));
    Format::parse(media_type).filter(|_| well_formed).ok_or_else(|| unsupported(&SUPPORTED))
}

/// The media type of a body without its parameters.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

pub fn unsupported(accepted: &[&str]) -> Status {
    Status::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_clause_that_can_be_served_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let cases = [
            ("*/*", Some((Format::Json, As::Itself))),
            (kubectl, Some((Format::Json, As::Table))),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Format::Protobuf, As::Itself))),
            ("application/json;q=0.5, application/yaml", Some((Format::Yaml, As::Itself))),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
            ("application/cbor", None),
            ("text/html", None),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            let got = accepted(&headers, None, Asked { stream: false, tables: true })
                .ok()
                .map(|a| (a.format, a.r#as));
            assert_eq!(got, expected, "{accept}");
        }
    }

    #[test]
    fn watches_and_what_has_one_shape() {
        let headers = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            headers
        };
        let watch = |accept| accepted(&headers(accept), None, Asked { stream: true, tables: true });
        assert_eq!(watch("application/json").map(|a| a.format), Ok(Format::Json));
        for accept in ["application/yaml", "application/yaml,application/json", "text/html"] {
            assert_eq!(
                watch(accept).unwrap_err().message,
                "only the following media types are accepted: application/json;stream=watch, \
                 application/vnd.kubernetes.protobuf;stream=watch"
            );
        }
        let one = |accept| plain(&headers(accept), None).map(|a| a.format).ok();
        assert_eq!(one("application/json;as=Table;v=v1;g=meta.k8s.io,application/yaml"), Some(Format::Yaml));
        assert_eq!(one("application/json;as=Table;v=v1;g=meta.k8s.io"), None);
        assert_eq!(one("application/vnd.kubernetes.protobuf"), Some(Format::Protobuf));
        assert_eq!(one(""), Some(Format::Json));
        for (asked, pretty) in [("1", true), ("true", true), ("yes", false), ("0", false), ("", false)] {
            assert_eq!(plain(&headers("*/*"), Some(asked)).unwrap().pretty, pretty, "{asked}");
        }
    }
}
