//! The bridge that pods of a node hang on. The CNI plugin makes it; nobody else takes it away.

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

use crate::cni::BRIDGE;

/// Removes the bridge unless pods hang on it.
pub async fn remove() -> anyhow::Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let talking = tokio::spawn(connection);
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let has = |link: &LinkMessage, wanted: LinkAttribute| link.attributes.contains(&wanted);
    let bridge = links.iter().find(|link| has(link, LinkAttribute::IfName(BRIDGE.into())));
    if let Some(index) = bridge.map(|bridge| bridge.header.index)
        && !links.iter().any(|link| has(link, LinkAttribute::Controller(index)))
    {
        handle.link().del(index).execute().await?;
    }
    talking.abort();
    Ok(())
}
