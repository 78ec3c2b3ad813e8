//! Get.

use std::sync::Arc;

use apimachinery::{Reason, Status};

use super::Registry;
use crate::cache::Entry;
use crate::kinds::Kind;

impl Registry {
    /// One object. `resource_version` as in the query: empty for the newest, `0` for whatever the cache has.
    pub async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        resource_version: &str,
    ) -> Result<Arc<Entry>, Status> {
        let cache = self.cache_of(kind)?;
        match resource_version {
            "" => {
                self.cache.wait_for_latest().await?;
            }
            "0" => {}
            version => {
                let revision = super::list::parse_version(version)
                    .map_err(|error| Status::new(500, Reason::Unknown, error.to_string()))?;
                self.cache.wait_for(revision).await?;
            }
        }
        let key = kind.key(namespace, name);
        cache.get(&key).ok_or_else(|| match cache.why_sealed(&key) {
            Some(why) => Status::internal(why),
            None => Status::not_found(&kind.resource.group_resource(), name),
        })
    }
}
