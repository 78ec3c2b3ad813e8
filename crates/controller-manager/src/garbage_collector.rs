//! The garbage collector: objects whose owners are all gone go too, and an owner that is deleted in the foreground
//! or that leaves its dependents behind waits until that is done.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::runner::{self, Again};
use client::{Bare, Queue};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList, OwnerReference};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::Shared;

const WORKERS: usize = 10;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How long to wait before an owner that is not in the graph is asked for again.
const RECHECK: Duration = Duration::from_secs(2);

type Uid = String;

/// An object as far as ownership goes.
#[derive(Clone, Debug)]
struct Node {
    resource: Arc<ApiResource>,
    namespace: String,
    name: String,
    owners: Vec<OwnerReference>,
    finalizers: BTreeSet<String>,
    deleting: bool,
}

impl Node {
    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.finalizers.contains(FOREGROUND)
    }

    fn orphans(&self) -> bool {
        self.deleting && self.finalizers.contains(ORPHAN)
    }
}

/// All objects by uid and who depends on whom. Written by the watches, read by the workers.
#[derive(Default)]
struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
    /// Owners that the API said are gone.
    absent: HashSet<Uid>,
}

impl Graph {
    /// Puts an object in; gives back whose state may have changed with it.
    fn put(&mut self, uid: Uid, node: Node) -> Vec<Uid> {
        let mut touched = Vec::new();
        // most objects have no owner and stay: there is nothing to do about them
        if node.deleting || !node.owners.is_empty() {
            touched.push(uid.clone());
        }
        if let Some(old) = self.nodes.get(&uid).cloned() {
            for owner in &old.owners {
                match node.owners.iter().find(|own| own.uid == owner.uid) {
                    None => {
                        self.unlink(&owner.uid, &uid);
                        touched.push(owner.uid.clone());
                    }
                    // an owner that waited for this one may go
                    Some(own) if own.block_owner_deletion != owner.block_owner_deletion => {
                        touched.push(owner.uid.clone());
                    }
                    Some(_) => {}
                }
            }
            if !old.deleting && node.deleting {
                touched.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
            }
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        self.absent.remove(&uid);
        self.nodes.insert(uid, node);
        touched
    }

    fn remove(&mut self, uid: &str) -> Vec<Uid> {
        let Some(old) = self.nodes.remove(uid) else { return Vec::new() };
        let mut touched: Vec<Uid> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        self.absent.insert(uid.to_owned());
        for owner in &old.owners {
            self.unlink(&owner.uid, uid);
            touched.push(owner.uid.clone());
        }
        if self.absent.len() > 10_000 {
            self.absent.clear();
        }
        touched
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn dependents_of(&self, uid: &str) -> Vec<(Uid, Node)> {
        let dependents = self.dependents.get(uid).into_iter().flatten();
        dependents.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone()))).collect()
    }
}

/// What to do about an object.
#[derive(Debug, PartialEq)]
enum Action {
    Nothing,
    /// Ask the API whether these owners are there.
    LookUp(Vec<OwnerReference>),
    /// Everything that it depends on is gone or goes in the foreground.
    Delete {
        foreground: bool,
    },
    /// As a delete in the foreground, of an object whose dependents already wait for theirs: so that none in a circle
    /// waits for itself, its own owners no longer wait for it.
    UnblockAndDelete,
    /// Some owners are gone: only the others are left.
    DropOwners(Vec<Uid>),
    /// Its last blocking dependent is gone.
    RemoveFinalizer(&'static str),
    /// Its dependents lose it as owner first.
    OrphanDependents,
}

fn plan(graph: &Graph, uid: &str) -> Action {
    let Some(node) = graph.nodes.get(uid) else { return Action::Nothing };
    if node.orphans() {
        return match graph.dependents_of(uid).is_empty() {
            true => Action::RemoveFinalizer(ORPHAN),
            false => Action::OrphanDependents,
        };
    }
    if node.waits_for_dependents() {
        let blocked = graph.dependents_of(uid).iter().any(|(_, dependent)| {
            let reference = dependent.owners.iter().find(|owner| owner.uid == uid);
            reference.is_some_and(|owner| owner.block_owner_deletion == Some(true))
        });
        return if blocked { Action::Nothing } else { Action::RemoveFinalizer(FOREGROUND) };
    }
    if node.deleting || node.owners.is_empty() {
        return Action::Nothing;
    }
    let unknown: Vec<OwnerReference> = node
        .owners
        .iter()
        .filter(|owner| !graph.nodes.contains_key(&owner.uid) && !graph.absent.contains(&owner.uid))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Action::LookUp(unknown);
    }
    let (mut solid, mut gone, mut waiting) = (0, Vec::new(), Vec::new());
    for owner in &node.owners {
        match graph.nodes.get(&owner.uid) {
            None => gone.push(owner.uid.clone()),
            Some(owner_node) if owner_node.waits_for_dependents() => waiting.push(owner.uid.clone()),
            Some(_) => solid += 1,
        }
    }
    if solid > 0 {
        gone.extend(waiting);
        return if gone.is_empty() { Action::Nothing } else { Action::DropOwners(gone) };
    }
    let dependents = graph.dependents_of(uid);
    if !waiting.is_empty() && dependents.iter().any(|(_, dependent)| dependent.waits_for_dependents()) {
        return Action::UnblockAndDelete;
    }
    Action::Delete { foreground: !waiting.is_empty() && !dependents.is_empty() }
}

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    queue: Arc<Queue<Uid>>,
}

