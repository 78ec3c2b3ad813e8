//! Why no node can take a pod, told as users know it.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::{Code, Status};
use crate::cache::NodeId;

/// What was found out while looking for a node.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    pub nodes: Vec<(NodeId, Status)>,
    /// What holds for the nodes not in `nodes`, if anything is to be said of them.
    pub absent_nodes: Option<Status>,
    /// The plugins that turned the pod away: their events may bring it back.
    pub unschedulable_plugins: BTreeSet<&'static str>,
    pub pre_filter_message: String,
    pub post_filter_message: String,
}

impl Diagnosis {
    pub fn add(&mut self, node: NodeId, status: Status) {
        self.unschedulable_plugins.insert(status.plugin);
        self.nodes.push((node, status));
    }

    /// The nodes where removing pods might help.
    pub fn resolvable_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().filter(|(_, status)| status.code == Code::Unschedulable).map(|(node, _)| *node)
    }
}

/// No node can take the pod.
#[derive(Clone, Debug)]
pub struct FitError {
    pub all_nodes: usize,
    pub diagnosis: Diagnosis,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0/{} nodes are available:", self.all_nodes)?;
        let diagnosis = &self.diagnosis;
        if diagnosis.pre_filter_message.is_empty() {
            let mut counts: HashMap<&Cow<'static, str>, usize> = HashMap::new();
            for reason in diagnosis.nodes.iter().flat_map(|(_, status)| &status.reasons) {
                *counts.entry(reason).or_default() += 1;
            }
            let absent = self.all_nodes.saturating_sub(diagnosis.nodes.len());
            if absent > 0 {
                for reason in diagnosis.absent_nodes.iter().flat_map(|status| &status.reasons) {
                    *counts.entry(reason).or_default() += absent;
                }
            }
            let mut lines: Vec<String> =
                counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            // sorted as text, counts included: so are upstream's
            lines.sort();
            if !lines.is_empty() {
                write!(f, " {}.", lines.join(", "))?;
            }
        } else {
            write!(f, " {}.", diagnosis.pre_filter_message)?;
        }
        if !diagnosis.post_filter_message.is_empty() {
            write!(f, " {}", diagnosis.post_filter_message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted_as_text() {
        let two = Status {
            reasons: ["Insufficient cpu".into(), "Insufficient memory".into()].into_iter().collect(),
            ..Status::unschedulable("")
        };
        let mut diagnosis = Diagnosis::default();
        diagnosis.add(0, two);
        diagnosis.add(1, Status::unschedulable("Insufficient cpu"));
        diagnosis.add(2, Status::unresolvable("node(s) were unschedulable"));
        assert_eq!(diagnosis.resolvable_nodes().collect::<Vec<_>>(), [0, 1]);
        let mut error = FitError { all_nodes: 3, diagnosis };
        assert_eq!(
            error.to_string(),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        error.all_nodes = 5;
        error.diagnosis.absent_nodes =
            Some(Status::unresolvable("node(s) didn't satisfy plugin(s) [NodeAffinity]"));
        error.diagnosis.post_filter_message = "preemption: none".into();
        assert_eq!(
            error.to_string(),
            "0/5 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu, \
             2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: none"
        );
        error.diagnosis.pre_filter_message = "pod affinity terms conflict".into();
        assert_eq!(
            error.to_string(),
            "0/5 nodes are available: pod affinity terms conflict. preemption: none"
        );
    }
}
