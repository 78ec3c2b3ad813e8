//! The namespace that a run works in: its own, labelled, and gone afterwards.

use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::json;

use crate::target::{Protocol, Request, Target, refusal};

/// On everything that a run makes.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "xebec-bench");
const CLEAN_UP: Duration = Duration::from_secs(120);

pub struct Sandbox {
    target: Target,
    pub namespace: String,
}

impl Sandbox {
    pub async fn new(target: &Target) -> anyhow::Result<Self> {
        let namespace = format!("xebec-bench-{:06x}", rand::random::<u32>() & 0xff_ffff);
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {LABEL.0: LABEL.1}},
        });
        let request = Request::new(Method::POST, "/api/v1/namespaces", body.to_string());
        target.once(request).await.context("making a namespace to work in")?;
        Ok(Self { target: target.clone(), namespace })
    }

    /// Runs something inside, and removes the namespace whatever comes of it. What the cluster has acknowledged
    /// meanwhile is verified before, where that is asked for.
    pub async fn with<T>(
        target: &Target,
        run: impl AsyncFnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let sandbox = Self::new(target).await?;
        let outcome = run(&sandbox).await;
        let verified = target.verify().await;
        let removed = sandbox.remove().await;
        let value = outcome?;
        verified?;
        removed?;
        Ok(value)
    }

    pub fn path(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}", self.namespace)
    }

    /// Waits for the service account that pods need.
    pub async fn wait_for_account(&self) -> anyhow::Result<()> {
        let path = self.path("serviceaccounts/default");
        let begun = Instant::now();
        let mut connection = self.target.connect(Protocol::Http1).await?;
        loop {
            let (status, body) = connection.send(Request::get(&path)).await?;
            if status.is_success() {
                return Ok(());
            }
            if begun.elapsed() > CLEAN_UP {
                anyhow::bail!("the namespace gets no service account: {}", refusal(status, &body));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn remove(self) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        let begun = Instant::now();
        let mut connection = self.target.connect(Protocol::Http1).await.context("cleaning up")?;
        let (status, body) = connection.send(Request::new(Method::DELETE, &path, "")).await?;
        if !status.is_success() && status != StatusCode::NOT_FOUND {
            anyhow::bail!(
                "the namespace {} could not be removed: {}",
                self.namespace,
                refusal(status, &body)
            );
        }
        let mut told = false;
        while begun.elapsed() < CLEAN_UP {
            let (status, _) = connection.send(Request::get(&path)).await?;
            if status == StatusCode::NOT_FOUND {
                return Ok(());
            }
            if !told && begun.elapsed() > Duration::from_secs(3) {
                eprintln!("cleaning up: waiting until the namespace {} is empty", self.namespace);
                told = true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!(
            "the namespace {} is still there after {CLEAN_UP:?}; is a controller manager running? \
             remove it with kubectl delete namespace -l {}={}",
            self.namespace,
            LABEL.0,
            LABEL.1
        )
    }
}
