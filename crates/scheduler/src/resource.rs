//! Amounts of resources as whole numbers, for the sums and comparisons that are made for every pod and node.

use std::collections::BTreeMap;

use component_helpers::amount::Amount;
use component_helpers::resource::{CPU, EPHEMERAL_STORAGE, MEMORY, PODS, ResourceList};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    pub milli_cpu: i64,
    /// Bytes, as `ephemeral_storage`.
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// How many pods a node may hold; requests leave it zero.
    pub allowed_pods: i64,
    /// Everything else, by name. There are few, so a list is searched.
    pub scalars: Vec<(Box<str>, i64)>,
}

impl Resource {
    pub fn from_list(list: &ResourceList) -> Self {
        let mut out = Self::default();
        for (name, amount) in list.iter() {
            out.add_amount(name, amount);
        }
        out
    }

    pub fn from_quantities(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut out = Self::default();
        for (name, quantity) in quantities.into_iter().flatten() {
            out.add_amount(name, Amount::of(quantity));
        }
        out
    }

    fn add_amount(&mut self, name: &str, amount: Amount) {
        match name {
            CPU => self.milli_cpu = self.milli_cpu.saturating_add(amount.milli_value()),
            MEMORY => self.memory = self.memory.saturating_add(amount.value()),
            EPHEMERAL_STORAGE => {
                self.ephemeral_storage = self.ephemeral_storage.saturating_add(amount.value());
            }
            PODS => self.allowed_pods = self.allowed_pods.saturating_add(amount.value()),
            other => self.add_scalar(other, amount.value()),
        }
    }

    fn add_scalar(&mut self, name: &str, value: i64) {
        match self.scalars.iter_mut().find(|(at, _)| &**at == name) {
            Some((_, sum)) => *sum = sum.saturating_add(value),
            None => self.scalars.push((name.into(), value)),
        }
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.iter().find(|(at, _)| &**at == name).map_or(0, |(_, value)| *value)
    }

    pub fn add(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(other.ephemeral_storage);
        for (name, value) in &other.scalars {
            self.add_scalar(name, *value);
        }
    }

    pub fn sub(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, value) in &other.scalars {
            self.add_scalar(name, -value);
        }
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalars.iter().all(|(_, value)| *value == 0)
    }

    /// Whether any amount is smaller than in `other`.
    pub fn is_less_in_any(&self, other: &Self) -> bool {
        self.milli_cpu < other.milli_cpu
            || self.memory < other.memory
            || self.ephemeral_storage < other.ephemeral_storage
            || other.scalars.iter().any(|(name, value)| self.scalar(name) < *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(pairs: &[(&str, &str)]) -> Resource {
        let quantities: BTreeMap<String, Quantity> =
            pairs.iter().map(|(name, text)| ((*name).to_owned(), Quantity((*text).to_owned()))).collect();
        Resource::from_quantities(Some(&quantities))
    }

    #[test]
    fn what_is_added_can_be_taken_away() {
        let mut sum = resource(&[("cpu", "1"), ("memory", "1Ki"), ("pods", "110"), ("example.com/gpu", "2")]);
        let before = sum.clone();
        let other = resource(&[("cpu", "250m"), ("ephemeral-storage", "5"), ("example.com/gpu", "1")]);
        sum.add(&other);
        assert_eq!(
            (sum.milli_cpu, sum.memory, sum.ephemeral_storage, sum.allowed_pods),
            (1250, 1024, 5, 110)
        );
        assert_eq!((sum.scalar("example.com/gpu"), sum.scalar("other")), (3, 0));
        assert!(before.is_less_in_any(&sum) && !sum.is_less_in_any(&before));
        sum.sub(&other);
        assert_eq!(sum, before);
        assert!(!sum.is_zero() && resource(&[("example.com/gpu", "0")]).is_zero());
    }
}
