//! Service addresses in use, and the ranges they come from.

use std::net::IpAddr;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column};
use crate::strategy::{Strategy, keep_metadata, keep_spec, keep_status, reset_metadata_too};
use crate::validation::at::At;
use crate::validation::forms::unchanged;
use crate::validation::value::go_struct;

pub const ADDRESS_COLUMNS: &[Column] = &[
    NAME,
    column("ParentRef", "string", "What the address belongs to.", |ip, _| {
        let (resource, group) = (parent(ip, "resource"), parent(ip, "group"));
        let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
        let place = [parent(ip, "namespace"), parent(ip, "name")];
        let place: Vec<&str> = place.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
        json!(format!("{resource}/{}", place.join("/")))
    }),
];

pub const RANGE_COLUMNS: &[Column] = &[
    NAME,
    column("CIDRs", "string", "The ranges.", |range, _| {
        let all: Vec<&str> = range.get_array(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        json!(all.join(","))
    }),
    AGE,
];

fn parent(ip: &Object, key: &str) -> String {
    ip.get_str(&["spec", "parentRef", key]).to_owned()
}

pub struct IpAddresses;

impl Strategy for IpAddresses {
    /// The name is the address.
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::is_valid_ip(&Path::root(), name).into_iter().map(|error| error.detail).collect()
    }

    fn prepare_for_create(&self, _ip: &mut Object) {}

    fn prepare_for_update(&self, _ip: &mut Object, _old: &Object) {}

    fn validate(&self, ip: &Object) -> ErrorList {
        let parent = At::root(ip).child("spec").child("parentRef");
        if !parent.is_set() {
            return vec![parent.required("")];
        }
        let mut errors = ErrorList::new();
        let group = parent.child("group");
        if !group.is_empty() {
            errors.extend(group.subdomain());
        }
        errors.extend(parent.child("resource").required_path_segment());
        errors.extend(parent.child("name").required_path_segment());
        let namespace = parent.child("namespace");
        if !namespace.is_empty() {
            errors.extend(namespace.path_segment());
        }
        errors
    }

    fn validate_update(&self, ip: &Object, old: &Object) -> ErrorList {
        let parent = |object| At::root(object).child("spec").child("parentRef");
        let (new, old) = (parent(ip), parent(old));
        let mut errors = self.validate(ip);
        errors.extend(unchanged(&new, &old).into_iter().map(|error| error.showing(shown(&new))));
        errors
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// A reference as upstream shows it.
fn shown(parent: &At<'_>) -> String {
    if !parent.is_set() {
        return "null".to_owned();
    }
    let of = |key: &str| parent.text(key).into();
    go_struct(&[
        ("Group", of("group")),
        ("Resource", of("resource")),
        ("Namespace", of("namespace")),
        ("Name", of("name")),
    ])
}

pub struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn prepare_for_create(&self, range: &mut Object) {
        range.remove(&["status"]);
    }

    fn prepare_for_update(&self, range: &mut Object, old: &Object) {
        keep_status(range, old);
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        reset_metadata_too(subresource)
    }

    fn prepare_for_status_update(&self, range: &mut Object, old: &Object) {
        keep_spec(range, old);
        keep_metadata(range, old);
    }

    fn validate(&self, range: &Object) -> ErrorList {
        cidrs(&At::root(range).child("spec"))
    }

    /// A range may get a second family; nothing else moves.
    fn validate_update(&self, range: &Object, old: &Object) -> ErrorList {
        let spec = At::root(range).child("spec");
        let (new, old) = (spec.child("cidrs"), old.get_array(&["spec", "cidrs"]));
        let moved = |at: usize| new.list().get(at) != old.get(at);
        let frozen = |at: usize| {
            let value = new.list().get(at).cloned().unwrap_or(Value::Null);
            Error::invalid(&new.path.index(at), value, "field is immutable")
        };
        match (old.len(), new.len()) {
            (before, now) if before == now => (0..now).filter(|at| moved(*at)).map(frozen).collect(),
            (1, 2) => {
                let mut errors: ErrorList = Some(0).filter(|at| moved(*at)).map(frozen).into_iter().collect();
                errors.extend(cidrs(&spec));
                errors
            }
            _ => vec![new.invalid("field is immutable")],
        }
    }
}

fn cidrs(spec: &At<'_>) -> ErrorList {
    let cidrs = spec.child("cidrs");
    match cidrs.len() {
        0 => return vec![cidrs.required("at least one CIDR required")],
        1 | 2 => {}
        _ => {
            let error = cidrs.invalid("may only hold up to 2 values");
            return vec![error.showing(format!("{{\"CIDRs\":{}}}", cidrs.value))];
        }
    }
    let mut errors = ErrorList::new();
    for cidr in cidrs.items() {
        errors.extend(names::is_valid_cidr(&cidr.path, cidr.str()));
    }
    let families: Vec<bool> = cidrs
        .items()
        .filter_map(|cidr| cidr.str().split_once('/')?.0.parse::<IpAddr>().ok())
        .map(|ip| ip.is_ipv4())
        .collect();
    if matches!(families[..], [a, b] if a == b) {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(cidrs.invalid(why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn addresses_have_parents() {
        assert!(IpAddresses.validate_name("10.0.0.1", false).is_empty());
        assert_eq!(IpAddresses.validate_name("010.0.0.1", false), ["must not have leading 0s"]);
        check(IpAddresses.validate(&Object::default()), &["spec.parentRef: Required value"]);
        let ip = Object::from(json!({"spec": {"parentRef": {"group": "A", "resource": "a/b"}}}));
        let errors = IpAddresses.validate(&ip);
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["spec.parentRef.group", "spec.parentRef.resource", "spec.parentRef.name"]);
        let of =
            |name: &str| Object::from(json!({"spec": {"parentRef": {"resource": "services", "name": name}}}));
        check(
            IpAddresses.validate_update(&of("a/b"), &of("a")),
            &[
                "spec.parentRef.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.parentRef: Invalid value: {\"Group\":\"\",\"Resource\":\"services\",\"Namespace\":\"\",\"Name\":\"a/b\"}: field is immutable",
            ],
        );
    }

    #[test]
    fn ranges_grow_by_a_family() {
        let range = |cidrs: Value| Object::from(json!({"spec": {"cidrs": cidrs}}));
        let one = range(json!(["10.0.0.0/16"]));
        let both = range(json!(["10.0.0.0/16", "fd00::/112"]));
        check(ServiceCidrs.validate(&both), &[]);
        check(ServiceCidrs.validate_update(&both, &one), &[]);
        let mut grown = both.clone();
        ServiceCidrs.prepare_for_update(&mut grown, &one);
        assert_eq!(grown.generation(), 0);
        check(
            ServiceCidrs.validate_update(&one, &both),
            &["spec.cidrs: Invalid value: [\"10.0.0.0/16\"]: field is immutable"],
        );
        check(
            ServiceCidrs.validate(&range(json!(["10.0.0.0/16", "10.1.0.0/16"]))),
            &[
                "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.0/16\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ],
        );
        check(
            ServiceCidrs.validate(&range(json!([]))),
            &["spec.cidrs: Required value: at least one CIDR required"],
        );
    }
}