pub async fn run(_shared: Shared, client: Client, cancel: CancellationToken) {
    let queue: Arc<Queue<Uid>> = Arc::default();
    let collector =
        Arc::new(Collector { client: client.clone(), graph: Mutex::default(), queue: queue.clone() });
    let resources = loop {
        match discover(&client).await {
            Ok(resources) => break resources,
            Err(error) => {
                tracing::debug!(%error, "the garbage collector waits for discovery");
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(RECHECK) => {}
                }
            }
        }
    };
    for resource in resources {
        let (collector, cancel) = (collector.clone(), cancel.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = collector.follow(resource) => {}
            }
        });
    }
    runner::run("garbage-collector", queue, WORKERS, cancel, |uid| {
        let collector = collector.clone();
        async move { collector.reconcile(&uid).await }
    })
    .await;
}

/// All resources whose objects can be listed, watched and deleted, but for events, which own and are owned by
/// nothing.
pub(crate) async fn discover(client: &Client) -> Result<Vec<ApiResource>, kube::Error> {
    let get = |path: &str| http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError);
    let groups: APIGroupList = client.request(get("/apis")?).await?;
    let mut roots = vec![(String::new(), "v1".to_owned(), "/api/v1".to_owned())];
    for group in groups.groups {
        if let Some(version) = group.preferred_version.or_else(|| group.versions.first().cloned()) {
            let root = format!("/apis/{}", version.group_version);
            roots.push((group.name, version.version, root));
        }
    }
    let mut out = Vec::new();
    for (group, version, root) in roots {
        let list: APIResourceList = client.request(get(&root)?).await?;
        for resource in list.resources {
            let can = |verb: &str| resource.verbs.iter().any(|own| own == verb);
            if !can("list") || !can("watch") || !can("delete") || resource.name == "events" {
                continue;
            }
            let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            out.push(ApiResource {
                group: group.clone(),
                version: version.clone(),
                api_version,
                kind: resource.kind,
                plural: resource.name,
            });
        }
    }
    Ok(out)
}

