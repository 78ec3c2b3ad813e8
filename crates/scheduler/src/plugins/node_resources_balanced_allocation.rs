//! Likes nodes whose CPU and memory would be used to the same degree.

use crate::cache::Snapshot;
use crate::framework::{Applies, CycleState, MAX_NODE_SCORE, Plugin, PreScore, Score, Status};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub struct BalancedAllocation;

fn fraction(requested: i64, allocatable: i64) -> Option<f64> {
    (allocatable != 0).then(|| (requested as f64 / allocatable as f64).min(1.0))
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
}

impl PreScore for BalancedAllocation {
    /// A pod that asks for neither would make every balanced node its favourite.
    fn pre_score(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &[&NodeInfo],
        _: &Snapshot,
    ) -> Result<Applies, Status> {
        let best_effort = pod.requests.milli_cpu == 0 && pod.requests.memory == 0;
        Ok(if best_effort { Applies::Skip } else { Applies::Everywhere })
    }
}

impl Score for BalancedAllocation {
    /// One less the standard deviation of the two fractions, which for two is half their distance.
    fn score(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        nodes: &[&NodeInfo],
        scores: &mut [i64],
    ) -> Result<(), Status> {
        for (score, node) in scores.iter_mut().zip(nodes) {
            let cpu = fraction(node.requested.milli_cpu + pod.requests.milli_cpu, node.allocatable.milli_cpu);
            let memory = fraction(node.requested.memory + pod.requests.memory, node.allocatable.memory);
            let deviation = match (cpu, memory) {
                (Some(cpu), Some(memory)) => ((cpu - memory) / 2.0).abs(),
                _ => 0.0,
            };
            *score = ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64;
        }
        Ok(())
    }
}
