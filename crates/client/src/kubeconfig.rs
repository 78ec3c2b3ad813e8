//! Clients from kubeconfig files.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// What the current context of a kubeconfig says.
pub async fn config(path: &Path) -> anyhow::Result<Config> {
    let shown = path.display();
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| {
        format!("cannot read the kubeconfig {shown}; is the path right, and may you read it?")
    })?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("the kubeconfig {shown} is not complete"))?;
    // watches are silent between bookmarks; a broken connection is found by the connection's own keep-alive
    config.read_timeout = None;
    config.connect_timeout = Some(Duration::from_secs(10));
    Ok(config)
}

/// A client as the current context of a kubeconfig says.
pub async fn client(path: &Path) -> anyhow::Result<Client> {
    let config = config(path).await?;
    Client::try_from(config).with_context(|| format!("the kubeconfig {} cannot be used", path.display()))
}
