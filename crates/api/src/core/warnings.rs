//! Warnings about pods and templates: what works, but not as its author may think, or not much longer.

use apimachinery::Object;
use apimachinery::field::Path;
use apimachinery::validation as names;

use crate::validation::at::At;
use crate::validation::pod::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD, annotation, visit_containers};
use crate::validation::value::{is_whole, shown, text};

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
pub fn pod(pod: &Object) -> Vec<String> {
    let mut out = Vec::new();
    let messages = names::is_dns1123_label(pod.name());
    if !messages.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    out.extend(spec_and_meta(&At::root(pod), false));
    out
}

/// Warnings about a template.
pub(crate) fn template(template: &At<'_>) -> Vec<String> {
    spec_and_meta(template, true)
}

fn spec_and_meta(owner: &At<'_>, is_template: bool) -> Vec<String> {
    let (spec, meta) = (owner.child("spec"), owner.child("metadata"));
    let annotations = meta.path.child("annotations");
    let said = |key: &str| annotation(meta.value, key).is_some();
    let mut out = node_labels(&spec);
    for (key, message) in ANNOTATIONS {
        if said(key) {
            out.push(format!("{}: {message}", annotations.key(key)));
        }
    }
    out.extend(volumes(&spec.child("volumes")));
    out.extend(token_paths(&spec.child("volumes")));
    out.extend(lists(&spec));
    for name in ["memory", "ephemeral-storage"] {
        out.extend(fraction(&spec.child("overhead"), name));
        out.extend(fractions(&spec.child("resources"), name));
    }
    let seccomp = |key: &str| {
        format!(
            "{}: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            annotations.key(key)
        )
    };
    let of_pod = spec.child("securityContext");
    if !of_pod.has("seccompProfile") && said(SECCOMP_POD) {
        out.push(seccomp(SECCOMP_POD));
    }
    visit_containers(&spec, &mut |container| {
        let own = container.child("securityContext");
        let name = container.text("name");
        let key = format!("{SECCOMP_CONTAINER}{name}");
        if !own.has("seccompProfile") && said(&key) {
            out.push(seccomp(&key));
        }
        let key = format!("{APP_ARMOR}{name}");
        // of pods this is said when the field is made of the annotation
        let has_field = own.has("appArmorProfile") || of_pod.has("appArmorProfile");
        if is_template && !has_field && said(&key) {
            out.push(app_armor(&annotations, &key));
        }
        for name in ["memory", "ephemeral-storage"] {
            out.extend(fractions(&container.child("resources"), name));
        }
        out.extend(hidden_variables(&container.child("env")));
    });
    out.extend(ports(&spec));
    if spec.number("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            spec.path.child("terminationGracePeriodSeconds")
        ));
    }
    out.extend(null_selectors(&spec.child("affinity")));
    out.extend(addresses(&spec));
    out
}

/// What is said of an AppArmor annotation.
pub fn app_armor(annotations: &Path, key: &str) -> String {
    format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", annotations.key(key))
}

fn node_labels(spec: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for (key, label) in spec.child("nodeSelector").entries() {
        if let Some(message) = deprecated_node_label(key) {
            out.push(format!("{}: {message}", label.path));
        }
    }
    let affinity = spec.child("affinity").child("nodeAffinity");
    for term in affinity.child(REQUIRED).each("nodeSelectorTerms") {
        out.extend(node_selector_term(&term, false));
    }
    for term in affinity.each(PREFERRED) {
        out.extend(node_selector_term(&term.child("preference"), true));
    }
    for constraint in spec.each("topologySpreadConstraints") {
        let key = constraint.child("topologyKey");
        if let Some(message) = deprecated_node_label(key.str()) {
            out.push(format!("{}: {} is {message}", key.path, key.str()));
        }
        out.extend(no_pods(&constraint.child("labelSelector")));
    }
    out
}

/// What is said of a selector that is not there.
fn no_pods(selector: &At<'_>) -> Option<String> {
    let message = format!("{}: a null labelSelector results in matching no pod", selector.path);
    (!selector.is_set()).then_some(message)
}

/// Warnings about a selector of nodes that has the form of a selector of labels.
pub(crate) fn selector_of_nodes(selector: &At<'_>) -> Vec<String> {
    let mut out = node_selector_term(selector, false);
    let labels = selector.child("matchLabels");
    for (key, _) in labels.entries() {
        if let Some(message) = deprecated_node_label(key) {
            out.push(format!("{}: {message}", labels.path.child(key)));
        }
    }
    out
}

/// Warnings about one term of a selector of nodes; where values are not validated, they are warned about.
pub(crate) fn node_selector_term(term: &At<'_>, values: bool) -> Vec<String> {
    let mut out = Vec::new();
    for expression in term.each("matchExpressions") {
        let key = expression.child("key");
        if let Some(message) = deprecated_node_label(key.str()) {
            out.push(format!("{}: {} is {message}", key.path, key.str()));
        }
        for value in expression.each("values").filter(|_| values) {
            for message in names::is_valid_label_value(value.str()) {
                out.push(format!("{}: {} is invalid, {message}", value.path, value.str()));
            }
        }
    }
    out
}

