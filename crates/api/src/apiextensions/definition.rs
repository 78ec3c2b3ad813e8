//! Definitions of custom resources: defaults, what may change, names, conversion.

use apimachinery::field::{Error, ErrorList, quote};
use apimachinery::validation as names;
use apimachinery::{Object, Value};
use serde_json::json;

use super::options::{Options, is_established};
use super::{conversion, formats, versions, walk};
use crate::core::defaults::{child, set};
use crate::strategy::{Strategy, bump_generation, keep_spec, keep_status};
use crate::validation::at::At;
use crate::validation::forms::unchanged;
use crate::validation::url::parse_request;

pub(super) const APPROVED: &str = "api-approved.kubernetes.io";

pub struct CustomResourceDefinitions;

/// The version whose objects are stored.
fn storage_version(definition: &Object) -> Option<String> {
    let versions = definition.get_array(&["spec", "versions"]);
    let stored = versions.iter().find(|version| version["storage"] == true)?;
    stored["name"].as_str().map(str::to_owned)
}

/// Notes that objects may be stored in the storage version.
fn note_storage_version(definition: &mut Object) {
    let Some(version) = storage_version(definition) else { return };
    let mut stored = definition.get_array(&["status", "storedVersions"]).to_vec();
    if !stored.iter().any(|name| *name == version.as_str()) {
        stored.push(json!(version));
        definition.set(&["status", "storedVersions"], stored);
    }
}

impl Strategy for CustomResourceDefinitions {
    fn default(&self, definition: &mut Object) {
        if let Some(spec) = definition.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) {
            if let Some(names) = child(spec, "names") {
                let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
                let is_empty =
                    |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().is_empty();
                if is_empty(names.get("singular")) {
                    names.insert("singular".into(), json!(kind.to_lowercase()));
                }
                if is_empty(names.get("listKind")) && !kind.is_empty() {
                    names.insert("listKind".into(), json!(format!("{kind}List")));
                }
            }
            set(spec, "conversion", json!({"strategy": "None"}));
            let service = child(spec, "conversion")
                .and_then(|conversion| child(conversion, "webhook"))
                .and_then(|webhook| child(webhook, "clientConfig"))
                .and_then(|config| child(config, "service"));
            if let Some(service) = service {
                set(service, "port", 443);
            }
        }
        if definition.get_array(&["status", "storedVersions"]).is_empty() {
            note_storage_version(definition);
        }
    }

    fn prepare_for_create(&self, definition: &mut Object) {
        definition.remove(&["status"]);
        definition.set_generation(1);
        note_storage_version(definition);
    }

    fn prepare_for_update(&self, definition: &mut Object, old: &Object) {
        keep_status(definition, old);
        bump_generation(definition, old);
        note_storage_version(definition);
    }

    fn validate(&self, definition: &Object) -> ErrorList {
        let root = At::root(definition);
        let spec = root.child("spec");
        let wanted = format!("{}.{}", spec.child("names").text("plural"), spec.text("group"));
        let mut errors = ErrorList::new();
        if definition.name() != wanted {
            let why = "must be spec.names.plural+\".\"+spec.group";
            errors.push(Error::invalid(&root.child("metadata").path.child("name"), definition.name(), why));
        }
        errors.extend(validate(&spec, &Options::of_create(&spec)));
        errors.extend(rest(definition, None));
        errors
    }

    fn validate_update(&self, definition: &Object, old: &Object) -> ErrorList {
        let (spec, before) = (At::root(definition).child("spec"), At::root(old).child("spec"));
        let mut errors = validate(&spec, &Options::of_update(&spec, &At::root(old)));
        let (names, old_names) = (spec.child("names"), before.child("names"));
        if is_established(&At::root(old)) {
            errors.extend(unchanged(&spec.child("scope"), &before.child("scope")));
            errors.extend(unchanged(&names.child("kind"), &old_names.child("kind")));
        }
        errors.extend(unchanged(&spec.child("group"), &before.child("group")));
        errors.extend(unchanged(&names.child("plural"), &old_names.child("plural")));
        errors.extend(rest(definition, Some(old)));
        errors
    }

    /// Unlike most, `status` of a definition lets metadata move.
    fn prepare_for_status_update(&self, definition: &mut Object, old: &Object) {
        keep_spec(definition, old);
    }

    fn validate_status_update(&self, definition: &Object, _old: &Object) -> ErrorList {
        accepted_names(&At::root(definition).child("status").child("acceptedNames"))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn warnings_on_create(&self, definition: &Object) -> Vec<String> {
        said(unknown_formats(definition).iter())
    }

    fn warnings_on_update(&self, definition: &Object, old: &Object) -> Vec<String> {
        let before = unknown_formats(old);
        said(unknown_formats(definition).iter().filter(|format| !before.contains(format)))
    }
}

fn said<'a>(formats: impl Iterator<Item = &'a &'a str>) -> Vec<String> {
    formats.map(|format| format!("unrecognized format {}", quote(format))).collect()
}

/// Formats in schemas that nothing is known of.
fn unknown_formats(definition: &Object) -> Vec<&str> {
    let mut unknown = Vec::new();
    let spec = At::root(definition).child("spec");
    for schema in versions::schemas(&spec) {
        walk::visit(schema.value, &mut |schema| {
            let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
            let (kind, format) = (text("type"), text("format"));
            if !format.is_empty() && !formats::is_recognized(kind, format) {
                unknown.push(format);
            }
        });
    }
    unknown
}

