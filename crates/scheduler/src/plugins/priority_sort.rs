//! Pods of higher priority first, then those that wait longer.

use crate::framework::{Plugin, QueueSort};
use crate::queue::QueuedPod;

pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }
}

impl QueueSort for PrioritySort {
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool {
        let rank = |pod: &QueuedPod| (-i64::from(pod.info.priority), pod.timestamp, pod.sequence);
        rank(a) < rank(b)
    }
}
