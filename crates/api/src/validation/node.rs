//! Nodes: taints, ranges of pod addresses, resources.

use std::cmp::Ordering;

use apimachinery::Object;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use super::at::At;
use super::pod::taint_effect;
use super::resources::quantity_value;
use super::value::go_struct;

pub fn node(node: &Object) -> ErrorList {
    let mut errors = taints(node);
    errors.extend(resources(node));
    errors.extend(swap(node));
    errors.extend(declared_features(node));
    errors.extend(pod_cidrs(node));
    errors
}

/// Upstream names it as if it stood in the metadata.
fn swap(node: &Object) -> Option<Error> {
    let capacity = At::of(node, &["status", "nodeInfo", "swap", "capacity"]);
    let capacity = At::new(capacity.value, Path::new("metadata").child("nodeSwapStatus").child("capacity"));
    let wrong = capacity.int().is_some_and(|bytes| bytes <= 0);
    wrong.then(|| capacity.invalid("must be greater than zero"))
}

/// Names of features in order, each once.
fn declared_features(node: &Object) -> ErrorList {
    let features = At::of(node, &["status", "declaredFeatures"]);
    let mut errors = ErrorList::new();
    let mut before: Option<&str> = None;
    for feature in features.items() {
        match before.map(|before| before.cmp(feature.str())) {
            Some(Ordering::Equal) => errors.push(feature.duplicate()),
            Some(Ordering::Greater) => errors.push(feature.invalid("list must be sorted alphabetically")),
            _ => {}
        }
        errors.extend(feature.follows(feature_name));
        before = Some(feature.str());
    }
    errors
}

/// What is wrong with `MyFeature` or `MyFeature/mySubFeature`.
fn feature_name(name: &str) -> Vec<String> {
    const MAX: usize = 253;
    let why = if name.len() > MAX {
        format!("must be no more than {MAX} characters")
    } else {
        let mut segments = name.split('/');
        let upper = segments.next().is_some_and(|first| first.starts_with(|c: char| c.is_ascii_uppercase()));
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        if upper && name.split('/').all(word) {
            return Vec::new();
        }
        "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes".to_owned()
    };
    vec![format!("invalid feature name {name:?}: {why}")]
}

/// Upstream names them as if they stood in the metadata.
fn taints(node: &Object) -> ErrorList {
    let taints = At::of(node, &["spec", "taints"]);
    let taints = At::new(taints.value, Path::new("metadata").child("taints"));
    let mut errors = ErrorList::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.child("key"), taint.child("value"), taint.child("effect"));
        errors.extend(key.qualified_name());
        let messages = names::is_valid_label_value(value.str());
        if !messages.is_empty() {
            errors.push(value.invalid(messages.join(";")));
        }
        errors.extend(if effect.is_empty() { effect.must_be_set() } else { taint_effect(&effect) });
        let (key, effect) = (key.str(), effect.str());
        if seen.contains(&(key, effect)) {
            let shown = go_struct(&[
                ("Key", key.into()),
                ("Value", value.str().into()),
                ("Effect", effect.into()),
                ("TimeAdded", taint.child("timeAdded").value.clone()),
            ]);
            let mut error = taint.duplicate().showing(shown);
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
            continue;
        }
        seen.push((key, effect));
    }
    errors
}

fn resources(node: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = At::of(node, &["status"]);
    for amounts in ["capacity", "allocatable"].map(|part| status.child(part)) {
        for (name, amount) in amounts.entries() {
            errors.extend(quantity_value(name, &At::new(amount.value, amounts.path.child(name))));
        }
    }
    errors
}

fn pod_cidrs(node: &Object) -> ErrorList {
    let ranges = At::of(node, &["spec", "podCIDRs"]);
    let mut errors: ErrorList = ranges.items().flat_map(|range| range.cidr(&[])).collect();
    if ranges.len() < 2 {
        return errors;
    }
    let family = |range: At<'_>| Some(names::Cidr::parse_sloppy(range.str())?.0.is_ipv4());
    let mut families: Vec<bool> = ranges.items().filter_map(family).collect();
    families.sort_unstable();
    if families.len() != ranges.len() {
        // what is no range has no family
        let why = "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR address";
        errors.push(Error::internal(&ranges.path, why));
    }
    if ranges.len() > 2 || families != [false, true] {
        errors.push(ranges.invalid("may specify no more than one CIDR for each IP family"));
    }
    errors
}

pub fn node_update(new: &Object, old: &Object) -> ErrorList {
    let (spec, before) = (At::of(new, &["spec"]), At::of(old, &["spec"]));
    let status = At::of(new, &["status"]);
    let mut errors = resources(new);
    errors.extend(declared_features(new));
    let addresses = status.child("addresses");
    for (index, address) in addresses.items().enumerate() {
        if addresses.list()[..index].contains(address.value) {
            let (kind, text) = (address.text("type"), address.text("address"));
            let shown = go_struct(&[("Type", kind.into()), ("Address", text.into())]);
            errors.push(address.duplicate().showing(shown));
        }
    }
    let (ranges, old_ranges) = (spec.child("podCIDRs"), before.child("podCIDRs"));
    if !old_ranges.is_empty() {
        let changed = match old_ranges.len() == ranges.len() {
            false => 1,
            true => old_ranges.list().iter().zip(ranges.list()).filter(|(was, is)| was != is).count(),
        };
        let why = "node updates may not change podCIDR except from \"\" to valid";
        errors.extend((0..changed).map(|_| ranges.forbidden(why)));
    }
    let provider = spec.child("providerID");
    if before.says("providerID") && before.text("providerID") != provider.str() {
        errors.push(provider.forbidden("node updates may not change providerID except from \"\" to valid"));
    }
    if let Some(source) = spec.field("configSource") {
        errors.extend(config_source(&source, false));
    }
    for key in ["assigned", "active", "lastKnownGood"] {
        if let Some(source) = status.child("config").field(key) {
            errors.extend(config_source(&source, true));
        }
    }
    errors.extend(taints(new));
    if spec.text("externalID") != before.text("externalID") {
        errors.push(spec.child("externalID").forbidden("may not be updated"));
    }
    errors
}

/// A field of old that nobody reads; the rules are still there.
fn config_source(source: &At<'_>, of_status: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(map) = source.field("configMap") else {
        return vec![source.invalid("exactly one reference subfield must be non-nil")];
    };
    for key in ["uid", "resourceVersion"] {
        let field = map.child(key);
        if of_status && field.is_empty() {
            errors.push(field.required(""));
        } else if !of_status && !field.is_empty() {
            errors.push(field.forbidden(format!("{key} must not be set in spec")));
        }
    }
    let rules: [(&str, fn(&str) -> Vec<String>); 3] = [
        ("namespace", names::is_dns1123_label),
        ("name", names::is_dns1123_subdomain),
        ("kubeletConfigKey", names::is_config_map_key),
    ];
    for (key, rule) in rules {
        let field = map.child(key);
        errors.extend(if field.is_empty() { field.must_be_set() } else { field.follows(rule) });
    }
    errors
}
