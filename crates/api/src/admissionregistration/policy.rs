//! Admission policies and their bindings. Expressions are kept as they are: what they mean is not looked at here.

use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use apimachinery::{Object, Value};

use super::matching::{self, FAILURE_POLICIES};
use crate::core::defaults::{child, set};
use crate::strategy::{
    Strategy, bump_generation, keep_metadata, keep_spec, keep_status, reset_metadata_too,
    reset_status_for_create,
};
use crate::validation::at::At;

const MAX_AUDIT_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

fn spec(object: &mut Object) -> Option<&mut serde_json::Map<String, Value>> {
    object.as_map_mut().get_mut("spec").and_then(Value::as_object_mut)
}

fn default_policy(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    set(spec, "failurePolicy", "Fail");
    if let Some(matching) = child(spec, "matchConstraints") {
        default_matching(matching);
    }
}

fn default_matching(matching: &mut serde_json::Map<String, Value>) {
    matching::default_match(matching);
    for key in ["resourceRules", "excludeResourceRules"] {
        matching::default_rules(matching, key);
    }
}

/// What both kinds of policies have.
fn failure_and_param(spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let failure = spec.child("failurePolicy");
    if failure.is_set() {
        errors.extend(failure.supported(&FAILURE_POLICIES));
    } else {
        errors.push(failure.required(""));
    }
    let param = spec.child("paramKind");
    if param.is_set() {
        errors.extend(param_kind(&param));
    }
    errors
}

fn constraints(constraints: &At<'_>) -> ErrorList {
    if !constraints.is_set() {
        return vec![constraints.required("")];
    }
    let mut errors = matching::match_resources(constraints);
    let rules = constraints.child("resourceRules");
    if rules.is_empty() {
        errors.push(rules.required(""));
    }
    errors
}

fn variables(spec: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for variable in spec.each("variables") {
        let (name, expression) = (variable.child("name"), variable.child("expression"));
        if name.str().trim().is_empty() {
            errors.push(name.required("name is not specified"));
        } else if !is_cel_identifier(name.str()) {
            errors.push(name.invalid("must be a valid CEL identifier"));
        }
        if expression.str().trim().is_empty() {
            errors.push(expression.required("expression is not specified"));
        }
    }
    errors
}

fn is_cel_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !RESERVED.contains(&name)
}

fn param_kind(param: &At<'_>) -> ErrorList {
    let (version, kind) = (param.child("apiVersion"), param.child("kind"));
    let mut errors = ErrorList::new();
    let text = version.str();
    if text.is_empty() {
        errors.push(version.required(""));
    } else if text.matches('/').count() > 1 {
        errors.push(version.invalid(format!("unexpected GroupVersion string: {text}")));
    } else {
        let (group, number) = text.split_once('/').unwrap_or(("", text));
        let wrong = if group.is_empty() { Vec::new() } else { names::is_dns1123_subdomain(group) };
        if !wrong.is_empty() {
            errors.push(Error::invalid(&version.path, group, wrong.join(",")));
        }
        let wrong = names::is_dns1035_label(number);
        if number.is_empty() {
            errors.push(version.invalid("version must be specified"));
        } else if !wrong.is_empty() {
            errors.push(Error::invalid(&version.path, number, wrong.join(",")));
        }
    }
    let wrong = names::is_dns1035_label(&kind.str().to_lowercase());
    if kind.is_empty() {
        errors.push(kind.required(""));
    } else if !wrong.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(kind.invalid(why));
    }
    errors
}

/// Whether an update could have made conditions wrong that were right.
fn conditions_moved(object: &Object, old: &Object) -> bool {
    ["paramKind", "matchConditions"].iter().any(|key| object.get(&["spec", key]) != old.get(&["spec", key]))
}

pub struct ValidatingPolicies;

