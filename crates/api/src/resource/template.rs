//! Templates of claims for devices.

use apimachinery::Object;
use apimachinery::field::ErrorList;

use super::claim;
use crate::strategy::{NamespaceLabel, Strategy};
use crate::validation::at::At;
use crate::validation::claim::template_metadata;
use crate::validation::forms::unchanged;

pub struct ResourceClaimTemplates;

impl Strategy for ResourceClaimTemplates {
    fn default(&self, template: &mut Object) {
        if let Some(spec) = template.as_value_mut().pointer_mut("/spec/spec") {
            claim::default_spec(spec);
        }
    }

    fn prepare_for_create(&self, _template: &mut Object) {}

    fn prepare_for_update(&self, _template: &mut Object, _old: &Object) {}

    fn validate(&self, template: &Object) -> ErrorList {
        let spec = At::root(template).child("spec");
        let metadata = spec.child("metadata");
        let mut errors = template_metadata(&metadata);
        errors.extend(claim::validate_spec(&spec.child("spec")));
        errors
    }

    fn validate_update(&self, template: &Object, old: &Object) -> ErrorList {
        unchanged(&At::root(template).child("spec"), &At::root(old).child("spec"))
    }

    fn needs_namespace_label(&self, template: &Object, old: Option<&Object>) -> Option<NamespaceLabel> {
        match old {
            None => claim::admin_access(&At::root(template).child("spec").child("spec")),
            Some(_) => None,
        }
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}
