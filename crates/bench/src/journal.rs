//! What a cluster has acknowledged while it is killed again and again, and whether it is all still there.
//!
//! Every write that was answered is kept by its object's path and the resourceVersion of the answer. Each collection that
//! is written to is watched from before its first write. At the end each object must be there in the last version that
//! was acknowledged or a later one, unless the watch saw it go, and the watch must have shown every acknowledged version,
//! once and in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::events::Lines;
use crate::target::{Protocol, Request, Target, refusal};

/// How long a watch may take to show what is there.
const CATCH_UP: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct Journal {
    collections: Mutex<HashMap<String, Watched>>,
    acknowledged: AtomicU64,
    verdict: Mutex<Verdict>,
}

/// What did not hold.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub lost: Vec<String>,
    pub missed: Vec<String>,
    /// How often a watch could not go on from where it broke off.
    pub relists: u64,
}

struct Watched {
    written: BTreeMap<String, Written>,
    seen: Arc<Mutex<Seen>>,
    watcher: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// The acknowledged writes of one object.
#[derive(Default)]
struct Written {
    versions: BTreeSet<u64>,
    /// Its deletion was the last that was acknowledged.
    deleted: bool,
}

/// What a watch has shown.
#[derive(Default)]
struct Seen {
    objects: HashMap<String, Vec<u64>>,
    gone: HashMap<String, u64>,
    /// Versions that a list stood for, since the watch could not be resumed: after the first, up to the second.
    gaps: Vec<(u64, u64)>,
    /// The newest version shown, of whichever object.
    newest: u64,
}

/// The path of the collection that a write goes to, and the name in it; a create's is in its answer.
fn place<'a>(method: &Method, path: &'a str) -> (String, Option<&'a str>) {
    let path = path.split('?').next().unwrap_or_default();
    if *method == Method::POST {
        return (path.to_owned(), None);
    }
    // /api/v1 or /apis/group/version, then perhaps namespaces and a name, then the resource, a name and a subresource
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let root = if parts.first() == Some(&"api") { 2 } else { 3 };
    let scoped = parts.get(root) == Some(&"namespaces") && parts.len() > root + 2;
    let resource = if scoped { root + 2 } else { root };
    let end = parts.len().min(resource + 1);
    (format!("/{}", parts[..end].join("/")), parts.get(resource + 1).copied())
}

impl Journal {
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub fn verdict(&self) -> Verdict {
        self.verdict.lock().clone()
    }

    pub fn relisted(&self) {
        self.verdict.lock().relists += 1;
    }

    /// Watches what is about to be written to, unless it is watched already.
    pub async fn expect(&self, target: &Target, method: &Method, path: &str) -> anyhow::Result<()> {
        let (collection, name) = place(method, path);
        let whole = *method == Method::DELETE && name.is_none();
        if whole || self.collections.lock().contains_key(&collection) {
            return Ok(());
        }
        let version = target.current_version(&collection).await?;
        self.collections
            .lock()
            .entry(collection)
            .or_insert_with_key(|path| watch(target, path.clone(), version));
        Ok(())
    }

    /// Keeps a write that was answered.
    pub fn acknowledge(&self, method: &Method, path: &str, body: &[u8]) -> anyhow::Result<()> {
        let answer: Value = serde_json::from_slice(body).context("an answer that is no JSON")?;
        let (collection, name) = place(method, path);
        let mut collections = self.collections.lock();
        let Some(name) = name.or_else(|| answer["metadata"]["name"].as_str()) else {
            // a whole collection was deleted
            collections.remove(&collection);
            return Ok(());
        };
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let Some(watched) = collections.get_mut(&collection) else { return Ok(()) };
        let written = watched.written.entry(name.to_owned()).or_default();
        match version_of(&answer) {
            _ if *method == Method::DELETE => written.deleted = true,
            Some(version) => {
                written.versions.insert(version);
                written.deleted = false;
            }
            None => {}
        }
        Ok(())
    }

