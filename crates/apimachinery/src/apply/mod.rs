//! Server-side apply (KEP-555): field ownership, merging, conflicts.
//!
//! Objects are never converted between versions here: managers that wrote another version of a type are taken
//! to own fields of the same paths in this one.

mod compare;
mod filter;
mod managed;
mod scale;
mod set;
mod typed;

use std::collections::btree_map::Entry as Slot;
use std::sync::LazyLock;

use serde_json::{Map, Value};

pub use filter::Filter;
pub use scale::{managers_from_scale, managers_to_scale};
pub use set::{FieldSet, PathElement, Scalar};

use crate::codec;
use crate::group::GroupVersion;
use crate::object::Object;
use crate::schema::{Kind, Schema};
use crate::status::{Reason, Status};
use crate::time::Time;
use crate::validation::TOTAL_ANNOTATION_SIZE_LIMIT;
use compare::{Comparison, compare, equal, merge};
use managed::{Conflicts, Entry, Manager, Managers, Operation, conflict_status, decode, encode, is_reset};
use typed::{Node, field_set, is_outdated, reconcile, remove, with_named_fields};

/// The annotation in which client-side `kubectl apply` keeps what it applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How many managers of updates an object keeps; the oldest are merged into one.
const MAX_UPDATE_MANAGERS: usize = 10;
const OLD_UPDATES: &str = "ancient-changes";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Metadata that nobody owns.
fn never_owned() -> &'static FieldSet {
    static SET: LazyLock<FieldSet> = LazyLock::new(|| {
        FieldSet::of_fields(&[
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ])
    });
    &SET
}

/// What stays the same while one request is worked on.
struct Operator<'a> {
    node: Node<'a>,
    api_version: &'a str,
    subresource: &'a str,
    now: Time,
    /// Which fields writes to this endpoint can change, so that somebody gets to own them by it.
    filter: Option<&'a Filter>,
}

