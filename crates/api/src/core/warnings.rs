//! Warnings about pods and templates: what works, but not as its author may think, or not much longer.

use apimachinery::Value;
use apimachinery::field::Path;
use apimachinery::validation as names;

use crate::validation::pod::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD, annotation, visit_containers};
use crate::validation::value::{entries, field, has, int, is_whole, list, number, quantity, shown, text};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

/// Volumes that no longer work: field, name in the path, what is said.
const VOLUMES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// What is said of a label of nodes that has another name now.
pub fn deprecated_node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

/// Warnings about a new pod.
pub fn pod(pod: &apimachinery::Object) -> Vec<String> {
    let mut out = Vec::new();
    let messages = names::is_dns1123_label(pod.name());
    if !messages.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    let none = Value::Null;
    let (spec, meta) = (pod.get(&["spec"]).unwrap_or(&none), pod.get(&["metadata"]).unwrap_or(&none));
    out.extend(spec_and_meta(spec, meta, &Path::root(), false));
    out
}

/// Warnings about a template at a path.
pub fn template(template: &Value, path: &Path) -> Vec<String> {
    spec_and_meta(&template["spec"], &template["metadata"], path, true)
}

fn spec_and_meta(spec: &Value, meta: &Value, root: &Path, is_template: bool) -> Vec<String> {
    let path = root.child("spec");
    let annotations = root.child("metadata").child("annotations");
    let mut out = node_labels(spec, &path);
    for (key, message) in ANNOTATIONS {
        if annotation(meta, key).is_some() {
            out.push(format!("{}: {message}", annotations.key(key)));
        }
    }
    out.extend(volumes(list(spec, "volumes"), &path.child("volumes")));
    out.extend(token_paths(list(spec, "volumes"), &path.child("volumes")));
    out.extend(lists(spec, &path));
    for name in ["memory", "ephemeral-storage"] {
        out.extend(fraction(&spec["overhead"], name, &path.child("overhead")));
        for part in ["limits", "requests"] {
            out.extend(fraction(&spec["resources"][part], name, &path.child("resources").child(part)));
        }
    }
    let of_pod = |key: &str| spec.get("securityContext").is_some_and(|context| has(context, key));
    if !of_pod("seccompProfile") && annotation(meta, SECCOMP_POD).is_some() {
        out.push(format!(
            "{}: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            annotations.key(SECCOMP_POD)
        ));
    }
    visit_containers(spec, &path, &mut |container, at| {
        let own = |key: &str| container.get("securityContext").is_some_and(|context| has(context, key));
        let name = text(container, "name");
        let key = format!("{SECCOMP_CONTAINER}{name}");
        if !own("seccompProfile") && annotation(meta, &key).is_some() {
            out.push(format!(
                "{}: non-functional in v1.27+; use the \"seccompProfile\" field instead",
                annotations.key(&key)
            ));
        }
        let key = format!("{APP_ARMOR}{name}");
        // of pods this is said when the field is made of the annotation
        if is_template
            && !own("appArmorProfile")
            && !of_pod("appArmorProfile")
            && annotation(meta, &key).is_some()
        {
            out.push(app_armor(&annotations, &key));
        }
        for name in ["memory", "ephemeral-storage"] {
            for part in ["limits", "requests"] {
                let at = at.child("resources").child(part);
                out.extend(fraction(&container["resources"][part], name, &at));
            }
        }
        out.extend(hidden_variables(list(container, "env"), &at.child("env")));
    });
    out.extend(ports(spec, &path));
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.child("terminationGracePeriodSeconds")
        ));
    }
    out.extend(null_selectors(spec, &path.child("affinity")));
    out.extend(addresses(spec, &path));
    out
}

/// What is said of an AppArmor annotation.
pub fn app_armor(annotations: &Path, key: &str) -> String {
    format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", annotations.key(key))
}