    /// Compares what was acknowledged with what is there and what the watches have shown, and forgets it.
    pub async fn verify(&self, target: &Target) -> anyhow::Result<()> {
        let collections = std::mem::take(&mut *self.collections.lock());
        for (collection, watched) in collections {
            let there = list(target, &collection).await?;
            let newest = there.values().copied().max().unwrap_or_default();
            let begun = Instant::now();
            while !caught_up(&watched, newest) && begun.elapsed() < CATCH_UP {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let seen = watched.seen.lock();
            let (lost, missed) = compare(&collection, &watched.written, &there, &seen);
            let mut verdict = self.verdict.lock();
            verdict.lost.extend(lost);
            verdict.missed.extend(missed);
            verdict.relists += seen.gaps.len() as u64;
        }
        Ok(())
    }
}

fn caught_up(watched: &Watched, newest: u64) -> bool {
    let seen = watched.seen.lock();
    let written = watched.written.values().filter_map(|written| written.versions.last()).max();
    seen.newest >= newest.max(written.copied().unwrap_or_default())
}

fn compare(
    collection: &str,
    written: &BTreeMap<String, Written>,
    there: &HashMap<String, u64>,
    seen: &Seen,
) -> (Vec<String>, Vec<String>) {
    let (mut lost, mut missed) = (Vec::new(), Vec::new());
    for (name, written) in written {
        let Some(last) = written.versions.last() else { continue };
        let what = format!("{collection}/{name}");
        match there.get(name) {
            _ if written.deleted => {}
            Some(stored) if stored >= last => {}
            Some(stored) => lost.push(format!("{what}: version {last} was acknowledged, {stored} is there")),
            None if seen.gone.get(name).is_some_and(|gone| gone > last) => {}
            None => lost.push(format!("{what}: version {last} was acknowledged, nothing is there")),
        }
        let shown = seen.objects.get(name).map(Vec::as_slice).unwrap_or_default();
        let covered = |version: &u64| seen.gaps.iter().any(|(after, to)| version > after && version <= to);
        let unseen = written.versions.iter().filter(|version| !shown.contains(version) && !covered(version));
        missed.extend(unseen.map(|version| format!("{what}: version {version} was never shown")));
        let repeated = shown.windows(2).filter(|pair| pair[0] >= pair[1]);
        missed.extend(repeated.map(|pair| format!("{what}: {} was shown after {}", pair[1], pair[0])));
    }
    (lost, missed)
}

fn version_of(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// The names and versions of all that is in a collection.
async fn list(target: &Target, collection: &str) -> anyhow::Result<HashMap<String, u64>> {
    let mut connection = target.connect(Protocol::Http1).await?;
    let (status, body) = connection.send(Request::get(collection)).await?;
    if !status.is_success() {
        anyhow::bail!("{collection}: {}", refusal(status, &body));
    }
    let list: Value = serde_json::from_slice(&body)?;
    let items = list["items"].as_array().context("a list without items")?;
    Ok(items
        .iter()
        .filter_map(|item| Some((item["metadata"]["name"].as_str()?.to_owned(), version_of(item)?)))
        .collect())
}

fn watch(target: &Target, collection: String, after: u64) -> Watched {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (target, shared) = (target.clone(), seen.clone());
    let watcher = tokio::spawn(async move {
        let mut from = after;
        // whatever ends it, it goes on from the last version; what it missed by that shows in the end
        loop {
            if let Err(error) = follow(&target, &collection, &mut from, &shared).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if error.downcast_ref::<Gone>().is_none() {
                    continue;
                }
                if let Ok(version) = target.current_version(&collection).await {
                    let mut seen = shared.lock();
                    seen.gaps.push((from, version));
                    seen.newest = seen.newest.max(version);
                    from = version;
                }
            }
        }
    });
    Watched { written: BTreeMap::new(), seen, watcher }
}

/// A watch cannot be resumed: the server no longer has the events.
#[derive(Debug, thiserror::Error)]
#[error("the server no longer has the events since version {0}")]
pub struct Gone(pub String);

async fn follow(target: &Target, collection: &str, from: &mut u64, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let mut lines = Lines::open(target, collection, "", &from.to_string()).await?;
    loop {
        for line in lines.next().await?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line)?;
            let (object, kind) = (&event["object"], &event["type"]);
            if kind == "ERROR" && object["code"] == StatusCode::GONE.as_u16() {
                return Err(Gone(from.to_string()).into());
            }
            let (Some(name), Some(version)) = (object["metadata"]["name"].as_str(), version_of(object))
            else {
                anyhow::bail!("an event that is none: {}", object["message"]);
            };
            let mut seen = seen.lock();
            seen.objects.entry(name.to_owned()).or_default().push(version);
            if kind == "DELETED" {
                seen.gone.insert(name.to_owned(), version);
            }
            seen.newest = seen.newest.max(version);
            *from = version;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_kept_by_the_place_of_their_object() {
        let cases = [
            (Method::POST, "/api/v1/namespaces/n/configmaps?x=1", "/api/v1/namespaces/n/configmaps", None),
            (Method::PUT, "/api/v1/namespaces/n/configmaps/b", "/api/v1/namespaces/n/configmaps", Some("b")),
            (Method::PATCH, "/api/v1/nodes/b/status?force=true", "/api/v1/nodes", Some("b")),
            (Method::DELETE, "/api/v1/namespaces/n", "/api/v1/namespaces", Some("n")),
            (Method::PUT, "/apis/g/v1/namespaces/n/leases/l", "/apis/g/v1/namespaces/n/leases", Some("l")),
            (Method::DELETE, "/api/v1/nodes?labelSelector=a", "/api/v1/nodes", None),
        ];
        for (method, path, collection, name) in cases {
            assert_eq!(place(&method, path), (collection.to_owned(), name), "{path}");
        }
    }

    #[test]
    fn what_is_lost_and_what_was_not_shown_is_found() {
        let written =
            |versions: &[u64], deleted| Written { versions: versions.iter().copied().collect(), deleted };
        let all = BTreeMap::from([
            ("kept".to_owned(), written(&[1, 5], false)),
            ("later".to_owned(), written(&[2], false)),
            ("back".to_owned(), written(&[3, 6], false)),
            ("gone".to_owned(), written(&[4], false)),
            ("deleted".to_owned(), written(&[7], true)),
            ("evicted".to_owned(), written(&[8], false)),
            ("unseen".to_owned(), written(&[9], false)),
            ("listed".to_owned(), written(&[20], false)),
            ("twice".to_owned(), written(&[12], false)),
        ]);
        let there = [("kept", 5), ("later", 11), ("back", 3), ("unseen", 9), ("listed", 20), ("twice", 12)];
        let there = there.map(|(name, version)| (name.to_owned(), version)).into();
        let shown: [(&str, &[u64]); 8] = [
            ("kept", &[1, 5]),
            ("later", &[2, 11]),
            ("back", &[3, 6]),
            ("gone", &[4]),
            ("deleted", &[7]),
            ("evicted", &[8, 10]),
            ("listed", &[]),
            ("twice", &[12, 12]),
        ];
        let seen = Seen {
            objects: shown.map(|(name, all)| (name.to_owned(), all.to_vec())).into(),
            gone: [("evicted".to_owned(), 10)].into(),
            gaps: vec![(19, 20)],
            newest: 20,
        };
        let (lost, missed) = compare("/c", &all, &there, &seen);
        assert_eq!(
            lost,
            [
                "/c/back: version 6 was acknowledged, 3 is there",
                "/c/gone: version 4 was acknowledged, nothing is there",
            ]
        );
        assert_eq!(missed, ["/c/twice: 12 was shown after 12", "/c/unseen: version 9 was never shown"]);
    }
}
