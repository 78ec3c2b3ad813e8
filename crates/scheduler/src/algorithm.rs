//! Finds the best node for one pod: filters nodes until enough are found that can take it, and scores those.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cache::{NodeId, Snapshot};
use crate::framework::{Code, CycleState, Diagnosis, FitError, Framework, Status};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// So many nodes are always worth looking for.
const MIN_FEASIBLE_NODES: usize = 100;
const MIN_PERCENTAGE: usize = 5;

/// Why no node was found.
#[derive(Debug)]
pub enum Failure {
    NoNodes,
    Fit(Box<FitError>),
    Error(Status),
}

pub struct Algorithm {
    /// Of all nodes, how many percent to find before scoring; zero adapts to the size of the cluster.
    percentage_of_nodes_to_score: usize,
    /// Where the next search begins, so that all nodes are looked at in turn.
    next_start: usize,
    random: StdRng,
}

impl Algorithm {
    pub fn new(percentage_of_nodes_to_score: usize, seed: u64) -> Self {
        Self { percentage_of_nodes_to_score, next_start: 0, random: StdRng::seed_from_u64(seed) }
    }

    pub fn schedule(
        &mut self,
        framework: &Framework,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<NodeId, Failure> {
        if snapshot.is_empty() {
            return Err(Failure::NoNodes);
        }
        let feasible = self.find_nodes(framework, state, pod, snapshot)?;
        if let [only] = feasible.as_slice() {
            return Ok(*only);
        }
        let nodes: Vec<&NodeInfo> = feasible.iter().map(|id| snapshot.node(*id)).collect();
        let totals = framework.run_score(state, pod, &nodes, snapshot).map_err(Failure::Error)?;
        Ok(feasible[self.pick(&totals)])
    }

    /// The nodes that can take the pod: at least one.
    fn find_nodes(
        &mut self,
        framework: &Framework,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<Vec<NodeId>, Failure> {
        let mut diagnosis = Diagnosis::default();
        let all_nodes = snapshot.len();
        let (skipped, allowed, narrowed_by) = match framework.run_pre_filter(state, pod, snapshot) {
            Ok(found) => found,
            Err(status) if status.code == Code::Error => return Err(Failure::Error(status)),
            Err(status) => {
                diagnosis.pre_filter_message = status.message();
                diagnosis.unschedulable_plugins.insert(status.plugin);
                diagnosis.absent_nodes = Some(status);
                return Err(Failure::Fit(Box::new(FitError { all_nodes, diagnosis })));
            }
        };
        let named: Vec<NodeId>;
        let (before, after) = match &allowed {
            None => {
                let (before, after) = snapshot.order().split_at(self.next_start % all_nodes);
                (after, before)
            }
            Some(names) => {
                named = names.iter().filter_map(|name| Some(snapshot.get(name)?.0)).collect();
                let names: Vec<_> = narrowed_by.iter().copied().collect();
                diagnosis.unschedulable_plugins = narrowed_by;
                diagnosis.absent_nodes = Some(Status::unresolvable(format!(
                    "node(s) didn't satisfy plugin(s) [{}]",
                    names.join(" ")
                )));
                (named.as_slice(), [].as_slice())
            }
        };
        let enough = if framework.has_score() { self.nodes_to_find(before.len() + after.len()) } else { 1 };
        let filters = framework.filters(&skipped);
        let mut feasible = Vec::with_capacity(enough);
        'nodes: for id in before.iter().chain(after) {
            let node = snapshot.node(*id);
            for filter in &filters {
                if let Err(status) = filter.filter(state, pod, node) {
                    let status = status.with_plugin(filter.name());
                    if status.code == Code::Error {
                        return Err(Failure::Error(status));
                    }
                    diagnosis.add(*id, status);
                    continue 'nodes;
                }
            }
            feasible.push(*id);
            if feasible.len() >= enough {
                break;
            }
        }
        if allowed.is_none() {
            self.next_start = (self.next_start + feasible.len() + diagnosis.nodes.len()) % all_nodes;
        }
        if feasible.is_empty() {
            return Err(Failure::Fit(Box::new(FitError { all_nodes, diagnosis })));
        }
        Ok(feasible)
    }

    fn nodes_to_find(&self, nodes: usize) -> usize {
        if nodes < MIN_FEASIBLE_NODES {
            return nodes.max(1);
        }
        let percentage = match self.percentage_of_nodes_to_score {
            0 => 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE),
            set => set.min(100),
        };
        (nodes * percentage / 100).max(MIN_FEASIBLE_NODES)
    }

    /// The place of the highest score; among equals chance decides.
    fn pick(&mut self, totals: &[i64]) -> usize {
        let best = totals.iter().copied().max().unwrap_or_default();
        let equals = totals.iter().filter(|total| **total == best).count();
        let chosen = if equals > 1 { self.random.random_range(0..equals) } else { 0 };
        totals
            .iter()
            .enumerate()
            .filter(|(_, total)| **total == best)
            .nth(chosen)
            .map_or(0, |(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_nodes_are_looked_for_in_larger_clusters() {
        for (percentage, nodes, want) in [
            (0, 1, 1),
            (0, 99, 99),
            (0, 100, 100),
            (0, 1000, 420),
            (0, 5000, 500),
            (0, 6000, 300),
            (0, 50_000, 2500),
            (40, 1000, 400),
            (1, 1000, 100),
            (100, 5000, 5000),
        ] {
            assert_eq!(Algorithm::new(percentage, 0).nodes_to_find(nodes), want, "{percentage} {nodes}");
        }
    }

    #[test]
    fn equals_are_all_picked_sometimes_and_others_never() {
        let mut algorithm = Algorithm::new(0, 7);
        let mut picked = [0; 4];
        for _ in 0..200 {
            picked[algorithm.pick(&[5, 3, 5, 5])] += 1;
        }
        assert_eq!(picked[1], 0);
        assert!(picked[0] > 30 && picked[2] > 30 && picked[3] > 30, "{picked:?}");
    }
}