impl Strategy for ValidatingPolicies {
    fn default(&self, object: &mut Object) {
        default_policy(object);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        reset_status_for_create(object);
        object.set_generation(1);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        keep_status(object, old);
        bump_generation(object, old);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        validating(object, true)
    }

    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        validating(object, conditions_moved(object, old))
    }

    fn prepare_for_status_update(&self, object: &mut Object, old: &Object) {
        keep_spec(object, old);
        keep_metadata(object, old);
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> ErrorList {
        let status = At::root(object).child("status");
        let mut errors = ErrorList::new();
        for warning in status.child("typeChecking").each("expressionWarnings") {
            errors.extend(warning.child("warning").must_be_set());
            let place = warning.child("fieldRef");
            if place.str().trim().is_empty() {
                errors.push(place.required(""));
            }
        }
        errors.extend(status.child("conditions").conditions());
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        reset_metadata_too(subresource)
    }
}

fn validating(object: &Object, judge_conditions: bool) -> ErrorList {
    let spec = At::root(object).child("spec");
    let mut errors = failure_and_param(&spec);
    errors.extend(constraints(&spec.child("matchConstraints")));
    if judge_conditions {
        errors.extend(matching::match_conditions(&spec.child("matchConditions")));
    }
    errors.extend(variables(&spec));
    let (validations, annotations) = (spec.child("validations"), spec.child("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        errors.push(validations.required(why));
        errors.push(annotations.required(why));
        return errors;
    }
    for validation in validations.items() {
        errors.extend(self::validation(&validation));
    }
    errors.extend(audit_annotations(&annotations, object.name()));
    errors
}

fn validation(validation: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let expression = validation.child("expression");
    if expression.str().trim().is_empty() {
        errors.push(expression.required("expression is not specified"));
    }
    let (message, by_expression) = (validation.child("message"), validation.child("messageExpression"));
    if !by_expression.is_empty() && by_expression.str().trim().is_empty() {
        errors.push(by_expression.invalid("must be non-empty if specified"));
    }
    if !message.is_empty() && message.str().trim().is_empty() {
        errors.push(message.invalid("must be non-empty if specified"));
    } else if message.str().trim().contains(['\n', '\r']) {
        errors.push(message.invalid("must not contain line breaks"));
    }
    errors.extend(validation.child("reason").supported(&["Forbidden", "Invalid", "RequestEntityTooLarge"]));
    errors
}

fn audit_annotations(annotations: &At<'_>, policy: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let why = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.push(annotations.invalid(why));
    }
    let mut seen: Vec<&str> = Vec::new();
    for annotation in annotations.items() {
        let (key, value) = (annotation.child("key"), annotation.child("valueExpression"));
        if policy.is_empty() {
            errors.push(key.invalid("requires metadata.name be non-empty"));
        } else {
            let whole = format!("{policy}/{}", key.str());
            let wrong = names::is_qualified_name(&whole).into_iter();
            errors.extend(wrong.map(|why| Error::invalid(&key.path, whole.as_str(), why)));
        }
        let expression = value.str().trim();
        if expression.is_empty() {
            errors.push(value.required("valueExpression is not specified"));
        } else if expression.len() > MAX_VALUE_EXPRESSION {
            let why = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
            errors.push(value.required(why));
        }
        if seen.contains(&key.str()) {
            errors.push(key.duplicate());
        }
        seen.push(key.str());
    }
    errors
}

pub struct MutatingPolicies;