fn node_labels(spec: &Value, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for (key, _) in entries(spec, "nodeSelector") {
        if let Some(message) = deprecated_node_label(key) {
            out.push(format!("{}: {message}", path.child("nodeSelector").key(key)));
        }
    }
    let affinity = spec.pointer("/affinity/nodeAffinity").unwrap_or(&Value::Null);
    let at = path.child("affinity").child("nodeAffinity");
    let required = affinity.get(REQUIRED).unwrap_or(&Value::Null);
    for (index, term) in list(required, "nodeSelectorTerms").iter().enumerate() {
        let at = at.child(REQUIRED).child("nodeSelectorTerms").index(index);
        out.extend(node_selector_term(term, false, &at));
    }
    for (index, term) in list(affinity, PREFERRED).iter().enumerate() {
        let at = at.child(PREFERRED).index(index).child("preference");
        out.extend(node_selector_term(&term["preference"], true, &at));
    }
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let at = path.child("topologySpreadConstraints").index(index);
        let key = text(constraint, "topologyKey");
        if let Some(message) = deprecated_node_label(key) {
            out.push(format!("{}: {key} is {message}", at.child("topologyKey")));
        }
        if !has(constraint, "labelSelector") {
            out.push(no_pods(&at.child("labelSelector")));
        }
    }
    out
}

fn no_pods(path: &Path) -> String {
    format!("{path}: a null labelSelector results in matching no pod")
}

/// Warnings about one term of a selector of nodes; where values are not validated, they are warned about.
pub fn node_selector_term(term: &Value, values: bool, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for (index, expression) in list(term, "matchExpressions").iter().enumerate() {
        let at = path.child("matchExpressions").index(index);
        let key = text(expression, "key");
        if let Some(message) = deprecated_node_label(key) {
            out.push(format!("{}: {key} is {message}", at.child("key")));
        }
        for (index, value) in list(expression, "values").iter().enumerate().filter(|_| values) {
            let value = value.as_str().unwrap_or_default();
            for message in names::is_valid_label_value(value) {
                out.push(format!("{}: {value} is invalid, {message}", at.child("values").index(index)));
            }
        }
    }
    out
}

fn volumes(volumes: &[Value], path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = path.index(index);
        for (key, name, message) in VOLUMES {
            if has(volume, key) {
                out.push(format!("{}: {message}", at.child(name)));
            }
        }
        if let Some(spec) = volume.pointer("/ephemeral/volumeClaimTemplate/spec") {
            let at = at.child("ephemeral").child("volumeClaimTemplate").child("spec");
            out.extend(claim_spec(spec, &at));
        }
    }
    out
}

/// Warnings about a claim's spec.
pub fn claim_spec(spec: &Value, path: &Path) -> Vec<String> {
    ["requests", "limits"]
        .iter()
        .filter_map(|part| {
            fraction(&spec["resources"][*part], "storage", &path.child("resources").child(part))
        })
        .collect()
}

/// Files of a projection that take the place of a token.
fn token_paths(volumes: &[Value], path: &Path) -> Vec<String> {
    let sources = |volume: &'_ Value| list(&volume["projected"], "sources").to_vec();
    let tokens: Vec<String> = volumes
        .iter()
        .flat_map(sources)
        .filter_map(|source| Some(text(source.get("serviceAccountToken")?, "path").to_owned()))
        .collect();
    let mut out = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = path.index(index).child("projected").child("sources");
        for source in sources(volume) {
            for (key, name) in
                [("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")]
            {
                for (index, item) in list(&source[key], "items").iter().enumerate() {
                    let file = text(item, "path");
                    if tokens.iter().any(|token| token == file) {
                        let at = at.child(name).index(index);
                        out.push(format!("{at}: has duplicated path with ServiceAccountToken {file:?}"));
                    }
                }
            }
        }
    }
    out
}

/// Entries of lists that come twice, or say nothing.
fn lists(spec: &Value, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for (key, field, word) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
        let all: Vec<&str> = list(spec, key).iter().map(|entry| text(entry, field)).collect();
        for (index, value) in all.iter().enumerate().filter(|(index, value)| all[..*index].contains(value)) {
            out.push(format!("{}: duplicate {word} {value:?}", path.child(key).index(index).child(field)));
        }
    }
    for (index, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            let at = path.child("imagePullSecrets").index(index).child("name");
            out.push(format!("{at}: invalid empty name \"\""));
        }
    }
    out
}

/// A part of a byte.
fn fraction(amounts: &Value, name: &str, path: &Path) -> Option<String> {
    let value = amounts.get(name)?;
    let amount = quantity(value)?;
    (!is_whole(&amount)).then(|| {
        format!("{}: fractional byte value {:?} is invalid, must be an integer", path.key(name), shown(value))
    })
}

