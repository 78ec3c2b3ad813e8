//! What plugins remember from one extension point to the next, while one pod is being scheduled.

use std::any::{Any, TypeId};

/// Values by type, one of each. There are only a handful, so they are found by looking at all of them.
#[derive(Default)]
pub struct CycleState {
    values: Vec<(TypeId, Box<dyn Any + Send + Sync>)>,
}

impl CycleState {
    pub fn write<T: Any + Send + Sync>(&mut self, value: T) {
        let id = TypeId::of::<T>();
        match self.values.iter_mut().find(|(at, _)| *at == id) {
            Some((_, slot)) => *slot = Box::new(value),
            None => self.values.push((id, Box::new(value))),
        }
    }

    pub fn read<T: Any>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        self.values.iter().find(|(at, _)| *at == id).and_then(|(_, value)| value.downcast_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_each_type_is_kept() {
        let mut state = CycleState::default();
        state.write(1_u32);
        state.write("text");
        state.write(2_u32);
        assert_eq!((state.read::<u32>(), state.read::<&str>()), (Some(&2), Some(&"text")));
        assert_eq!(state.read::<u64>(), None);
    }
}
