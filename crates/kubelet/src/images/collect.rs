//! Removes images that nobody uses when the disk fills up.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::runtime::{Image, Runtime};

const PERIOD: Duration = Duration::from_secs(5 * 60);
/// Upstream's defaults: above the first the oldest go, until the second is reached.
const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;
/// An image that came a moment ago is about to be used.
const MIN_AGE: Duration = Duration::from_secs(120);

/// Owns the memory of when images were last in use.
pub struct Collector {
    runtime: Arc<dyn Runtime>,
    /// A folder on the disk that holds images.
    folder: PathBuf,
    used: HashMap<String, Instant>,
}

/// Which images go to free `needed` bytes: those unused for longest first, and none that is in use or new.
fn choose<'a>(
    images: &'a [Image],
    in_use: &HashSet<String>,
    last_used: &HashMap<String, Instant>,
    now: Instant,
    needed: u64,
) -> Vec<&'a Image> {
    let idle = |image: &Image| last_used.get(&image.id).map(|at| now.saturating_duration_since(*at));
    let mut candidates: Vec<&Image> = images
        .iter()
        .filter(|image| !image.pinned && !in_use.contains(&image.id))
        .filter(|image| idle(image).is_some_and(|idle| idle >= MIN_AGE))
        .collect();
    candidates.sort_by_key(|image| std::cmp::Reverse(idle(image)));
    let mut freed = 0;
    candidates
        .into_iter()
        .take_while(|image| {
            let go_on = freed < needed;
            freed += image.size;
            go_on
        })
        .collect()
}

impl Collector {
    pub fn new(runtime: Arc<dyn Runtime>, folder: PathBuf) -> Self {
        Self { runtime, folder, used: HashMap::new() }
    }

    pub async fn run(mut self, cancel: CancellationToken) {
        while cancel.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "images could not be looked through");
            }
        }
    }

    async fn look(&mut self) -> crate::runtime::Result<()> {
        let images = self.runtime.images().await?;
        let in_use = self.in_use(&images).await?;
        let now = Instant::now();
        self.used.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in &images {
            let first_seen = !self.used.contains_key(&image.id);
            if first_seen || in_use.contains(&image.id) {
                self.used.insert(image.id.clone(), now);
            }
        }
        let Some(needed) = self.needed() else { return Ok(()) };
        for image in choose(&images, &in_use, &self.used, now, needed) {
            tracing::info!(
                image = image.tags.join(", "),
                bytes = image.size,
                "removing an unused image, the disk is filling up"
            );
            self.runtime.remove_image(&image.id).await?;
        }
        Ok(())
    }

    async fn in_use(&self, images: &[Image]) -> crate::runtime::Result<HashSet<String>> {
        let mut names = HashSet::from([crate::containerd::config::PAUSE_IMAGE.to_owned()]);
        for item in self.runtime.list().await?.iter().filter(|item| !item.container_name.is_empty()) {
            if let Ok(status) = self.runtime.container_status(&item.id).await {
                names.insert(status.image_ref);
                names.extend(status.image.map(|image| image.image));
            }
        }
        let used = images.iter().filter(|image| {
            names.contains(&image.id)
                || image.tags.iter().chain(&image.digests).any(|name| names.contains(name))
        });
        Ok(used.map(|image| image.id.clone()).collect())
    }

    /// Bytes to free, when there is too little room.
    fn needed(&self) -> Option<u64> {
        let disk = nix::sys::statvfs::statvfs(&self.folder).ok()?;
        let (total, free) =
            (disk.blocks() * disk.fragment_size(), disk.blocks_available() * disk.fragment_size());
        let used = total.saturating_sub(free);
        (used * 100 >= total * HIGH_PERCENT).then(|| used.saturating_sub(total / 100 * LOW_PERCENT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_go_first() {
        let now = Instant::now() + Duration::from_secs(10_000);
        let image = |id: &str, size| Image { id: id.into(), size, ..Image::default() };
        let mut pinned = image("pinned", 10);
        pinned.pinned = true;
        let images = [image("old", 10), image("older", 10), image("new", 10), image("used", 10), pinned];
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).expect("a time");
        let last_used = [("old", 500), ("older", 900), ("new", 5), ("used", 900), ("pinned", 900)];
        let last_used = last_used.into_iter().map(|(id, seconds)| (id.to_owned(), ago(seconds))).collect();
        let in_use = HashSet::from(["used".to_owned()]);
        let chosen = |needed| -> Vec<String> {
            choose(&images, &in_use, &last_used, now, needed)
                .into_iter()
                .map(|image| image.id.clone())
                .collect()
        };
        assert_eq!(chosen(5), ["older"]);
        assert_eq!(chosen(10_000), ["older", "old"]);
        assert!(chosen(0).is_empty());
    }
}