/// Variables that hide an earlier one of their name without building on it.
fn hidden_variables(variables: &[Value], path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for (index, variable) in variables.iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        if !variables[..index].iter().any(|other| text(other, "name") == name) {
            continue;
        }
        let reference = format!("$({name})");
        if has(variable, "valueFrom") || value == reference || !value.contains(&reference) {
            let at = path.index(index);
            out.push(format!(
                "{at}: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
    out
}

/// Ports that are in each other's way, or may be.
fn ports(spec: &Value, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut seen: Vec<(i64, &str, &str, i64, Path)> = Vec::new();
    visit_containers(spec, path, &mut |container, at| {
        for (index, port) in list(container, "ports").iter().enumerate() {
            let at = at.child("ports").index(index);
            let (own, protocol) = (number(port, "containerPort"), text(port, "protocol"));
            let (ip, host) = (text(port, "hostIP"), number(port, "hostPort"));
            if !ip.is_empty() && host == 0 {
                out.push(format!(
                    "{at}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{own} Protocol:{protocol} HostIP:{ip}}}",
                    text(port, "name")
                ));
            }
            for (_, _, other_ip, other_host, other) in
                seen.iter().filter(|(port, of, ..)| *port == own && *of == protocol)
            {
                let what = if (ip, host) == (*other_ip, *other_host) {
                    "duplicate"
                } else if host == 0 || *other_host == 0 {
                    "overlapping"
                } else if host == *other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                out.push(format!("{at}: {what} port definition with {other}"));
            }
            seen.push((own, protocol, ip, host, at));
        }
    });
    out
}

fn null_selectors(spec: &Value, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let Some(affinity) = field(spec, "affinity") else { return out };
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = field(affinity, key) else { continue };
        for (index, term) in list(pods, REQUIRED).iter().enumerate() {
            if !has(term, "labelSelector") {
                out.push(no_pods(&path.child(key).child(REQUIRED).index(index).child("labelSelector")));
            }
        }
        for (index, term) in list(pods, PREFERRED).iter().enumerate() {
            if !term.get("podAffinityTerm").is_some_and(|term| has(term, "labelSelector")) {
                let at = path.child(key).child(PREFERRED).index(index);
                out.push(no_pods(&at.child("podAffinityTerm").child("labelSelector")));
            }
        }
    }
    out
}

/// Addresses that are written in an unusual way.
fn addresses(spec: &Value, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let config = spec.get("dnsConfig").unwrap_or(&Value::Null);
    for (index, server) in list(config, "nameservers").iter().enumerate() {
        let at = path.child("dnsConfig").child("nameservers").index(index);
        out.extend(ip(server.as_str().unwrap_or_default(), &at));
    }
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        out.extend(ip(text(alias, "ip"), &path.child("hostAliases").index(index).child("ip")));
    }
    out
}

/// What is said of an address that is not in its canonical form.
pub fn ip(value: &str, path: &Path) -> Option<String> {
    let parsed = names::parse_ip_sloppy(value)?;
    let strict = value.parse::<std::net::IpAddr>().ok().filter(|strict| strict.is_ipv6() == parsed.is_ipv6());
    let Some(strict) = strict else {
        return Some(format!("{path}: non-standard IP address {value:?} is invalid: use \"{parsed}\""));
    };
    (strict.is_ipv6() && strict.to_string() != value).then(|| {
        format!("{path}: IPv6 address {value:?} should be in RFC 5952 canonical format (\"{strict}\")")
    })
}

/// What is said of a range of addresses that is not in its canonical form.
pub fn cidr(value: &str, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let Some((address, block)) = names::Cidr::parse_sloppy(value) else { return out };
    if address != block.address {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        out.push(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be \"{block}\" or \"{address}/{whole}\"?)"
        ));
    }
    let (text, prefix) = value.split_once('/').unwrap_or((value, ""));
    let strict = text.parse::<std::net::IpAddr>().ok();
    let zeros = prefix.len() > 1 && prefix.starts_with('0');
    if strict.is_none_or(|strict| strict.is_ipv6() != address.is_ipv6()) || zeros {
        out.push(format!("{path}: non-standard CIDR value {value:?} is invalid: use \"{block}\""));
    }
    if out.is_empty() && address.is_ipv6() && block.to_string() != value {
        out.push(format!(
            "{path}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format (\"{block}\")"
        ));
    }
    out
}