/// Applies a configuration (as the user wrote it, not normalised) to a live object, or creates one.
///
/// The result is normal but not defaulted. Without `force`, fields that others own and that would change are a
/// conflict (409). `now` is noted with the manager when the object changes.
pub fn apply(
    live: Option<&Object>,
    applied: &Object,
    schema: &Schema,
    manager: &str,
    force: bool,
    now: Time,
    subresource: &str,
    filter: Option<&Filter>,
) -> Result<Object, Status> {
    if let Some(live) = live.filter(|live| !live.kind().is_empty())
        && (live.kind(), live.api_version()) != (applied.kind(), applied.api_version())
    {
        let gvk = GroupVersion::parse(applied.api_version()).unwrap_or_default().with_kind(applied.kind());
        return Err(Status::bad_request(format!("invalid object type: {gvk}")));
    }
    if applied.get(&["metadata", "managedFields"]).is_some_and(|fields| !fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let kind = Kind::Foreign(schema.clone());
    let operator = Operator {
        node: Node::root(schema.view(), &kind),
        api_version: applied.api_version(),
        subresource,
        now,
        filter,
    };
    operator.validate(applied)?;
    let empty = empty_object(applied, schema);
    let live = live.unwrap_or(&empty);
    let mut managers = decode(live).map_err(|error| {
        Status::new(500, Reason::Unknown, format!("failed to decode managed fields: {error}"))
    })?;
    let mut live = live.clone();
    live.remove(&["metadata", "managedFields"]);
    if managers.is_empty() {
        operator.update(&empty, &live, &mut managers, BEFORE_FIRST_APPLY);
    }
    let outcome = operator.apply_or_upgrade(&live, applied, managers, manager, force);
    let (merged, managers) = outcome.map_err(|conflicts| conflict_status(&conflicts))?;
    let mut object = merged.unwrap_or(live);
    if manager == "kubectl" {
        sync_last_applied(&mut object, applied);
    }
    codec::normalize(&mut object, schema).map_err(|error| {
        Status::new(
            500,
            Reason::Unknown,
            format!("failed to convert new object ({}): {error}", name_of(applied)),
        )
    })?;
    encode(&mut object, &managers);
    Ok(object)
}

/// Notes in a written object who wrote what, for writes that are not applies. The object's own `managedFields`
/// replace those of the live one where they are valid; one empty entry forgets all managers.
pub fn update(
    live: Option<&Object>,
    new: Object,
    schema: &Schema,
    manager: &str,
    now: Time,
    subresource: &str,
    filter: Option<&Filter>,
) -> Object {
    let mut new = new;
    let live_managers = || live.and_then(|live| decode(live).ok()).unwrap_or_default();
    let mut managers = if !subresource.is_empty() {
        live_managers()
    } else if is_reset(&new) {
        Managers::new()
    } else {
        decode(&new).ok().filter(|managers| !managers.is_empty()).unwrap_or_else(live_managers)
    };
    new.remove(&["metadata", "managedFields"]);
    let kind = Kind::Foreign(schema.clone());
    let api_version = new.api_version().to_owned();
    let operator = Operator {
        node: Node::root(schema.view(), &kind),
        api_version: &api_version,
        subresource,
        now,
        filter,
    };
    let created = live.is_none_or(|live| live.uid().is_empty());
    // Objects from before managers were noted start with the first apply.
    if created || !managers.is_empty() {
        let empty;
        let live = match live {
            Some(live) => live,
            None => {
                empty = empty_object(&new, schema);
                &empty
            }
        };
        operator.update(live, &new, &mut managers, manager);
        cap_updates(&mut managers);
    }
    encode(&mut new, &managers);
    new
}

/// Whether two objects differ in nothing but when their managers last wrote.
pub fn same_but_for_times(new: &Object, old: &Object) -> bool {
    let same_managers = |new: &Value, old: &Value| match (new.as_array(), old.as_array()) {
        (Some(new), Some(old)) => {
            new.len() == old.len()
                && new.iter().zip(old).all(|(new, old)| same_maps(new, old, &|key, _, _| key == "time"))
        }
        _ => new == old,
    };
    let same_metadata = |new: &Value, old: &Value| {
        same_maps(new, old, &|key, new, old| key == "managedFields" && same_managers(new, old))
    };
    same_maps(new.as_value(), old.as_value(), &|key, new, old| key == "metadata" && same_metadata(new, old))
}

/// Whether two maps have the same members; `excuse` may say so of members that differ.
fn same_maps(new: &Value, old: &Value, excuse: &dyn Fn(&str, &Value, &Value) -> bool) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    new.len() == old.len()
        && new
            .iter()
            .zip(old)
            .all(|((key, new), (other, old))| key == other && (new == old || excuse(key, new, old)))
}

/// What is wrong with the `managedFields` of an object, if anything.
pub fn validate_managed_fields(object: &Object) -> Result<(), String> {
    decode(object).map(|_| ())
}

/// The object that a create starts from.
fn empty_object(like: &Object, schema: &Schema) -> Object {
    let zero = if schema.is_unstructured() { Value::Object(Map::new()) } else { schema.view().zero_object() };
    let mut object = Object::from(zero);
    object.set(&["kind"], like.kind());
    object.set(&["apiVersion"], like.api_version());
    object
}

/// `namespace/name; group/version, Kind=kind`
fn name_of(object: &Object) -> String {
    let gvk = GroupVersion::parse(object.api_version()).unwrap_or_default().with_kind(object.kind());
    format!("{}/{}; {gvk}", object.namespace(), object.name())
}

/// Keeps the annotation of client-side apply in step for those who go back and forth.
fn sync_last_applied(object: &mut Object, applied: &Object) {
    if object.annotation(LAST_APPLIED).is_none_or(str::is_empty) {
        return;
    }
    let mut config = applied.clone();
    config.remove(&["metadata", "annotations", LAST_APPLIED]);
    let mut text = Vec::new();
    codec::write_any(config.as_value(), &mut text);
    text.push(b'\n');
    let text = String::from_utf8(text).unwrap_or_default();
    let others = object.annotations().into_iter().flatten().filter(|(key, _)| *key != LAST_APPLIED);
    let size: usize = others.map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum();
    if size + LAST_APPLIED.len() + text.len() > TOTAL_ANNOTATION_SIZE_LIMIT {
        object.remove(&["metadata", "annotations", LAST_APPLIED]);
    } else {
        object.set(&["metadata", "annotations", LAST_APPLIED], text);
    }
}

