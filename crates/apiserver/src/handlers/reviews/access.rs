//! The three reviews that ask whether somebody may do something.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::selectors::{FieldRequirement, FieldSelector, LabelSelector, Operator, Requirement};
use apimachinery::validation::{
    UnknownOperator, validate_field_selector_requirement, validate_label_selector_requirement,
};
use apimachinery::{Object, Status, Value};
use serde_json::json;

use super::Call;
use crate::authentication::UserInfo;
use crate::authorization::{Attributes, Decision};
use crate::registry::metadata;

impl Call<'_> {
    pub(super) async fn review_access(&self, review: &mut Object) -> Result<(), Status> {
        if review.kind() == "LocalSubjectAccessReview" {
            metadata::match_namespace(self.kind.resource, &self.ctx.info.namespace, review)?;
        }
        let errors = validate(review);
        if !errors.is_empty() {
            return Err(Status::invalid(&self.kind.resource.group_kind(), "", &errors));
        }
        let own = review.kind() == "SelfSubjectAccessReview";
        let user = if own { self.ctx.user.as_ref().clone() } else { subject(review) };
        let authorizer = &self.server.access.authorizer;
        let text = |kind: &str, key: &str| review.get_str(&["spec", kind, key]);
        let mut ignored = Vec::new();
        let verdict = match review.get(&["spec", "resourceAttributes"]) {
            Some(about) => {
                let text = |key: &str| text("resourceAttributes", key);
                let fields = field_requirements(about.get("fieldSelector"));
                let labels = label_requirements(about.get("labelSelector"));
                ignored.extend(fields.what_is_ignored("fieldSelector"));
                ignored.extend(labels.what_is_ignored("labelSelector"));
                let attributes = Attributes {
                    namespace: text("namespace"),
                    api_version: if text("version").is_empty() { "*" } else { text("version") },
                    subresource: text("subresource"),
                    name: text("name"),
                    field_selector: &fields.requirements,
                    label_selector: &labels.requirements,
                    ..Attributes::resource(&user, text("verb"), text("group"), text("resource"))
                };
                authorizer.authorize(&attributes).await
            }
            None => {
                let text = |key: &str| text("nonResourceAttributes", key);
                authorizer.authorize(&Attributes::path(&user, text("verb"), text("path"))).await
            }
        };
        let mut status = json!({"allowed": verdict.decision == Decision::Allow});
        if verdict.decision == Decision::Deny {
            status["denied"] = json!(true);
        }
        if !verdict.reason.is_empty() {
            status["reason"] = json!(verdict.reason);
        }
        let errors: Vec<String> = verdict.error().into_iter().chain(ignored).collect();
        if !errors.is_empty() {
            status["evaluationError"] = json!(errors.join("; "));
        }
        review.set(&["status"], status);
        Ok(())
    }
}

fn validate(review: &Object) -> ErrorList {
    let spec = Path::new("spec");
    let mut errors = ErrorList::new();
    let resource = review.get(&["spec", "resourceAttributes"]);
    let path = review.get(&["spec", "nonResourceAttributes"]);
    let path_error = |path: &Value, why: &str| {
        let text = |key: &str| path.get(key).and_then(Value::as_str).unwrap_or_default();
        let shown = json!({"Path": text("path"), "Verb": text("verb")});
        Error::invalid(&spec.child("nonResourceAttributes"), shown, why)
    };
    match (resource, path) {
        (Some(_), Some(path)) => {
            errors.push(path_error(path, "cannot be specified in combination with resourceAttributes"));
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(Error::invalid(&spec.child("resourceAttributes"), Value::Null, why));
        }
        _ => {}
    }
    if review.kind() != "SelfSubjectAccessReview"
        && review.get_str(&["spec", "user"]).is_empty()
        && review.get_array(&["spec", "groups"]).is_empty()
    {
        let why = "at least one of user or group must be specified";
        errors.push(Error::invalid(&spec.child("user"), "", why));
    }
    if let Some(resource) = resource {
        let at = spec.child("resourceAttributes");
        for (selector, validate) in [
            ("fieldSelector", validate_field_selector_requirement as Validate),
            ("labelSelector", validate_label_selector_requirement),
        ] {
            if let Some(given) = resource.get(selector) {
                errors.extend(validate_selector(given, validate, &at.child(selector)));
            }
        }
    }
    let is_local = review.kind() == "LocalSubjectAccessReview";
    let mut metadata = review.get(&["metadata"]).and_then(Value::as_object).cloned().unwrap_or_default();
    metadata.remove("managedFields");
    if is_local {
        metadata.remove("namespace");
    }
    if !metadata.is_empty() {
        let why = if is_local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(Error::invalid(&Path::new("metadata"), Value::Object(metadata), why));
    }
    if is_local {
        let namespace = review.get_str(&["spec", "resourceAttributes", "namespace"]);
        if resource.is_some() && namespace != review.namespace() {
            let at = spec.child("resourceAttributes").child("namespace");
            errors.push(Error::invalid(&at, namespace, "must match metadata.namespace"));
        }
        if let Some(path) = path {
            errors.push(path_error(path, "disallowed on this kind of request"));
        }
    }
    errors
}