impl Collector {
    /// Keeps the graph in step with one resource.
    async fn follow(&self, resource: ApiResource) {
        let resource = Arc::new(resource);
        let watch = watcher::watcher(Bare::all(&self.client, &resource), watcher::Config::default());
        let stream = watch.backoff(watcher::DefaultBackoff::default());
        let mut stream = std::pin::pin!(stream);
        let mut listed: HashSet<Uid> = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(object.metadata.uid.clone().unwrap_or_default());
                    self.put(&resource, object);
                }
                Ok(Event::InitDone) => {
                    let gone: Vec<Uid> = {
                        let graph = self.graph.lock();
                        let ours = graph.nodes.iter().filter(|(_, node)| node.resource == resource);
                        ours.map(|(uid, _)| uid.clone()).filter(|uid| !listed.contains(uid)).collect()
                    };
                    gone.iter().for_each(|uid| self.remove(uid));
                    listed = HashSet::new();
                }
                Ok(Event::Apply(object)) => self.put(&resource, object),
                Ok(Event::Delete(object)) => self.remove(object.metadata.uid.as_deref().unwrap_or_default()),
                Err(error) => {
                    tracing::debug!(resource = resource.plural, %error, "a watch broke off and is taken up again");
                }
            }
        }
    }

    fn put(&self, resource: &Arc<ApiResource>, object: Bare) {
        let meta = object.metadata;
        let node = Node {
            resource: resource.clone(),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            owners: meta.owner_references.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default().into_iter().collect(),
            deleting: meta.deletion_timestamp.is_some(),
        };
        let touched = self.graph.lock().put(meta.uid.unwrap_or_default(), node);
        touched.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn remove(&self, uid: &str) {
        let touched = self.graph.lock().remove(uid);
        touched.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn api(&self, node: &Node) -> Api<DynamicObject> {
        match node.namespace.as_str() {
            "" => Api::all_with(self.client.clone(), &*node.resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &*node.resource),
        }
    }

    async fn reconcile(&self, uid: &str) -> anyhow::Result<Again> {
        let (action, node) = {
            let graph = self.graph.lock();
            let Some(node) = graph.nodes.get(uid).cloned() else { return Ok(Again::OnChange) };
            (plan(&graph, uid), node)
        };
        match action {
            Action::Nothing => Ok(Again::OnChange),
            Action::LookUp(owners) => self.look_up(&node, owners).await,
            Action::Delete { foreground } => self.delete(uid, &node, foreground).await,
            Action::UnblockAndDelete => {
                let unblocked = node.owners.iter().cloned();
                let unblocked: Vec<_> = unblocked
                    .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner })
                    .collect();
                self.patch(uid, &node, json!({"ownerReferences": unblocked})).await?;
                self.delete(uid, &node, true).await
            }
            Action::DropOwners(gone) => {
                let kept: Vec<_> = node.owners.iter().filter(|owner| !gone.contains(&owner.uid)).collect();
                self.patch(uid, &node, json!({"ownerReferences": kept})).await
            }
            Action::RemoveFinalizer(finalizer) => {
                let kept: Vec<_> = node.finalizers.iter().filter(|own| *own != finalizer).collect();
                self.patch(uid, &node, json!({"finalizers": kept})).await
            }
            Action::OrphanDependents => {
                let dependents = self.graph.lock().dependents_of(uid);
                for (dependent_uid, dependent) in dependents {
                    let kept: Vec<_> = dependent.owners.iter().filter(|owner| owner.uid != uid).collect();
                    self.patch(&dependent_uid, &dependent, json!({"ownerReferences": kept})).await?;
                }
                // the dependents' events bring this owner back
                Ok(Again::After(RECHECK))
            }
        }
    }

    async fn delete(&self, uid: &str, node: &Node, foreground: bool) -> anyhow::Result<Again> {
        let mut params = if foreground { DeleteParams::foreground() } else { DeleteParams::background() };
        // the owner's orphaning, if it asked for any, has happened by now
        if node.finalizers.contains(ORPHAN) {
            params = DeleteParams::orphan();
        } else if node.finalizers.contains(FOREGROUND) {
            params = DeleteParams::foreground();
        }
        params.preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        tolerate(self.api(node).delete(&node.name, &params).await.map(drop))
    }

    async fn patch(&self, uid: &str, node: &Node, mut metadata: serde_json::Value) -> anyhow::Result<Again> {
        metadata["uid"] = json!(uid);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        tolerate(self.api(node).patch_metadata(&node.name, &PatchParams::default(), &patch).await.map(drop))
    }

    /// Asks whether owners that no watch has shown are there.
    async fn look_up(&self, node: &Node, owners: Vec<OwnerReference>) -> anyhow::Result<Again> {
        let mut again = Again::OnChange;
        for owner in owners {
            let resource = {
                let graph = self.graph.lock();
                let same = graph
                    .nodes
                    .values()
                    .find(|n| n.resource.kind == owner.kind && n.resource.api_version == owner.api_version);
                same.map(|n| (n.resource.clone(), !n.namespace.is_empty()))
            };
            // a kind of which there is no object at all has no such object either
            let found = match &resource {
                None => None,
                Some((resource, namespaced)) => {
                    let api: Api<DynamicObject> = match namespaced {
                        true => Api::namespaced_with(self.client.clone(), &node.namespace, &**resource),
                        false => Api::all_with(self.client.clone(), &**resource),
                    };
                    api.get_metadata_opt(&owner.name).await.context("looking for an owner")?
                }
            };
            match found {
                Some(object) if object.metadata.uid.as_deref() == Some(&owner.uid) => {
                    // it is there; its watch will show it
                    again = Again::After(RECHECK);
                }
                _ if resource.is_none() && !self.knows_kind(&owner).await? => {
                    // nobody serves the kind: nothing can be said of the owner
                }
                _ => {
                    self.graph.lock().absent.insert(owner.uid);
                    again = Again::After(Duration::from_millis(1));
                }
            }
        }
        Ok(again)
    }

    async fn knows_kind(&self, owner: &OwnerReference) -> anyhow::Result<bool> {
        let resources = discover(&self.client).await?;
        Ok(resources.iter().any(|r| r.kind == owner.kind && r.api_version == owner.api_version))
    }
}

