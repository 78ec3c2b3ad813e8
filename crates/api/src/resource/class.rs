//! Classes of devices.

use apimachinery::Object;
use apimachinery::field::ErrorList;

use super::forms::{MAX_CONFIG, MAX_SELECTORS, bounded, configuration, selector};
use crate::strategy::{Strategy, bump_generation};
use crate::validation::at::At;
use crate::validation::resources::is_extended;

pub struct DeviceClasses;

impl Strategy for DeviceClasses {
    fn prepare_for_create(&self, class: &mut Object) {
        class.set_generation(1);
    }

    fn prepare_for_update(&self, class: &mut Object, old: &Object) {
        bump_generation(class, old);
    }

    fn validate(&self, class: &Object) -> ErrorList {
        let spec = At::root(class).child("spec");
        let mut errors = bounded(&spec.child("selectors"), MAX_SELECTORS, selector);
        errors.extend(bounded(&spec.child("config"), MAX_CONFIG, configuration));
        let name = spec.child("extendedResourceName");
        if name.is_set() && !is_extended(name.str()) {
            errors.push(name.invalid("must be a valid extended resource name"));
        }
        errors
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}
