//! What a request is about, read off its method, path and query: upstream's `RequestInfo`.

use std::borrow::Cow;

use apimachinery::selectors::{FieldSelector, LabelSelector};
use apimachinery::validation::is_path_segment_name;
use http::Method;

/// The parsed path and verb of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the method in lower case for
    /// what is no resource.
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource, as in `proxy/a/b`.
    pub rest: String,
    /// What a list, a watch or a deletion of many is narrowed to. A selector that cannot be read is refused by the
    /// handler; until then it narrows nothing.
    pub field_selector: FieldSelector,
    pub label_selector: LabelSelector,
}

/// Query parameters, decoded, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A boolean as upstream's query decoding takes it: anything but `false`, in whatever case, and `0` is true, once
    /// it is there.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

/// Subresources of a namespace, which would otherwise read as resources within one.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: path.to_owned(), verb: method_verb(method), ..Self::default() };
        let parts: Vec<Cow<'_, str>> = path.trim_matches('/').split('/').map(percent_decode).collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let mut rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        let special = match rest {
            ["watch", _, ..] => Some("watch"),
            ["proxy", _, ..] => Some("proxy"),
            _ => None,
        };
        if let Some(verb) = special {
            info.verb = verb;
            rest = &rest[1..];
        }
        if let ["namespaces", namespace, tail @ ..] = rest {
            info.namespace = (*namespace).to_owned();
            match tail.first() {
                Some(first) if !NAMESPACE_SUBRESOURCES.contains(first) => rest = tail,
                _ => {}
            }
        }
        let at = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        (info.resource, info.name) = (at(0), at(1));
        if info.verb != "proxy" {
            info.subresource = at(2);
        }
        info.rest = rest.get(3..).map(|tail| tail.join("/")).unwrap_or_default();
        match info.verb {
            "get" if info.name.is_empty() => {
                info.verb = if query.flag("watch") { "watch" } else { "list" };
            }
            "delete" if info.name.is_empty() => info.verb = "deletecollection",
            _ => {}
        }
        // not where the path says that it is a watch: that of one object takes no selectors
        if special.is_none() && matches!(info.verb, "list" | "watch" | "deletecollection") {
            info.field_selector = FieldSelector::parse(query.text("fieldSelector")).unwrap_or_default();
            info.label_selector = LabelSelector::parse(query.text("labelSelector")).unwrap_or_default();
            // a list of one name is authorized by that name
            let name = info.field_selector.requires_exact_match("metadata.name");
            if let Some(name) =
                name.filter(|name| info.verb != "deletecollection" && is_path_segment_name(name).is_empty())
            {
                info.name = name.to_owned();
            }
        }
        info
    }

    /// Whether the request may take as long as it likes: watches and streams.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || self.is_resource
                && matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }
}

fn percent_decode(part: &str) -> Cow<'_, str> {
    if !part.contains('%') {
        return Cow::Borrowed(part);
    }
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> RequestInfo {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    #[test]
    fn paths_and_verbs() {
        // method, path -> verb, group/version, namespace, resource, name, subresource
        let cases = [
            (Method::GET, "/api/v1/nodes", "list", "/v1", "", "nodes", "", ""),
            (Method::GET, "/api/v1/nodes?watch=1", "watch", "/v1", "", "nodes", "", ""),
            (Method::GET, "/api/v1/watch/nodes", "watch", "/v1", "", "nodes", "", ""),
            (Method::GET, "/api/v1/namespaces/a", "get", "/v1", "a", "namespaces", "a", ""),
            (
                Method::PUT,
                "/api/v1/namespaces/a/finalize",
                "update",
                "/v1",
                "a",
                "namespaces",
                "a",
                "finalize",
            ),
            (Method::GET, "/api/v1/namespaces/a/pods", "list", "/v1", "a", "pods", "", ""),
            (
                Method::POST,
                "/api/v1/namespaces/a/pods/p/binding",
                "create",
                "/v1",
                "a",
                "pods",
                "p",
                "binding",
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection",
                "apps/v1",
                "a",
                "deployments",
                "",
                "",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch",
                "apps/v1",
                "a",
                "deployments",
                "d",
                "scale",
            ),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list", "/v1", "", "pods", "x", ""),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3D..", "list", "/v1", "", "pods", "", ""),
            (
                Method::GET,
                "/api/v1/pods?fieldSelector=metadata.name%3Da/b",
                "list",
                "/v1",
                "",
                "pods",
                "",
                "",
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx",
                "deletecollection",
                "/v1",
                "a",
                "pods",
                "",
                "",
            ),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/p", "watch", "/v1", "a", "pods", "p", ""),
            (
                Method::GET,
                "/api/v1/watch/pods?fieldSelector=metadata.name%3Dx",
                "watch",
                "/v1",
                "",
                "pods",
                "",
                "",
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/watch/deployments",
                "watch",
                "apps/v1",
                "",
                "deployments",
                "",
                "",
            ),
            (Method::POST, "/api/v1/proxy/nodes/n/a/b", "proxy", "/v1", "", "nodes", "n", ""),
        ];
        for (method, uri, verb, gv, namespace, resource, name, subresource) in cases {
            let info = parse(method, uri);
            assert!(info.is_resource, "{uri}");
            assert_eq!(
                (info.verb, format!("{}/{}", info.group, info.version).as_str(), info.namespace.as_str()),
                (verb, gv, namespace),
                "{uri}"
            );
            assert_eq!(
                (info.resource.as_str(), info.name.as_str(), info.subresource.as_str()),
                (resource, name, subresource),
                "{uri}"
            );
        }
        for path in ["/", "/api", "/api/v1", "/apis/apps/v1", "/version", "/readyz"] {
            let info = parse(Method::GET, path);
            assert!(!info.is_resource && info.verb == "get", "{path}");
        }
    }

    #[test]
    fn what_takes_many_is_narrowed_by_selectors() {
        let selectors = "fieldSelector=a%3D1&labelSelector=b%21%3D2";
        let cases = [
            (Method::GET, format!("/api/v1/pods?{selectors}"), ("a=1", "b!=2")),
            (Method::GET, format!("/api/v1/pods?watch=true&{selectors}"), ("a=1", "b!=2")),
            (Method::DELETE, format!("/api/v1/namespaces/a/pods?{selectors}"), ("a=1", "b!=2")),
            (Method::GET, "/api/v1/pods?fieldSelector=a&labelSelector=b%21%3D2".into(), ("", "b!=2")),
            (Method::GET, "/api/v1/pods?fieldSelector=a%3D1&labelSelector=%3D".into(), ("a=1", "")),
            (Method::GET, format!("/api/v1/namespaces/a/pods/p?{selectors}"), ("", "")),
            (Method::POST, format!("/api/v1/namespaces/a/pods?{selectors}"), ("", "")),
            (Method::GET, format!("/api/v1/watch/pods?{selectors}"), ("", "")),
            (Method::GET, format!("/version?{selectors}"), ("", "")),
        ];
        for (method, uri, wanted) in cases {
            let info = parse(method, &uri);
            let found = (info.field_selector.to_string(), info.label_selector.to_string());
            assert_eq!((found.0.as_str(), found.1.as_str()), wanted, "{uri}");
        }
    }
}
