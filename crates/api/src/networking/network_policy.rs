//! Network policies.

use apimachinery::Object;
use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::validation::{self as names, Cidr};
use serde_json::json;

use crate::catalogue::Column;
use crate::core::defaults::{each, set};
use crate::core::warnings;
use crate::printers::{AGE, NAME, column, selector};
use crate::strategy::{Strategy, bump_generation};
use crate::validation::at::At;

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Pod-Selector", "string", "Which pods the policy is about.", |policy, _| {
        json!(selector(policy, &["spec", "podSelector"]))
    }),
    AGE,
];

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// What an update lets pass since it was there before.
#[derive(Default)]
struct Lenient<'a> {
    /// Blocks that are not judged again, wherever they stand now.
    blocks: Vec<&'a str>,
    selector_values: bool,
}

pub struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn default(&self, policy: &mut Object) {
        let Some(spec) = policy.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
        for (direction, _) in DIRECTIONS {
            for rule in each(spec, direction) {
                for port in each(rule, "ports") {
                    set(port, "protocol", "TCP");
                }
            }
        }
        let is_empty = |value: Option<&Value>| value.and_then(Value::as_array).is_none_or(Vec::is_empty);
        if is_empty(spec.get("policyTypes")) {
            let egress = !is_empty(spec.get("egress"));
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            spec.insert("policyTypes".into(), types);
        }
    }

    fn prepare_for_create(&self, policy: &mut Object) {
        policy.set_generation(1);
    }

    fn prepare_for_update(&self, policy: &mut Object, old: &Object) {
        bump_generation(policy, old);
    }

    fn validate(&self, policy: &Object) -> ErrorList {
        validate(&At::root(policy).child("spec"), &Lenient::default())
    }

    fn validate_update(&self, policy: &Object, old: &Object) -> ErrorList {
        let before = At::root(old).child("spec");
        let lenient = Lenient {
            blocks: ranges(&before).iter().map(At::str).collect(),
            selector_values: !before.child("podSelector").label_selector().is_empty(),
        };
        validate(&At::root(policy).child("spec"), &lenient)
    }

    fn warnings_on_create(&self, policy: &Object) -> Vec<String> {
        let ranges = ranges(&At::root(policy).child("spec"));
        ranges.iter().flat_map(|range| warnings::cidr(range.str(), &range.path)).collect()
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

/// All ranges of addresses in a policy, blocks and what they leave out.
fn ranges<'a>(spec: &At<'a>) -> Vec<At<'a>> {
    let mut ranges = Vec::new();
    for (direction, peers) in DIRECTIONS {
        for peer in spec.each(direction).flat_map(|rule| rule.each(peers)) {
            let Some(block) = peer.field("ipBlock") else { continue };
            ranges.push(block.child("cidr"));
            ranges.extend(block.each("except"));
        }
    }
    ranges
}

fn validate(spec: &At<'_>, lenient: &Lenient<'_>) -> ErrorList {
    let mut errors = spec.child("podSelector").label_selector_with(lenient.selector_values);
    for (direction, peers) in DIRECTIONS {
        for rule in spec.each(direction) {
            for port in rule.each("ports") {
                errors.extend(self::port(&port));
            }
            for peer in rule.each(peers) {
                errors.extend(self::peer(&peer, lenient));
            }
        }
    }
    let types = spec.child("policyTypes");
    if types.len() > 2 {
        errors.push(types.invalid("may not specify more than two policyTypes"));
        return errors;
    }
    for kind in types.items() {
        errors.extend(kind.supported(&["Ingress", "Egress"]));
    }
    errors
}

fn port(entry: &At<'_>) -> ErrorList {
    let (port, end) = (entry.child("port"), entry.child("endPort"));
    let mut errors = entry.child("protocol").supported(&["TCP", "UDP", "SCTP"]);
    match port.value {
        Value::Null => {
            if end.is_set() {
                errors.push(end.invalid("may not be specified when `port` is not specified"));
            }
        }
        Value::String(name) => {
            if end.is_set() {
                errors.push(end.invalid("may not be specified when `port` is non-numeric"));
            }
            errors.extend(port.wrong(names::is_valid_port_name(name)));
        }
        _ => {
            let number = port.int().unwrap_or_default();
            errors.extend(port.wrong(names::is_valid_port_num(number)));
            if let Some(last) = end.int() {
                if last < number {
                    errors.push(end.invalid("must be greater than or equal to `port`"));
                }
                errors.extend(end.wrong(names::is_valid_port_num(last)));
            }
        }
    }
    errors
}

fn peer(peer: &At<'_>, lenient: &Lenient<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut peers = 0;
    for key in ["podSelector", "namespaceSelector"] {
        let selector = peer.child(key);
        if selector.is_set() {
            peers += 1;
            errors.extend(selector.label_selector_with(lenient.selector_values));
        }
    }
    let block = peer.child("ipBlock");
    if block.is_set() {
        peers += 1;
        errors.extend(ip_block(&block, &lenient.blocks));
    }
    if peers == 0 {
        errors.push(peer.required("must specify a peer"));
    } else if peers > 1 && block.is_set() {
        errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
    }
    errors
}