type Validate = fn(&Value, UnknownOperator, &Path) -> ErrorList;

/// A selector is given as text or as requirements.
fn validate_selector(selector: &Value, validate: Validate, at: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (raw, requirements) = (raw(selector), requirements(selector));
    match (raw.is_empty(), requirements.is_empty()) {
        (false, false) => {
            let why = "may not specified at the same time as requirements";
            errors.push(Error::invalid(&at.child("rawSelector"), raw, why));
        }
        (true, true) => {
            let why = format!("when {at} is specified, requirements or rawSelector is required");
            errors.push(Error::required(&at.child("requirements"), why));
        }
        _ => {}
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let at = at.child("requirements").index(index);
        // they come from clients that know more operators
        errors.extend(validate(requirement, UnknownOperator::Allowed, &at));
    }
    errors
}

fn raw(selector: &Value) -> &str {
    selector.get("rawSelector").and_then(Value::as_str).unwrap_or_default()
}

fn requirements(selector: &Value) -> &[Value] {
    selector.get("requirements").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// As much of a selector as can be understood. What is left out makes the question a broader one.
struct Understood<R> {
    requirements: Vec<R>,
    is_complete: bool,
}

impl<R> Understood<R> {
    fn new(
        selector: Option<&Value>,
        parse: fn(&str) -> Option<Vec<R>>,
        read: fn(&Value) -> Option<R>,
    ) -> Self {
        let everything = Self { requirements: Vec::new(), is_complete: true };
        let Some(selector) = selector else { return everything };
        match requirements(selector) {
            [] if raw(selector).is_empty() => everything,
            [] => {
                let parsed = parse(raw(selector));
                Self { is_complete: parsed.is_some(), requirements: parsed.unwrap_or_default() }
            }
            given => {
                let requirements: Vec<R> = given.iter().filter_map(read).collect();
                Self { is_complete: requirements.len() == given.len(), requirements }
            }
        }
    }

    fn what_is_ignored(&self, selector: &str) -> Option<String> {
        let how = if self.requirements.is_empty() { "ignored" } else { "partially ignored" };
        (!self.is_complete).then(|| format!("spec.resourceAttributes.{selector} {how} due to parse error"))
    }
}

fn operator_and_values(requirement: &Value) -> (&str, &str, Vec<String>) {
    let text = |key: &str| requirement.get(key).and_then(Value::as_str).unwrap_or_default();
    let values = requirement.get("values").and_then(Value::as_array).into_iter().flatten();
    (text("key"), text("operator"), values.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn field_requirements(selector: Option<&Value>) -> Understood<FieldRequirement> {
    let parse = |text: &str| FieldSelector::parse(text).ok().map(|selector| selector.requirements().to_vec());
    Understood::new(selector, parse, |requirement| {
        let (field, operator, mut values) = operator_and_values(requirement);
        let equals = match operator {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        let value = values.pop().filter(|_| values.is_empty())?;
        Some(FieldRequirement { field: field.to_owned(), equals, value })
    })
}

fn label_requirements(selector: Option<&Value>) -> Understood<Requirement> {
    let parse = |text: &str| LabelSelector::parse(text).ok().map(|selector| selector.requirements().to_vec());
    Understood::new(selector, parse, |requirement| {
        let (key, operator, values) = operator_and_values(requirement);
        let operator = match operator {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return None,
        };
        Requirement::new(key, operator, values).ok()
    })
}

/// Whom a SubjectAccessReview asks about.
fn subject(review: &Object) -> UserInfo {
    let strings = |values: &[Value]| -> Vec<String> {
        values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = review.get(&["spec", "extra"]).and_then(Value::as_object).into_iter().flatten();
    UserInfo {
        name: review.get_str(&["spec", "user"]).to_owned(),
        uid: review.get_str(&["spec", "uid"]).to_owned(),
        groups: strings(review.get_array(&["spec", "groups"])),
        extra: extra
            .map(|(key, values)| {
                (key.clone(), strings(values.as_array().map(Vec::as_slice).unwrap_or_default()))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(kind: &str, body: Value) -> Object {
        let mut review = Object::from(body);
        review.set(&["kind"], kind);
        review
    }

    #[test]
    fn reviews_are_checked() {
        let about = |selectors: Value| json!({"spec": {"user": "me", "resourceAttributes": selectors}});
        let labels = |selector: Value| about(json!({"labelSelector": selector}));
        let fields = |selector: Value| about(json!({"fieldSelector": selector}));
        let field = |requirement: Value| fields(json!({"requirements": [requirement]}));
        let label = |requirement: Value| labels(json!({"requirements": [requirement]}));
        let (subject, own, local) =
            ("SubjectAccessReview", "SelfSubjectAccessReview", "LocalSubjectAccessReview");
        let at = "spec.resourceAttributes";
        let cases = [
            (subject, about(json!({})), vec![]),
            (own, json!({"spec": {"resourceAttributes": {}}}), vec![]),
            (
                subject,
                json!({"spec": {"resourceAttributes": {}}}),
                vec!["spec.user: Invalid value: \"\": at least one of user or group must be specified".to_owned()],
            ),
            (
                own,
                json!({"spec": {}}),
                vec!["spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified".into()],
            ),
            (
                own,
                json!({"spec": {"resourceAttributes": {}, "nonResourceAttributes": {"path": "/x"}}}),
                vec!["spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"\"}: cannot be specified in combination with resourceAttributes".into()],
            ),
            (
                subject,
                json!({"metadata": {"name": "a", "managedFields": []}, "spec": {"user": "me", "resourceAttributes": {}}}),
                vec!["metadata: Invalid value: {\"name\":\"a\"}: must be empty".into()],
            ),
            (
                local,
                json!({"metadata": {"namespace": "a"}, "spec": {"user": "me", "resourceAttributes": {"namespace": "a"}}}),
                vec![],
            ),
            (
                local,
                json!({"metadata": {"namespace": "a", "name": "b"}, "spec": {"groups": ["g"],
                    "nonResourceAttributes": {"path": "/x", "verb": "get"}}}),
                vec![
                    "metadata: Invalid value: {\"name\":\"b\"}: must be empty except for namespace".into(),
                    "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"get\"}: disallowed on this kind of request".into(),
                ],
            ),
            (
                local,
                json!({"metadata": {"namespace": "a"}, "spec": {"user": "me", "resourceAttributes": {"namespace": "b"}}}),
                vec!["spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace".into()],
            ),
            (
                subject,
                fields(json!({"rawSelector": "foo", "requirements": [{"key": "k", "operator": "Other"}]})),
                vec![format!("{at}.fieldSelector.rawSelector: Invalid value: \"foo\": may not specified at the same time as requirements")],
            ),
            (
                subject,
                fields(json!({})),
                vec![format!("{at}.fieldSelector.requirements: Required value: when {at}.fieldSelector is specified, requirements or rawSelector is required")],
            ),
            (
                subject,
                labels(json!({})),
                vec![format!("{at}.labelSelector.requirements: Required value: when {at}.labelSelector is specified, requirements or rawSelector is required")],
            ),
            (
                subject,
                field(json!({"operator": "In"})),
                vec![
                    format!("{at}.fieldSelector.requirements[0].key: Required value: must be specified"),
                    format!("{at}.fieldSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
                ],
            ),
            (
                subject,
                field(json!({"key": "k", "operator": "Exists", "values": ["a"]})),
                vec![format!("{at}.fieldSelector.requirements[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'")],
            ),
            (
                own,
                label(json!({"key": "-", "operator": "NotIn"})),
                vec![
                    format!("{at}.labelSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
                    format!("{at}.labelSelector.requirements[0].key: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"),
                ],
            ),
            (subject, label(json!({"key": "k", "operator": "Newer"})), vec![]),
            (subject, fields(json!({"rawSelector": "no selector"})), vec![]),
        ];
        for (kind, body, wanted) in cases {
            let found: Vec<String> =
                validate(&review(kind, body.clone())).iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted, "{kind} {body}");
        }
    }

    #[test]
    fn selectors_are_used_as_far_as_they_are_understood() {
        let ignored = |selector: &str, how: &str| {
            Some(format!("spec.resourceAttributes.{selector} {how}ignored due to parse error"))
        };
        let fields = [
            (json!(null), "", None),
            (json!({"rawSelector": "a=1,b!=2"}), "a=1,b!=2", None),
            (json!({"rawSelector": "a"}), "", ignored("fieldSelector", "")),
            (
                json!({"requirements": [{"key": "a", "operator": "In", "values": ["1"]},
                    {"key": "b", "operator": "NotIn", "values": ["2"]}]}),
                "a=1,b!=2",
                None,
            ),
            (
                json!({"requirements": [{"key": "a", "operator": "In", "values": ["1"]},
                    {"key": "b", "operator": "Exists"}]}),
                "a=1",
                ignored("fieldSelector", "partially "),
            ),
            (
                json!({"requirements": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}),
                "",
                ignored("fieldSelector", ""),
            ),
        ];
        for (selector, wanted, why) in fields {
            let found = field_requirements(Some(&selector));
            let show = |one: &FieldRequirement| {
                format!("{}{}{}", one.field, if one.equals { "=" } else { "!=" }, one.value)
            };
            let shown: Vec<String> = found.requirements.iter().map(show).collect();
            assert_eq!(shown.join(","), wanted, "{selector}");
            assert_eq!(found.what_is_ignored("fieldSelector"), why, "{selector}");
        }
        let labels = [
            (json!({"rawSelector": "a in (1,2),!b"}), "a in (1,2),!b", None),
            (json!({"rawSelector": "a in"}), "", ignored("labelSelector", "")),
            (
                json!({"requirements": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Newer"}]}),
                "a",
                ignored("labelSelector", "partially "),
            ),
        ];
        for (selector, wanted, why) in labels {
            let found = label_requirements(Some(&selector));
            let shown: Vec<String> = found.requirements.iter().map(ToString::to_string).collect();
            assert_eq!(shown.join(","), wanted, "{selector}");
            assert_eq!(found.what_is_ignored("labelSelector"), why, "{selector}");
        }
    }
}