/// What is gone or was made anew is not ours to change.
fn tolerate(outcome: Result<(), kube::Error>) -> anyhow::Result<Again> {
    match outcome {
        Ok(()) => Ok(Again::OnChange),
        Err(error) if client::is_not_found(&error) => Ok(Again::OnChange),
        // deletes and changes say it in two ways
        Err(kube::Error::Api(status))
            if ["the UID in the precondition", "UID in precondition"]
                .iter()
                .any(|why| status.message.contains(why)) =>
        {
            Ok(Again::OnChange)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(owners: &[(&str, bool)], finalizers: &[&str], deleting: bool) -> Node {
        let owners = owners.iter().map(|(uid, block)| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(*block),
            ..OwnerReference::default()
        });
        Node {
            resource: Arc::new(ApiResource {
                group: String::new(),
                version: "v1".into(),
                api_version: "v1".into(),
                kind: "K".into(),
                plural: "ks".into(),
            }),
            namespace: "ns".into(),
            name: "n".into(),
            owners: owners.collect(),
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
            deleting,
        }
    }

    #[test]
    fn dependents_follow_their_owners() {
        let mut graph = Graph::default();
        graph.put("owner".into(), node(&[], &[], false));
        graph.put("child".into(), node(&[("owner", true)], &[], false));
        assert_eq!(plan(&graph, "child"), Action::Nothing);
        let touched = graph.remove("owner");
        assert_eq!(touched, ["child"]);
        assert_eq!(plan(&graph, "child"), Action::Delete { foreground: false });
    }

    #[test]
    fn an_owner_deleted_in_the_foreground_waits() {
        let mut graph = Graph::default();
        graph.put("owner".into(), node(&[], &[FOREGROUND], true));
        graph.put("child".into(), node(&[("owner", true)], &[], false));
        assert_eq!(plan(&graph, "owner"), Action::Nothing);
        assert_eq!(plan(&graph, "child"), Action::Delete { foreground: false });
        graph.remove("child");
        assert_eq!(plan(&graph, "owner"), Action::RemoveFinalizer(FOREGROUND));
    }

    #[test]
    fn none_in_a_circle_waits_for_itself() {
        let mut graph = Graph::default();
        graph.put("a".into(), node(&[("c", true)], &[FOREGROUND], true));
        graph.put("b".into(), node(&[("a", true)], &[], false));
        graph.put("c".into(), node(&[("b", true)], &[], false));
        assert_eq!(plan(&graph, "b"), Action::Delete { foreground: true });
        graph.put("b".into(), node(&[("a", true)], &[FOREGROUND], true));
        assert_eq!(plan(&graph, "c"), Action::UnblockAndDelete);
        let touched = graph.put("c".into(), node(&[("b", false)], &[FOREGROUND], true));
        assert!(touched.contains(&"b".to_owned()));
        assert_eq!(plan(&graph, "b"), Action::RemoveFinalizer(FOREGROUND));
    }

    #[test]
    fn an_owner_that_orphans_lets_go_first() {
        let mut graph = Graph::default();
        graph.put("owner".into(), node(&[], &[ORPHAN], true));
        graph.put("child".into(), node(&[("owner", true)], &[], false));
        assert_eq!(plan(&graph, "owner"), Action::OrphanDependents);
        graph.put("child".into(), node(&[], &[], false));
        assert_eq!(plan(&graph, "owner"), Action::RemoveFinalizer(ORPHAN));
    }

    #[test]
    fn one_owner_of_two_is_enough() {
        let mut graph = Graph::default();
        graph.put("a".into(), node(&[], &[], false));
        graph.put("b".into(), node(&[], &[], false));
        graph.put("child".into(), node(&[("a", false), ("b", false)], &[], false));
        graph.remove("a");
        assert_eq!(plan(&graph, "child"), Action::DropOwners(vec!["a".into()]));
        graph.put("other".into(), node(&[("never seen", false)], &[], false));
        assert!(matches!(plan(&graph, "other"), Action::LookUp(owners) if owners.len() == 1));
    }
}
