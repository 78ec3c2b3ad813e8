//! Nodes: taints, ranges of pod addresses, resources.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::pod::taint_effect;
use super::resources::quantity_value;
use super::value::{entries, field, go_struct, invalid, showing, strings, text};

pub fn node(node: &Object) -> ErrorList {
    let mut errors = taints(node);
    errors.extend(resources(node));
    errors.extend(pod_cidrs(node));
    errors
}

/// Upstream names them as if they stood in the metadata.
fn taints(node: &Object) -> ErrorList {
    let path = Path::new("metadata").child("taints");
    let mut errors = ErrorList::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in node.get_array(&["spec", "taints"]).iter().enumerate() {
        let at = path.index(index);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.extend(names::validate_label_name(key, &at.child("key")));
        let messages = names::is_valid_label_value(value);
        if !messages.is_empty() {
            errors.push(Error::invalid(&at.child("value"), value, messages.join(";")));
        }
        match effect {
            "" => errors.push(Error::required(&at.child("effect"), "")),
            effect => errors.extend(taint_effect(effect, &at.child("effect"))),
        }
        if seen.contains(&(key, effect)) {
            let time = taint.get("timeAdded").cloned().unwrap_or_default();
            let shown = go_struct(&[
                ("Key", key.into()),
                ("Value", value.into()),
                ("Effect", effect.into()),
                ("TimeAdded", time),
            ]);
            let mut error = showing(Error::duplicate(&at, Value::Null), shown);
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
    let Some(status) = node.get(&["status"]) else { return errors };
    for part in ["capacity", "allocatable"] {
        for (name, value) in entries(status, part) {
            errors.extend(quantity_value(name, value, &Path::new("status").child(part).child(name)));
        }
    }
    errors
}

fn pod_cidrs(node: &Object) -> ErrorList {
    let path = Path::new("spec").child("podCIDRs");
    let ranges = node.get_array(&["spec", "podCIDRs"]);
    let texts: Vec<&str> = ranges.iter().map(|range| range.as_str().unwrap_or_default()).collect();
    let mut errors = ErrorList::new();
    for (index, range) in texts.iter().enumerate() {
        errors.extend(names::is_valid_cidr_for_legacy_field(&path.index(index), range, &[]));
    }
    if texts.len() < 2 {
        return errors;
    }
    let mut families: Vec<bool> =
        texts.iter().filter_map(|range| Some(names::Cidr::parse_sloppy(range)?.0.is_ipv4())).collect();
    families.sort_unstable();
    if families.len() != texts.len() {
        // what is no range has no family
        let why = "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR address";
        errors.push(Error::internal(&path, why));
    }
    if texts.len() > 2 || families != [false, true] {
        let why = "may specify no more than one CIDR for each IP family";
        errors.push(Error::invalid(&path, ranges.to_vec(), why));
    }
    for (index, range) in texts.iter().enumerate().filter(|(index, range)| texts[..*index].contains(range)) {
        errors.push(Error::duplicate(&path.index(index), *range));
    }
    errors
}

pub fn node_update(new: &Object, old: &Object) -> ErrorList {
    let spec = Path::new("spec");
    let mut errors = resources(new);
    let addresses = new.get_array(&["status", "addresses"]);
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            let at = Path::new("status").child("addresses").index(index);
            let (kind, address) = (text(address, "type"), text(address, "address"));
            let shown = go_struct(&[("Type", kind.into()), ("Address", address.into())]);
            errors.push(showing(Error::duplicate(&at, Value::Null), shown));
        }
    }
    let none = Value::Null;
    let ranges = |node: &'_ Object| -> Vec<String> {
        strings(node.get(&["spec"]).unwrap_or(&none), "podCIDRs").into_iter().map(str::to_owned).collect()
    };
    let (before, after) = (ranges(old), ranges(new));
    if !before.is_empty() {
        let changed = match before.len() == after.len() {
            false => 1,
            true => before.iter().zip(&after).filter(|(before, after)| before != after).count(),
        };
        let why = "node updates may not change podCIDR except from \"\" to valid";
        errors.extend((0..changed).map(|_| Error::forbidden(&spec.child("podCIDRs"), why)));
    }
    let provider = &["spec", "providerID"];
    if !old.get_str(provider).is_empty() && old.get_str(provider) != new.get_str(provider) {
        let why = "node updates may not change providerID except from \"\" to valid";
        errors.push(Error::forbidden(&spec.child("providerID"), why));
    }
    if let Some(source) = new.get(&["spec", "configSource"]).filter(|source| !source.is_null()) {
        errors.extend(config_source(source, false, &spec.child("configSource")));
    }
    for key in ["assigned", "active", "lastKnownGood"] {
        if let Some(source) = new.get(&["status", "config", key]).filter(|source| !source.is_null()) {
            errors.extend(config_source(source, true, &Path::new("status").child("config").child(key)));
        }
    }
    errors.extend(taints(new));
    if new.get_str(&["spec", "externalID"]) != old.get_str(&["spec", "externalID"]) {
        errors.push(Error::forbidden(&spec.child("externalID"), "may not be updated"));
    }
    errors
}

/// A field of old that nobody reads; the rules are still there.
fn config_source(source: &Value, of_status: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(map) = field(source, "configMap") else {
        let why = "exactly one reference subfield must be non-nil";
        return vec![Error::invalid(path, source.clone(), why)];
    };
    let at = path.child("configMap");
    for key in ["uid", "resourceVersion"] {
        let (there, at) = (!text(map, key).is_empty(), at.child(key));
        if of_status && !there {
            errors.push(Error::required(&at, format!("{key} must be set in status")));
        } else if !of_status && there {
            errors.push(Error::forbidden(&at, format!("{key} must not be set in spec")));
        }
    }
    let rules: [(&str, fn(&str) -> Vec<String>); 3] = [
        ("namespace", |name| names::name_is_dns_label(name, false)),
        ("name", |name| names::name_is_dns_subdomain(name, false)),
        ("kubeletConfigKey", names::is_config_map_key),
    ];
    for (key, rule) in rules {
        match text(map, key) {
            "" => errors.push(Error::required(&at.child(key), format!("{key} must be set"))),
            value => errors.extend(invalid(&at.child(key), value, rule(value))),
        }
    }
    errors
}