fn validate(spec: &At<'_>, options: &Options) -> ErrorList {
    let (group, names) = (spec.child("group"), spec.child("names"));
    let mut errors = ErrorList::new();
    let wrong = names::is_dns1123_subdomain(group.str());
    if group.is_empty() {
        errors.push(group.required(""));
    } else if !wrong.is_empty() {
        errors.push(group.invalid(wrong.join(",")));
    } else if !group.str().contains('.') {
        errors.push(group.invalid("should be a domain with at least one dot"));
    }
    errors.extend(spec.child("scope").one_of(&["Cluster", "Namespaced"]));
    errors.extend(versions::needed_schemas(spec, options));
    errors.extend(versions::validate(spec, options));
    for key in ["plural", "singular", "kind", "listKind"] {
        let name = names.child(key);
        if name.is_empty() {
            errors.push(Error::required(&name.path, ""));
        }
    }
    errors.extend(accepted_names(&names));
    errors.extend(versions::validate_shared(spec, options));
    let conversion = spec.child("conversion");
    if spec.child("preserveUnknownFields").flag() && conversion.text("strategy") != "None" {
        let strategy = conversion.child("strategy");
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(Error::invalid(&strategy.path, strategy.str(), why));
    }
    errors.extend(conversion::validate(&conversion, options));
    errors
}

/// Names that are there are well formed.
fn accepted_names(names: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, may_have_case) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let name = names.child(key);
        errors
            .extend(Some(name).filter(|name| !name.is_empty()).and_then(|name| label(&name, may_have_case)));
    }
    errors.extend(names.each("shortNames").filter_map(|name| label(&name, false)));
    let (kind, list) = (names.child("kind"), names.child("listKind"));
    if !kind.is_empty() && kind.str() == list.str() {
        errors.push(list.invalid("kind and listKind may not be the same"));
    }
    errors.extend(names.each("categories").filter_map(|name| label(&name, false)));
    errors
}

fn label(name: &At<'_>, may_have_case: bool) -> Option<Error> {
    let text = if may_have_case { name.str().to_lowercase() } else { name.str().to_owned() };
    let wrong = names::is_dns1035_label(&text).join(",");
    let prefix = if may_have_case { "may have mixed case, but should otherwise match: " } else { "" };
    (!wrong.is_empty()).then(|| name.invalid_text(format!("{prefix}{wrong}")))
}

/// What is checked beside the spec: the status, approval of names that are the community's, pruning.
fn rest(definition: &Object, old: Option<&Object>) -> ErrorList {
    let root = At::root(definition);
    let status = root.child("status");
    let mut errors = accepted_names(&status.child("acceptedNames"));
    errors.extend(stored_versions(&status.child("storedVersions"), &root.child("spec").child("versions")));
    errors.extend(approval(definition, old));
    let preserves = root.child("spec").child("preserveUnknownFields");
    let did = old.is_some_and(|old| old.get_bool(&["spec", "preserveUnknownFields"]));
    if preserves.flag() && !did {
        errors.push(preserves.invalid(
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    errors
}

fn stored_versions(stored: &At<'_>, versions: &At<'_>) -> ErrorList {
    if stored.is_empty() {
        return vec![stored.invalid("must have at least one stored version")];
    }
    let mut errors = ErrorList::new();
    for version in versions.items().filter(|version| version.child("storage").flag()) {
        let name = version.child("name");
        if !stored.list().contains(name.value) {
            errors.push(stored.invalid(format!("must have the storage version {}", name.str())));
        }
    }
    let is_served = |name: &At<'_>| versions.list().iter().any(|version| version["name"] == *name.value);
    for name in stored.items().filter(|name| !is_served(name)) {
        let version = name.str();
        errors.push(name.invalid(format!(
            "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions \
             until a storage migration ensures no data remains persisted in {version} and removes {version} from \
             status.storedVersions"
        )));
    }
    errors
}

#[derive(PartialEq, Eq)]
enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

fn approval_of(definition: &Object) -> Approval {
    let text = definition.annotation(APPROVED).unwrap_or_default();
    let is_url = parse_request(text).is_ok_and(|url| !url.host.is_empty() && !url.scheme.is_empty());
    match text {
        "" => Approval::Missing,
        text if text.starts_with("unapproved") => Approval::Bypassed,
        _ if is_url => Approval::Approved,
        _ => Approval::Invalid,
    }
}

/// Groups of the community need its approval, or a word that they have none.
fn approval(definition: &Object, old: Option<&Object>) -> ErrorList {
    let group = definition.get_str(&["spec", "group"]);
    let is_community = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let state = approval_of(definition);
    if !is_community || old.is_some_and(|old| approval_of(old) == state) {
        return ErrorList::new();
    }
    let path = At::root(definition).child("metadata").child("annotations").path.key(APPROVED);
    let needed = format!("protected groups must have approval annotation \"{APPROVED}\"");
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    match state {
        Approval::Approved | Approval::Bypassed => ErrorList::new(),
        Approval::Missing => vec![Error::required(&path, format!("{needed}, {SEE}"))],
        Approval::Invalid => {
            let why = format!("{needed} with either a URL or a reason starting with \"unapproved\", {SEE}");
            vec![Error::invalid(&path, definition.annotation(APPROVED).unwrap_or_default(), why)]
        }
    }
}
