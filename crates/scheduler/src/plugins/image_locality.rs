//! Likes nodes that have a pod's images already, the more the larger the images and the more nodes have them (so
//! that not all pods of an image go to the one node that has it).

use crate::cache::Snapshot;
use crate::framework::{Applies, CycleState, MAX_NODE_SCORE, Plugin, PreScore, Score, Status};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub struct ImageLocality;

const MIB: i64 = 1024 * 1024;
/// Less than this counts as nothing.
const MIN_THRESHOLD: i64 = 23 * MIB;
/// More than this for each container counts as this.
const MAX_CONTAINER_THRESHOLD: i64 = 1000 * MIB;

/// The images of a pod with the share of all nodes that have each.
struct Images {
    spread: Vec<(String, f64)>,
    max_threshold: i64,
}

/// The name under which a node reports an image: with its tag.
fn normalized(image: &str) -> String {
    match (image.rfind(':'), image.rfind('/')) {
        (Some(tag), slash) if slash.is_none_or(|slash| tag > slash) => image.to_owned(),
        _ => format!("{image}:latest"),
    }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
}

impl PreScore for ImageLocality {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &[&NodeInfo],
        snapshot: &Snapshot,
    ) -> Result<Applies, Status> {
        let Some(spec) = pod.pod.spec.as_ref() else { return Ok(Applies::Skip) };
        let containers = component_helpers::pod::all_containers(spec);
        let images = containers.map(|container| normalized(container.image.as_deref().unwrap_or_default()));
        let mut count = 0;
        let mut spread = Vec::new();
        for image in images {
            count += 1;
            let nodes = snapshot.nodes_with_image(&image);
            if nodes > 0 {
                spread.push((image, nodes as f64 / snapshot.len() as f64));
            }
        }
        if spread.is_empty() {
            return Ok(Applies::Skip);
        }
        state.write(Images { spread, max_threshold: MAX_CONTAINER_THRESHOLD * count });
        Ok(Applies::Everywhere)
    }
}

impl Score for ImageLocality {
    fn score(
        &self,
        state: &CycleState,
        _: &PodInfo,
        nodes: &[&NodeInfo],
        scores: &mut [i64],
    ) -> Result<(), Status> {
        let Some(images) = state.read::<Images>() else { return Ok(()) };
        for (score, node) in scores.iter_mut().zip(nodes) {
            let there = images
                .spread
                .iter()
                .filter_map(|(name, spread)| Some((*node.images.get(name)? as f64 * spread) as i64))
                .sum::<i64>();
            let within = there.clamp(MIN_THRESHOLD, images.max_threshold);
            *score = MAX_NODE_SCORE * (within - MIN_THRESHOLD) / (images.max_threshold - MIN_THRESHOLD);
        }
        Ok(())
    }
}
