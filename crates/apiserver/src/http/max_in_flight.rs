//! How many requests may be answered at once: so many that read, so many that write. Who comes too late is told to
//! try again; who may do anything always gets an answer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::request_info::RequestInfo;
use crate::authentication::{SYSTEM_PRIVILEGED_GROUP, UserInfo};

/// Places for requests that run at once. Zero of a sort is no limit.
pub struct MaxInFlight {
    reading: Option<Arc<Semaphore>>,
    mutating: Option<Arc<Semaphore>>,
}

/// A place that is given back when dropped; empty for who needs none.
#[derive(Debug)]
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

impl MaxInFlight {
    pub fn new(reading: usize, mutating: usize) -> Self {
        let places =
            |limit: usize| (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))));
        Self { reading: places(reading), mutating: places(mutating) }
    }

    /// A place for a request, if there is one.
    pub fn enter(&self, info: &RequestInfo, user: &UserInfo) -> Option<Place> {
        let none = Place { _permit: None };
        if info.is_long_running() {
            return Some(none);
        }
        let places = if is_mutating(info) { &self.mutating } else { &self.reading };
        let Some(places) = places else { return Some(none) };
        match places.clone().try_acquire_owned() {
            Ok(permit) => Some(Place { _permit: Some(permit) }),
            Err(_) if user.is_in(SYSTEM_PRIVILEGED_GROUP) => Some(none),
            Err(_) => None,
        }
    }
}

pub fn is_mutating(info: &RequestInfo) -> bool {
    !matches!(info.verb, "get" | "list" | "watch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_run_out_by_sort_and_come_back() {
        let limits = MaxInFlight::new(1, 2);
        let info = |verb, subresource: &str| RequestInfo {
            is_resource: true,
            verb,
            subresource: subresource.into(),
            ..RequestInfo::default()
        };
        let jane = UserInfo::new("jane", &[]);
        let root = UserInfo::new("root", &[SYSTEM_PRIVILEGED_GROUP]);
        let enter = |verb, user| limits.enter(&info(verb, ""), user);
        let first = enter("get", &jane);
        assert!(first.is_some());
        assert!(enter("list", &jane).is_none());
        assert!(enter("list", &root).is_some(), "who may do anything gets an answer");
        assert!(enter("watch", &jane).is_some() && limits.enter(&info("get", "log"), &jane).is_some());
        let writes = [enter("create", &jane), enter("deletecollection", &jane)];
        assert!(writes.iter().all(Option::is_some) && enter("patch", &jane).is_none());
        drop(first);
        assert!(enter("get", &jane).is_some());
        let unlimited = MaxInFlight::new(0, 0);
        let many: Vec<_> = (0..1000).map(|_| unlimited.enter(&info("create", ""), &jane)).collect();
        assert!(many.iter().all(Option::is_some));
    }
}