/// Merges the oldest updates of a version until there are few enough.
fn cap_updates(managers: &mut Managers) {
    let updates = managers.iter().filter(|(manager, _)| manager.operation == Operation::Update);
    let mut oldest: Vec<(i64, Manager)> = updates
        .map(|(manager, entry)| (entry.time.map_or(0, |time| time.timestamp()), manager.clone()))
        .collect();
    oldest.sort();
    let mut count = oldest.len();
    let mut firsts: Vec<(String, Manager)> = Vec::new();
    for (_, manager) in oldest {
        if count <= MAX_UPDATE_MANAGERS {
            break;
        }
        let version = manager.api_version.clone();
        let Some((_, first)) = firsts.iter().find(|(of, _)| *of == version) else {
            firsts.push((version, manager));
            continue;
        };
        let bucket = Manager::new(OLD_UPDATES, Operation::Update, &version, "");
        if !managers.contains_key(&bucket)
            && let Some(entry) = managers.remove(first)
        {
            managers.insert(bucket.clone(), entry);
        }
        if let Some(entry) = managers.remove(&manager)
            && let Some(merged) = managers.get_mut(&bucket)
        {
            merged.extend(entry.set());
            merged.time = entry.time;
        }
        count -= 1;
    }
}

impl Operator<'_> {
    fn validate(&self, applied: &Object) -> Result<(), Status> {
        let mut errors = Vec::new();
        typed::validate(applied.as_value(), self.node, &mut errors);
        let text = match errors.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            some => format!("errors:\n  {}", some.join("\n  ")),
        };
        let message = format!("failed to create typed patch object ({}): {text}", name_of(applied));
        Err(Status::new(500, Reason::Unknown, message))
    }

    fn compare(&self, old: &Object, new: &Object) -> Comparison {
        compare(old.as_value(), new.as_value(), self.node)
    }

    fn reconcile(&self, managers: &mut Managers) {
        for entry in managers.values_mut().filter(|entry| is_outdated(entry.set(), self.node)) {
            entry.replace(reconcile(entry.set(), self.node));
        }
    }

    /// Takes changed and removed fields from all managers but one; without `force`, changed ones are conflicts.
    fn take(
        &self,
        comparison: &Comparison,
        managers: &mut Managers,
        this: Option<&Manager>,
        force: bool,
    ) -> Result<(), Conflicts> {
        let mut conflicts = Conflicts::new();
        for (manager, entry) in managers.iter_mut().filter(|(manager, _)| Some(*manager) != this) {
            let taken = entry.set().intersection(&comparison.modified);
            let taken = taken.union(&entry.set().intersection(&comparison.added));
            if !taken.is_empty() && !force {
                conflicts.extend(taken.paths().into_iter().map(|path| (manager.clone(), path)));
                continue;
            }
            let lost = taken.union(&entry.set().intersection(&comparison.removed));
            if !lost.is_empty() {
                entry.replace(entry.set().clone().difference(&lost));
            }
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        managers.retain(|_, entry| !entry.set().is_empty());
        Ok(())
    }

    /// Gives a manager what an update changed.
    fn update(&self, live: &Object, new: &Object, managers: &mut Managers, name: &str) {
        self.reconcile(managers);
        let comparison = self.compare(live, new).filtered(self.filter);
        // Nothing is a conflict for an update.
        let _ = self.take(&comparison, managers, None, true);
        let changed = comparison.added.union(&comparison.modified).difference(never_owned());
        if changed.is_empty() {
            return;
        }
        let manager = Manager::new(name, Operation::Update, self.api_version, self.subresource);
        match managers.entry(manager) {
            Slot::Vacant(slot) => drop(slot.insert(Entry::new(changed, self.api_version, Some(self.now)))),
            Slot::Occupied(mut slot) => {
                slot.get_mut().extend(&changed);
                slot.get_mut().time = Some(self.now);
            }
        }
    }

    /// Applies; conflicts with what `kubectl` itself applied from the client side are none.
    fn apply_or_upgrade(
        &self,
        live: &Object,
        applied: &Object,
        managers: Managers,
        name: &str,
        force: bool,
    ) -> Result<(Option<Object>, Managers), Conflicts> {
        let conflicts = match self.apply(live, applied, managers.clone(), name, force) {
            Err(conflicts) if name == "kubectl" => conflicts,
            outcome => return outcome,
        };
        let Some(own) = self.last_applied_set(live) else { return Err(conflicts) };
        let rest: Conflicts = conflicts.into_iter().filter(|(_, path)| !own.has(path)).collect();
        if rest.is_empty() { self.apply(live, applied, managers, name, true) } else { Err(rest) }
    }

    /// The fields of the last client-side apply that still have its values.
    fn last_applied_set(&self, live: &Object) -> Option<FieldSet> {
        let text = live.annotation(LAST_APPLIED).filter(|text| !text.is_empty())?;
        let last = Object::from(codec::parse_json(text.as_bytes()).ok()?);
        if last.api_version() != self.api_version {
            return None;
        }
        let mut errors = Vec::new();
        typed::validate(last.as_value(), self.node, &mut errors);
        if !errors.is_empty() {
            return None;
        }
        let (_, set) = field_set(last.as_value(), self.node);
        let comparison = self.compare(&last, live);
        Some(
            set.difference(&comparison.modified)
                .difference(&comparison.added)
                .difference(&comparison.removed),
        )
    }

    /// Merges, prunes and settles ownership. `None` for the object: it stays as it is.
    fn apply(
        &self,
        live: &Object,
        applied: &Object,
        mut managers: Managers,
        name: &str,
        force: bool,
    ) -> Result<(Option<Object>, Managers), Conflicts> {
        self.reconcile(&mut managers);
        let manager = Manager::new(name, Operation::Apply, self.api_version, self.subresource);
        let merged = merge(live.as_value(), applied.as_value(), self.node);
        let (_, mut set) = field_set(applied.as_value(), self.node);
        if let Some(filter) = self.filter {
            set = filter.apply(set);
        }
        let last = managers.get(&manager).cloned();
        let time = last.as_ref().and_then(|entry| entry.time);
        managers.insert(manager.clone(), Entry::new(set, self.api_version, time));
        let merged = match last.filter(|entry| !entry.set().is_empty()) {
            Some(last) => self.prune(merged, &managers, last.set()),
            None => merged,
        };
        let merged = Object::from(merged);
        let comparison = self.compare(live, &merged).filtered(self.filter);
        self.take(&comparison, &mut managers, Some(&manager), force)?;
        let changed = !equal(live.as_value(), merged.as_value());
        if let Some(entry) = managers.get_mut(&manager) {
            entry.replace(entry.set().clone().difference(never_owned()));
            if changed {
                entry.time = Some(self.now);
            }
        }
        managers.retain(|_, entry| !entry.set().is_empty());
        Ok((changed.then_some(merged), managers))
    }

    /// Removes what the manager applied last time and not this time, unless somebody else owns it.
    fn prune(&self, merged: Value, managers: &Managers, last: &FieldSet) -> Value {
        let node = self.node;
        let named = |set: &FieldSet| with_named_fields(set, Some(node));
        let fields = |value: &Value| named(&field_set(value, node).1);
        let last = named(last);
        let merged_set = fields(&merged);
        let pruned = remove(&merged, &last, node);
        // Put back what is owned, by whoever, and then what this manager never owned.
        let mut owned = FieldSet::default();
        managers.values().for_each(|entry| owned.extend(entry.set()));
        let keep = fields(&pruned).union(&named(&owned));
        let pruned = remove(&merged, &merged_set.clone().difference(&keep), node);
        let gone = merged_set.difference(&fields(&pruned)).intersection(&last);
        remove(&merged, &gone, node)
    }
}
