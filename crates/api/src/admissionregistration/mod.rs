//! `admissionregistration.k8s.io/v1`: webhooks and policies. What they do to requests belongs to the API server.

mod matching;
mod policy;
mod webhook;

pub(crate) use webhook::client_config;

use apimachinery::Object;
use serde_json::json;

use crate::catalogue::{Column, Encoding, Resource, Subresource};
use crate::printers::{AGE, NAME, column};
use crate::validation::at::At;

const GROUP: Resource = Resource {
    namespaced: false,
    categories: &["api-extensions"],
    ..Resource::in_group("admissionregistration.k8s.io", "v1", "k8s.io.api.admissionregistration.v1")
};

const WEBHOOK_COLUMNS: &[Column] = &[
    NAME,
    column("Webhooks", "integer", "How many webhooks there are.", |c, _| {
        json!(c.get_array(&["webhooks"]).len())
    }),
    AGE,
];

const PARAM_KIND: Column = column("ParamKind", "string", "The kind of parameters.", |policy, _| {
    let text = |key: &str| policy.get_str(&["spec", "paramKind", key]);
    match policy.get(&["spec", "paramKind"]) {
        Some(_) => json!(format!("{}/{}", text("apiVersion"), text("kind"))),
        None => json!("<unset>"),
    }
});

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    column("PolicyName", "string", "The policy that is bound.", |b, _| {
        json!(b.get_str(&["spec", "policyName"]))
    }),
    column("ParamRef", "string", "The parameters.", |b, _| json!(param_ref(b))),
    AGE,
];

/// Parameters by their name, or by a selector.
fn param_ref(binding: &Object) -> String {
    let reference = At::of(binding, &["spec", "paramRef"]);
    let (name, namespace, selector) =
        (reference.text("name"), reference.text("namespace"), reference.child("selector"));
    match (name, namespace) {
        ("", _) if selector.is_set() => selector_text(&selector),
        ("", _) => "<unset>".into(),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}

/// A selector of labels in the form of Go's generated `String`.
fn selector_text(selector: &At<'_>) -> String {
    let labels: String = selector
        .child("matchLabels")
        .entries()
        .map(|(key, value)| format!("{key}: {},", value.str()))
        .collect();
    let expression = |each: At<'_>| {
        let (key, operator) = (each.text("key"), each.text("operator"));
        let values = each.strings("values").join(" ");
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    };
    let expressions: String = selector.each("matchExpressions").map(expression).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "MutatingAdmissionPolicy",
        plural: "mutatingadmissionpolicies",
        singular: "mutatingadmissionpolicy",
        prefix: "mutatingadmissionpolicies",
        encoding: Encoding::ProtobufAs("v1beta1"),
        columns: &[
            NAME,
            column("Mutations", "integer", "How many mutations there are.", |p, _| {
                json!(p.get_array(&["spec", "mutations"]).len())
            }),
            PARAM_KIND,
            AGE,
        ],
        strategy: &policy::MutatingPolicies,
        ..GROUP
    },
    Resource {
        kind: "MutatingAdmissionPolicyBinding",
        plural: "mutatingadmissionpolicybindings",
        singular: "mutatingadmissionpolicybinding",
        prefix: "mutatingadmissionpolicybindings",
        encoding: Encoding::ProtobufAs("v1beta1"),
        columns: BINDING_COLUMNS,
        strategy: &policy::Bindings { validating: false },
        ..GROUP
    },
    Resource {
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        singular: "mutatingwebhookconfiguration",
        prefix: "mutatingwebhookconfigurations",
        columns: WEBHOOK_COLUMNS,
        strategy: &webhook::Webhooks { mutating: true },
        ..GROUP
    },
    Resource {
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        singular: "validatingadmissionpolicy",
        prefix: "validatingadmissionpolicies",
        subresources: &[Subresource::status("ValidatingAdmissionPolicy")],
        columns: &[
            NAME,
            column("Validations", "integer", "How many validations there are.", |p, _| {
                json!(p.get_array(&["spec", "validations"]).len())
            }),
            PARAM_KIND,
            AGE,
        ],
        strategy: &policy::ValidatingPolicies,
        ..GROUP
    },
    Resource {
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        singular: "validatingadmissionpolicybinding",
        prefix: "validatingadmissionpolicybindings",
        columns: BINDING_COLUMNS,
        strategy: &policy::Bindings { validating: true },
        ..GROUP
    },
    Resource {
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        singular: "validatingwebhookconfiguration",
        prefix: "validatingwebhookconfigurations",
        columns: WEBHOOK_COLUMNS,
        strategy: &webhook::Webhooks { mutating: false },
        ..GROUP
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_in_a_column() {
        let of =
            |reference: serde_json::Value| param_ref(&Object::from(json!({"spec": {"paramRef": reference}})));
        assert_eq!(param_ref(&Object::default()), "<unset>");
        assert_eq!(of(json!({"name": "a", "namespace": "n"})), "n/a");
        assert_eq!(of(json!({"name": "a"})), "*/a");
        assert_eq!(
            of(json!({"selector": {
                "matchLabels": {"b": "c", "a": "b"},
                "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}],
            }})),
            "&LabelSelector{MatchLabels:map[string]string{a: b,b: c,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
        );
    }
}