fn ip_block(block: &At<'_>, known: &[&str]) -> ErrorList {
    let cidr = block.child("cidr");
    if cidr.is_empty() {
        return vec![cidr.required("")];
    }
    let mut errors = cidr.cidr(known);
    let Some((_, whole)) = Cidr::parse_sloppy(cidr.str()) else { return errors };
    for except in block.each("except") {
        errors.extend(except.cidr(known));
        let Some((_, part)) = Cidr::parse_sloppy(except.str()) else { continue };
        if !whole.contains(part.address) || whole.prefix >= part.prefix {
            errors.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    #[test]
    fn what_is_wrong_with_a_policy() {
        let from = |peer: Value| json!({"ingress": [{"from": [peer]}]});
        let port = |port: Value| json!({"egress": [{"ports": [port]}]});
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (from(json!({})), vec!["spec.ingress[0].from[0]: Required value: must specify a peer"]),
            (
                from(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
                vec!["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
            ),
            (
                from(
                    json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16", "x"]}}),
                ),
                vec![
                    "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                    "spec.ingress[0].from[0].ipBlock.except[2]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
            (
                port(json!({"port": 80, "endPort": 70, "protocol": "ICMP"})),
                vec![
                    "spec.egress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                    "spec.egress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`",
                ],
            ),
            (
                port(json!({"port": "web", "endPort": 70})),
                vec![
                    "spec.egress[0].ports[0].endPort: Invalid value: 70: may not be specified when `port` is non-numeric",
                ],
            ),
            (
                json!({"policyTypes": ["Ingress", "Odd"]}),
                vec![
                    "spec.policyTypes[1]: Unsupported value: \"Odd\": supported values: \"Ingress\", \"Egress\"",
                ],
            ),
        ];
        for (spec, expected) in cases {
            let mut policy = Object::from(json!({"spec": spec}));
            NetworkPolicies.default(&mut policy);
            check(NetworkPolicies.validate(&policy), &expected);
        }
    }

    #[test]
    fn types_follow_rules() {
        for (spec, types) in [
            (json!({"podSelector": {}}), json!(["Ingress"])),
            (json!({"egress": [{}]}), json!(["Ingress", "Egress"])),
            (json!({"policyTypes": ["Egress"]}), json!(["Egress"])),
        ] {
            let mut policy = Object::from(json!({"spec": spec}));
            NetworkPolicies.default(&mut policy);
            assert_eq!(policy.get(&["spec", "policyTypes"]), Some(&types));
        }
    }

    #[test]
    fn what_is_written_oddly_is_said() {
        let policy = Object::from(json!({"spec": {
            "ingress": [{"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "2001:DB8::/32", "except": ["2001:db8:1::/48"]}}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "010.0.0.0/8", "except": ["10.0.0.1/16"]}}]}],
        }}));
        let expected = [
            "spec.ingress[0].from[1].ipBlock.cidr: IPv6 CIDR value \"2001:DB8::/32\" should be in RFC 5952 canonical format (\"2001:db8::/32\")",
            "spec.egress[0].to[0].ipBlock.cidr: non-standard CIDR value \"010.0.0.0/8\" is invalid: use \"10.0.0.0/8\"",
            "spec.egress[0].to[0].ipBlock.except[0]: CIDR value \"10.0.0.1/16\" is ambiguous in this context (should be \"10.0.0.0/16\" or \"10.0.0.1/32\"?)",
        ];
        assert_eq!(NetworkPolicies.warnings_on_create(&policy), expected);
        assert_eq!(NetworkPolicies.warnings_on_update(&policy, &policy), expected);
    }

    #[test]
    fn old_values_of_selectors_stay() {
        let selector =
            |value: &str| json!({"matchExpressions": [{"key": "a", "operator": "In", "values": [value]}]});
        let policy = |value: &str| {
            Object::from(
                json!({"spec": {"podSelector": selector(value), "ingress": [{"from": [{"podSelector": selector("x y")}]}]}}),
            )
        };
        let (old, fine) = (policy("not a value"), policy("value"));
        assert_eq!(NetworkPolicies.validate(&old).len(), 2);
        check(NetworkPolicies.validate_update(&old, &old), &[]);
        assert_eq!(NetworkPolicies.validate_update(&fine, &fine).len(), 1);
    }

    #[test]
    fn old_blocks_stay() {
        let old =
            Object::from(json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "010.0.0.0/8"}}]}]}}));
        assert_eq!(NetworkPolicies.validate(&old).len(), 1);
        check(NetworkPolicies.validate_update(&old, &old), &[]);
    }
}
