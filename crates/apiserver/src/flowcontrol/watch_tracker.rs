//! Counts open watches, for what writes cost their watchers.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::selectors::FieldSelector;
use parking_lot::Mutex;

use crate::http::request_info::{Query, RequestInfo};

/// Watches of the same objects, whatever they select of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watched {
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

#[derive(Default)]
pub struct WatchTracker {
    /// Locked for as long as it takes to count.
    counts: Mutex<HashMap<Watched, u32>>,
}

/// An open watch, until it is dropped.
pub struct Registration {
    tracker: Arc<WatchTracker>,
    /// Nothing for a watch that is not counted.
    watched: Option<Watched>,
}

impl WatchTracker {
    pub fn register(self: &Arc<Self>, info: &RequestInfo, query: &Query) -> Registration {
        let watched = (!is_indexed(info, query)).then(|| Watched {
            group: info.group.clone(),
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
        });
        if let Some(watched) = &watched {
            *self.counts.lock().entry(watched.clone()).or_default() += 1;
        }
        Registration { tracker: self.clone(), watched }
    }

    /// How many watches may see what a request writes.
    pub fn interested(&self, info: &RequestInfo) -> u32 {
        let mut watched = Watched {
            group: info.group.clone(),
            resource: info.resource.clone(),
            namespace: String::new(),
            name: String::new(),
        };
        let counts = self.counts.lock();
        let count = |watched: &Watched| counts.get(watched).copied().unwrap_or_default();
        let mut out = count(&watched);
        if !info.namespace.is_empty() {
            watched.namespace.clone_from(&info.namespace);
            out += count(&watched);
        }
        if !info.name.is_empty() {
            watched.name.clone_from(&info.name);
            out += count(&watched);
        }
        out
    }
}

/// Watches of one node's pods see few of all writes to pods, and are not counted.
fn is_indexed(info: &RequestInfo, query: &Query) -> bool {
    if info.resource != "pods" || query.text("fieldSelector").is_empty() {
        return false;
    }
    let selector = FieldSelector::parse(query.text("fieldSelector")).unwrap_or_default();
    selector.requires_exact_match("spec.nodeName").is_some_and(|node| !node.is_empty())
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(watched) = &self.watched else { return };
        let mut counts = self.tracker.counts.lock();
        if let Some(count) = counts.get_mut(watched) {
            *count -= 1;
            if *count == 0 {
                counts.remove(watched);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn watches_count_for_the_writes_they_see() {
        let tracker = Arc::<WatchTracker>::default();
        let parsed = |method: Method, uri: &str| {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let query = Query::parse(Some(query));
            (RequestInfo::parse(&method, path, &query), query)
        };
        let watch = |uri: &str| {
            let (info, query) = parsed(Method::GET, uri);
            tracker.register(&info, &query)
        };
        let open = [
            watch("/api/v1/pods?watch=1"),
            watch("/api/v1/namespaces/a/pods?watch=1"),
            watch("/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Dp"),
            watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn"),
            watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3D"),
            watch("/apis/apps/v1/deployments?watch=1"),
        ];
        let interested = |uri: &str| tracker.interested(&parsed(Method::PUT, uri).0);
        for (uri, count) in [
            ("/api/v1/namespaces/a/pods/p", 4),
            ("/api/v1/namespaces/a/pods/q", 3),
            ("/api/v1/namespaces/b/pods/p", 2),
            ("/apis/apps/v1/namespaces/a/deployments/d", 1),
            ("/api/v1/namespaces/a/secrets/s", 0),
        ] {
            assert_eq!(interested(uri), count, "{uri}");
        }
        drop(open);
        assert_eq!(interested("/api/v1/namespaces/a/pods/p"), 0);
        assert!(tracker.counts.lock().is_empty());
    }
}
