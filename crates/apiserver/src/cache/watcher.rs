//! Who watches what: watchers are found by the scope they asked for, so that an event costs a look-up and not a
//! walk over all watchers.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::selectors::{FieldSelector, LabelSelector};
use storage::Revision;
use tokio::sync::mpsc;

use super::entry::Entry;
use super::resource::{Change, ChangeSender};

/// How many events may wait for one watcher before it is ended as too slow.
const QUEUE: usize = 1024;

/// The part of a resource that a watch is about; the narrowest that its request allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    All,
    Namespace(String),
    /// One object by namespace (empty for cluster-scoped ones) and name.
    Object(String, String),
    /// Pods of a node.
    Node(String),
}

/// Which objects of the scope are shown.
#[derive(Clone, Default)]
pub struct Filter {
    pub namespace: Option<String>,
    pub labels: Option<LabelSelector>,
    pub fields: Option<FieldSelector>,
}

impl Filter {
    pub fn matches(&self, entry: &Entry) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| entry.namespace() == namespace)
            && self.labels.as_ref().is_none_or(|labels| labels.matches(entry.labels()))
            && self.fields.as_ref().is_none_or(|fields| fields.matches(|name| entry.field(name)))
    }

    /// The narrowest scope that holds everything this filter shows.
    pub fn scope(&self) -> Scope {
        let exact = |field: &str| self.fields.as_ref().and_then(|fields| fields.requires_exact_match(field));
        if let Some(node) = exact("spec.nodeName").filter(|node| !node.is_empty()) {
            return Scope::Node(node.to_owned());
        }
        let namespace = self.namespace.as_deref().or_else(|| exact("metadata.namespace"));
        match (namespace, exact("metadata.name")) {
            (namespace, Some(name)) => match namespace {
                Some(namespace) => Scope::Object(namespace.to_owned(), name.to_owned()),
                None => Scope::All,
            },
            (Some(namespace), None) => Scope::Namespace(namespace.to_owned()),
            (None, None) => Scope::All,
        }
    }
}

/// What an event means to one watcher.
pub enum Seen {
    Added(Arc<Entry>),
    Modified(Arc<Entry>),
    /// The object as it was when the watcher saw it last, at the revision at which it went out of sight.
    Deleted(Arc<Entry>),
}

impl Change {
    /// What this change means to who sees only what matches `filter`.
    pub fn seen_by(&self, filter: &Filter) -> Option<Seen> {
        let new = self.new.as_ref().filter(|entry| filter.matches(entry));
        let old = self.old.as_ref().filter(|entry| filter.matches(entry));
        match (old, new) {
            (None, Some(new)) => Some(Seen::Added(new.clone())),
            (Some(_), Some(new)) => Some(Seen::Modified(new.clone())),
            (Some(old), None) => Some(Seen::Deleted(match old.revision() == self.revision {
                true => old.clone(),
                false => old.deleted_at(self.revision),
            })),
            (None, None) => None,
        }
    }
}

/// Why a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The server let go: it stops, or the watcher was too slow.
    Closed,
}

/// The receiving end of a watch.
pub struct Watcher {
    pub filter: Filter,
    backlog: std::vec::IntoIter<Arc<Change>>,
    receiver: mpsc::Receiver<Arc<Change>>,
    seen: Revision,
}

impl Watcher {
    /// The next change after those already seen, whether or not the filter shows it.
    pub async fn next(&mut self) -> Result<Arc<Change>, WatchEnd> {
        loop {
            let change = match self.backlog.next() {
                Some(change) => change,
                None => self.receiver.recv().await.ok_or(WatchEnd::Closed)?,
            };
            if change.revision > self.seen {
                self.seen = change.revision;
                return Ok(change);
            }
        }
    }

    /// A change that is already there.
    pub fn try_next(&mut self) -> Option<Arc<Change>> {
        loop {
            let change = match self.backlog.next() {
                Some(change) => change,
                None => self.receiver.try_recv().ok()?,
            };
            if change.revision > self.seen {
                self.seen = change.revision;
                return Some(change);
            }
        }
    }

    /// Puts older changes, read from the store, in front.
    pub fn prepend(&mut self, older: Vec<Arc<Change>>, after: Revision) {
        let mut all = older;
        all.extend(self.backlog.by_ref());
        self.backlog = all.into_iter();
        self.seen = after;
    }
}

#[derive(Default)]
pub struct Watchers {
    by_scope: HashMap<Scope, Vec<ChangeSender>>,
}

impl Watchers {
    pub fn add(
        &mut self,
        scope: Scope,
        filter: Filter,
        backlog: Vec<Arc<Change>>,
        seen: Revision,
    ) -> Watcher {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.by_scope.entry(scope).or_default().push(sender);
        Watcher { filter, backlog: backlog.into_iter(), receiver, seen }
    }

    pub fn send(&mut self, change: &Arc<Change>) {
        for scope in scopes(change) {
            if let Some(senders) = self.by_scope.get_mut(&scope) {
                // one that is full is too slow, one that is closed is gone: both end here
                senders.retain(|sender| sender.try_send(change.clone()).is_ok());
                if senders.is_empty() {
                    self.by_scope.remove(&scope);
                }
            }
        }
    }

    pub fn end_all(&mut self) {
        self.by_scope.clear();
    }
}

/// All scopes that a change touches, each once: where the object is and where it was.
fn scopes(change: &Change) -> Vec<Scope> {
    let mut out = vec![Scope::All];
    for entry in [&change.new, &change.old].into_iter().flatten() {
        let mut add = |scope: Scope| {
            if !out.contains(&scope) {
                out.push(scope);
            }
        };
        if !entry.namespace().is_empty() {
            add(Scope::Namespace(entry.namespace().to_owned()));
        }
        add(Scope::Object(entry.namespace().to_owned(), entry.name().to_owned()));
        if let Some(node) = entry.field("spec.nodeName").filter(|node| !node.is_empty()) {
            add(Scope::Node(node.to_owned()));
        }
    }
    out
}