impl Strategy for MutatingPolicies {
    fn default(&self, object: &mut Object) {
        default_policy(object);
        if let Some(spec) = spec(object) {
            set(spec, "reinvocationPolicy", "Never");
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set_generation(1);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        bump_generation(object, old);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        mutating(&At::root(object).child("spec"), true)
    }

    fn validate_update(&self, object: &Object, old: &Object) -> ErrorList {
        mutating(&At::root(object).child("spec"), conditions_moved(object, old))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

fn mutating(spec: &At<'_>, judge_conditions: bool) -> ErrorList {
    let constraints = spec.child("matchConstraints");
    let mut errors = failure_and_param(spec);
    errors.extend(self::constraints(&constraints));
    errors.extend(mutated(&constraints));
    if judge_conditions {
        errors.extend(matching::match_conditions(&spec.child("matchConditions")));
    }
    errors.extend(variables(spec));
    let mutations = spec.child("mutations");
    if mutations.is_empty() {
        errors.push(mutations.required("mutations must contain at least one item"));
    }
    for mutation in mutations.items() {
        errors.extend(self::mutation(&mutation));
    }
    errors.extend(spec.child("reinvocationPolicy").one_of(&["IfNeeded", "Never"]));
    errors
}

/// What is deleted cannot be mutated.
fn mutated(matching: &At<'_>) -> ErrorList {
    const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
    let path = matching.path.child("resourceRules").child("operations");
    let operations = matching.each("resourceRules").flat_map(|rule| rule.each("operations"));
    let others = operations.filter(|operation| !OPERATIONS.contains(&operation.str()));
    others.map(|operation| Error::not_supported(&path, operation.str(), &OPERATIONS)).collect()
}

fn mutation(mutation: &At<'_>) -> ErrorList {
    let kind = mutation.child("patchType");
    let (wanted, other) = match kind.str() {
        "" => return vec![kind.required("")],
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        _ => return vec![kind.not_supported(&["ApplyConfiguration", "JSONPatch"])],
    };
    let mut errors = ErrorList::new();
    let patch = mutation.child(wanted);
    if !patch.is_set() {
        errors.push(patch.required(format!("must be specified when patchType is {}", kind.str())));
    } else if patch.text("expression").trim().is_empty() {
        errors.push(patch.child("expression").required(""));
    }
    if mutation.has(other) {
        let why = format!("must not be specified when patchType is {}", kind.str());
        errors.push(Error::invalid(&mutation.child(other).path, format!("{{{other}}}"), why));
    }
    errors
}

pub struct Bindings {
    pub validating: bool,
}

impl Strategy for Bindings {
    fn default(&self, object: &mut Object) {
        let Some(spec) = spec(object) else { return };
        if let Some(matching) = child(spec, "matchResources") {
            default_matching(matching);
        }
        if let Some(reference) = child(spec, "paramRef") {
            set(reference, "parameterNotFoundAction", "Deny");
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set_generation(1);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        bump_generation(object, old);
    }

    fn validate(&self, object: &Object) -> ErrorList {
        let spec = At::root(object).child("spec");
        let policy = spec.child("policyName");
        let mut errors = ErrorList::new();
        if policy.is_empty() {
            errors.push(policy.required(""));
        } else {
            errors.extend(policy.subdomain());
        }
        let (reference, matching) = (spec.child("paramRef"), spec.child("matchResources"));
        if reference.is_set() {
            errors.extend(param_ref(&reference));
        }
        if matching.is_set() {
            errors.extend(matching::match_resources(&matching));
        }
        if !self.validating {
            errors.extend(mutated(&matching));
        }
        if self.validating {
            errors.extend(actions(&spec.child("validationActions")));
        }
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

fn param_ref(reference: &At<'_>) -> ErrorList {
    let (name, selector) = (reference.child("name"), reference.child("selector"));
    let both = "name and selector are mutually exclusive";
    let mut errors = ErrorList::new();
    if !name.is_empty() {
        errors.extend(name.path_segment());
        if selector.is_set() {
            errors.push(name.forbidden(both));
        }
    }
    if selector.is_set() {
        errors.extend(selector.label_selector());
        if !name.is_empty() {
            errors.push(selector.forbidden(both));
        }
    }
    if name.is_empty() && !selector.is_set() {
        errors.push(reference.required("one of name or selector must be specified"));
    }
    errors.extend(reference.child("parameterNotFoundAction").one_of(&["Deny", "Allow"]));
    errors
}

fn actions(actions: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, action) in actions.items().enumerate() {
        errors.extend(action.supported(&["Audit", "Deny", "Warn"]));
        if actions.list()[..index].contains(action.value) {
            errors.push(action.duplicate());
        }
    }
    let has = |name: &str| actions.list().iter().any(|action| action == name);
    if has("Deny") && has("Warn") {
        errors.push(actions.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        ));
    }
    if actions.is_empty() {
        errors.push(actions.required("at least one validation action is required"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::forms::check;

    fn constraints() -> Value {
        json!({"resourceRules": [{
            "operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"],
        }]})
    }

    fn policy(strategy: &dyn Strategy, spec: Value) -> Object {
        let mut object =
            Object::from(json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": constraints()}}));
        for (key, value) in spec.as_object().into_iter().flatten() {
            object.set(&["spec", key], value.clone());
        }
        strategy.default(&mut object);
        object
    }

    #[test]
    fn what_is_wrong_with_a_validating_policy() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!({"validations": [{"expression": "true"}]}), vec![]),
            (
                json!({}),
                vec![
                    "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                    "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
                ],
            ),
            (
                json!({
                    "paramKind": {"apiVersion": "a/b/c"}, "variables": [{"name": "in"}],
                    "validations": [{"expression": " ", "message": "a\nb", "reason": "Odd"}],
                    "auditAnnotations": [{"key": "k", "valueExpression": "1"}, {"key": "k"}],
                }),
                vec![
                    "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                    "spec.paramKind.kind: Required value",
                    "spec.variables[0].name: Invalid value: \"in\": must be a valid CEL identifier",
                    "spec.variables[0].expression: Required value: expression is not specified",
                    "spec.validations[0].expression: Required value: expression is not specified",
                    "spec.validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks",
                    "spec.validations[0].reason: Unsupported value: \"Odd\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
                    "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                    "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
                ],
            ),
        ];
        for (spec, expected) in cases {
            check(ValidatingPolicies.validate(&policy(&ValidatingPolicies, spec)), &expected);
        }
    }

    #[test]
    fn what_is_wrong_with_a_mutating_policy() {
        let mut object = policy(
            &MutatingPolicies,
            json!({"mutations": [
                {"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}},
                {"patchType": "ApplyConfiguration", "jsonPatch": {"expression": "[]"}},
                {"patchType": "Odd"},
                {"patchType": "JSONPatch", "jsonPatch": {"expression": " "}},
            ], "matchConditions": [{"name": "a"}]}),
        );
        object.set(
            &["spec", "matchConstraints", "resourceRules"],
            json!([{
                "operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            }]),
        );
        check(
            MutatingPolicies.validate(&object),
            &[
                "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
                "spec.matchConditions[0].expression: Required value",
                "spec.mutations[1].applyConfiguration: Required value: must be specified when patchType is ApplyConfiguration",
                "spec.mutations[1].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration",
                "spec.mutations[2].patchType: Unsupported value: \"Odd\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
                "spec.mutations[3].jsonPatch.expression: Required value",
            ],
        );
    }

    #[test]
    fn a_binding_mutates_nothing_that_is_deleted() {
        let mut rules = constraints();
        rules["resourceRules"][0]["operations"] = json!(["DELETE"]);
        let mut object = Object::from(
            json!({"spec": {"policyName": "p", "matchResources": rules, "validationActions": ["Deny"]}}),
        );
        Bindings { validating: false }.default(&mut object);
        check(Bindings { validating: true }.validate(&object), &[]);
        check(
            Bindings { validating: false }.validate(&object),
            &[
                "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            ],
        );
    }

    #[test]
    fn a_status_says_what_is_wrong_with_which_expression() {
        let object = Object::from(json!({"status": {"typeChecking": {"expressionWarnings": [
            {"warning": " ", "fieldRef": " "}, {"fieldRef": "spec.validations[0].expression"},
        ]}}}));
        check(
            ValidatingPolicies.validate_status_update(&object, &object),
            &[
                "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
                "status.typeChecking.expressionWarnings[1].warning: Required value",
            ],
        );
    }

    #[test]
    fn what_is_wrong_with_a_binding() {
        let bindings = Bindings { validating: true };
        let mut object = Object::from(json!({"spec": {
            "paramRef": {"name": "a", "selector": {}}, "validationActions": ["Deny", "Warn", "Deny"],
        }}));
        bindings.default(&mut object);
        check(
            bindings.validate(&object),
            &[
                "spec.policyName: Required value",
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.validationActions[2]: Duplicate value: \"Deny\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Deny\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
            ],
        );
    }
}
