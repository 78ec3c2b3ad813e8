//! The policy group, `policy/v1`.

use apimachinery::Object;
use apimachinery::field::ErrorList;
use serde_json::{Value, json};

use crate::catalogue::{Column, Resource, Subresource};
use crate::printers::{AGE, NAME, column, count};
use crate::strategy::{Strategy, bump_generation, keep_spec, keep_status, reset_status_for_create};
use crate::validation;
use crate::validation::value::shown;

pub const RESOURCES: &[Resource] = &[Resource {
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    prefix: "poddisruptionbudgets",
    subresources: &[Subresource::status("PodDisruptionBudget")],
    columns: COLUMNS,
    strategy: &Budgets,
    ..Resource::in_group("policy", "v1", "k8s.io.api.policy.v1")
}];

fn number(budget: &Object, key: &str) -> Value {
    json!(budget.get(&["spec", key]).map_or_else(|| "N/A".to_owned(), shown))
}

const COLUMNS: &[Column] = &[
    NAME,
    column("Min Available", "string", "The minimum number of pods that must be available.", |budget, _| {
        number(budget, "minAvailable")
    }),
    column(
        "Max Unavailable",
        "string",
        "The maximum number of pods that may be unavailable.",
        |budget, _| number(budget, "maxUnavailable"),
    ),
    column(
        "Allowed Disruptions",
        "integer",
        "Calculated number of pods that may be disrupted at this time.",
        |budget, _| json!(count(budget, &["status", "disruptionsAllowed"])),
    ),
    AGE,
];

struct Budgets;

impl Strategy for Budgets {
    fn prepare_for_create(&self, budget: &mut Object) {
        reset_status_for_create(budget);
        budget.set_generation(1);
    }

    fn validate(&self, budget: &Object) -> ErrorList {
        validation::pod_disruption_budget(budget)
    }

    fn prepare_for_update(&self, budget: &mut Object, old: &Object) {
        keep_status(budget, old);
        bump_generation(budget, old);
    }

    fn prepare_for_status_update(&self, budget: &mut Object, old: &Object) {
        keep_spec(budget, old);
    }

    fn validate_status_update(&self, budget: &Object, _old: &Object) -> ErrorList {
        validation::pod_disruption_budget_status_update(budget)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        crate::strategy::reset_the_other(subresource)
    }
}