fn volumes(volumes: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for volume in volumes.items() {
        for (key, name, message) in VOLUMES {
            if volume.has(key) {
                out.push(format!("{}: {message}", volume.path.child(name)));
            }
        }
        out.extend(claim_spec(&volume.child("ephemeral").child("volumeClaimTemplate").child("spec")));
    }
    out
}

/// Warnings about a claim's spec.
pub(crate) fn claim_spec(spec: &At<'_>) -> Vec<String> {
    let resources = spec.child("resources");
    ["requests", "limits"].iter().filter_map(|part| fraction(&resources.child(part), "storage")).collect()
}

/// Files of a projection that take the place of a token.
fn token_paths(volumes: &At<'_>) -> Vec<String> {
    let tokens: Vec<&str> = volumes
        .items()
        .flat_map(|volume| volume.child("projected").each("sources"))
        .filter_map(|source| source.field("serviceAccountToken"))
        .map(|token| token.text("path"))
        .collect();
    let mut out = Vec::new();
    for sources in volumes.items().map(|volume| volume.child("projected").child("sources")) {
        for source in sources.items() {
            for (key, name) in
                [("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")]
            {
                for (index, item) in source.child(key).each("items").enumerate() {
                    let file = item.text("path");
                    if tokens.contains(&file) {
                        let at = sources.path.child(name).index(index);
                        out.push(format!("{at}: has duplicated path with ServiceAccountToken {file:?}"));
                    }
                }
            }
        }
    }
    out
}

/// Entries of lists that come twice, or say nothing.
fn lists(spec: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for (key, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let all = spec.child(key);
        for (index, entry) in all.items().enumerate() {
            let value = entry.child(field);
            if all.list()[..index].iter().any(|other| text(other, field) == value.str()) {
                out.push(format!("{}: duplicate {field} {:?}", value.path, value.str()));
            }
        }
    }
    for name in spec.each("imagePullSecrets").map(|secret| secret.child("name")) {
        if name.is_empty() {
            out.push(format!("{}: invalid empty name \"\"", name.path));
        }
    }
    out
}

/// A part of a byte.
fn fraction(amounts: &At<'_>, name: &str) -> Option<String> {
    let amount = At::new(amounts.child(name).value, amounts.path.key(name));
    (!is_whole(&amount.quantity()?)).then(|| {
        let shown = shown(amount.value);
        format!("{}: fractional byte value {shown:?} is invalid, must be an integer", amount.path)
    })
}

fn fractions(resources: &At<'_>, name: &str) -> Vec<String> {
    ["limits", "requests"].iter().filter_map(|part| fraction(&resources.child(part), name)).collect()
}

/// Variables that hide an earlier one of their name without building on it.
fn hidden_variables(variables: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for (index, variable) in variables.items().enumerate() {
        let (name, value) = (variable.text("name"), variable.text("value"));
        if !variables.list()[..index].iter().any(|other| text(other, "name") == name) {
            continue;
        }
        let reference = format!("$({name})");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            out.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                variable.path
            ));
        }
    }
    out
}

/// Ports that are in each other's way, or may be.
fn ports(spec: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let mut seen: Vec<(i64, &str, &str, i64, Path)> = Vec::new();
    visit_containers(spec, &mut |container| {
        for port in container.each("ports") {
            let (own, protocol) = (port.number_or_zero("containerPort"), port.text("protocol"));
            let (ip, host) = (port.text("hostIP"), port.number_or_zero("hostPort"));
            let at = &port.path;
            if !ip.is_empty() && host == 0 {
                out.push(format!(
                    "{at}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{own} Protocol:{protocol} HostIP:{ip}}}",
                    port.text("name")
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
            seen.push((own, protocol, ip, host, port.path));
        }
    });
    out
}

fn null_selectors(affinity: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for pods in ["podAffinity", "podAntiAffinity"].map(|key| affinity.child(key)) {
        out.extend(pods.each(REQUIRED).filter_map(|term| no_pods(&term.child("labelSelector"))));
        let weighted = pods.each(PREFERRED).map(|term| term.child("podAffinityTerm").child("labelSelector"));
        out.extend(weighted.filter_map(|selector| no_pods(&selector)));
    }
    out
}

/// Addresses that are written in an unusual way.
fn addresses(spec: &At<'_>) -> Vec<String> {
    let servers = spec.child("dnsConfig").each("nameservers");
    let aliases = spec.each("hostAliases").map(|alias| alias.child("ip"));
    servers.chain(aliases).filter_map(|address| ip(address.str(), &address.path)).collect()
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
