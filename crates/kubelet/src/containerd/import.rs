//! Puts images into containerd: blobs into its content store, layers unpacked into snapshots, names into its
//! image store. CRI has no call for this.

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use containerd_client::Client;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snapshot_api;
use containerd_client::types;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::archive::{Archive, ArchivedImage, Blob, bytes_of};
use crate::progress::Bytes;

/// The namespace that containerd's CRI plugin works in.
pub const NAMESPACE: &str = "k8s.io";
const SNAPSHOTTER: &str = "overlayfs";
const PIECE: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("containerd refused {what}: {}", status.message())]
    Containerd { what: String, status: Box<Status> },
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
    #[error("the layers of {0} and its configuration do not fit together")]
    Layers(String),
}

fn refused(what: impl Into<String>) -> impl FnOnce(Status) -> ImportError {
    let what = what.into();
    |status| ImportError::Containerd { what, status: Box::new(status) }
}

fn ignore_existing(result: Result<(), ImportError>) -> Result<(), ImportError> {
    match result {
        Err(ImportError::Containerd { status, .. }) if status.code() == Code::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Imports into one containerd. A lease holds what is uploaded until the image refers to it.
pub struct Importer {
    client: Client,
    lease: String,
    /// How much of the layers has been sent.
    done: Bytes,
}

impl Importer {
    pub async fn new(channel: Channel, done: Bytes) -> Result<Self, ImportError> {
        let client = Client::from(channel);
        let lease = format!("xebec-import-{}", uuid::Uuid::new_v4());
        // The lease ends by itself should we die in the middle.
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
        let importer = Self { client, lease, done };
        let message = api::CreateRequest { id: importer.lease.clone(), labels };
        importer.client.leases().create(importer.request(message)).await.map_err(refused("a lease"))?;
        Ok(importer)
    }

    pub async fn finish(self) {
        let message = api::DeleteRequest { id: self.lease.clone(), sync: false };
        if let Err(status) = self.client.leases().delete(self.request(message)).await {
            tracing::debug!(%status, "a lease of an import stays until it expires");
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(DEADLINE);
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
        if let Ok(lease) = self.lease.parse() {
            metadata.insert("containerd-lease", lease);
        }
        request
    }

    /// Whether a name stands for this manifest already.
    async fn has(&self, name: &str, digest: &str) -> bool {
        let message = api::GetImageRequest { name: name.to_owned() };
        let found = self.client.images().get(self.request(message)).await;
        let target = found.ok().and_then(|answer| answer.into_inner().image).and_then(|image| image.target);
        target.is_some_and(|target| target.digest == digest)
    }

    /// Imports an image; `archive` has the bytes that do not lie in memory. Returns whether anything was new.
    pub async fn import(
        &self,
        image: &ArchivedImage,
        archive: Option<&Archive>,
    ) -> Result<bool, ImportError> {
        let mut new_names = Vec::new();
        for name in &image.names {
            if !self.has(name, &image.manifest.descriptor.digest).await {
                new_names.push(name.clone());
            }
        }
        if new_names.is_empty() {
            return Ok(false);
        }
        if image.layers.len() != image.diff_ids.len() {
            return Err(ImportError::Layers(image.names.join(", ")));
        }
        for layer in &image.layers {
            self.upload(layer, archive, HashMap::new()).await?;
        }
        let chain = chain_ids(&image.diff_ids);
        for (index, layer) in image.layers.iter().enumerate() {
            let parent = if index == 0 { "" } else { chain[index - 1].as_str() };
            self.unpack(layer, parent, &chain[index]).await?;
        }
        // The labels tell the garbage collector what belongs together.
        let mut on_config = HashMap::new();
        if let Some(top) = chain.last() {
            on_config.insert(format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}"), top.clone());
        }
        self.upload(&image.config, archive, on_config).await?;
        let mut on_manifest = HashMap::from([(
            "containerd.io/gc.ref.content.config".to_owned(),
            image.config.descriptor.digest.clone(),
        )]);
        for (index, layer) in image.layers.iter().enumerate() {
            on_manifest
                .insert(format!("containerd.io/gc.ref.content.l.{index}"), layer.descriptor.digest.clone());
        }
        self.upload(&image.manifest, archive, on_manifest).await?;
        for name in new_names {
            self.name(&name, &image.manifest).await?;
        }
        Ok(true)
    }

    async fn name(&self, name: &str, manifest: &Blob) -> Result<(), ImportError> {
        let record = api::Image {
            name: name.to_owned(),
            labels: HashMap::from([("io.cri-containerd.image".to_owned(), "managed".to_owned())]),
            target: Some(descriptor(manifest)),
            ..Default::default()
        };
        let message = api::CreateImageRequest { image: Some(record.clone()), ..Default::default() };
        match self.client.images().create(self.request(message)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let message = api::UpdateImageRequest { image: Some(record), ..Default::default() };
                self.client.images().update(self.request(message)).await.map_err(refused(name))?;
                Ok(())
            }
            Err(status) => Err(refused(name)(status)),
        }
    }

    /// Writes a blob into the content store, which checks its digest.
    async fn upload(
        &self,
        blob: &Blob,
        archive: Option<&Archive>,
        labels: HashMap<String, String>,
    ) -> Result<(), ImportError> {
        let digest = blob.descriptor.digest.clone();
        let reader: Box<dyn Read + Send> = match (bytes_of(blob), archive) {
            (Some(bytes), _) => Box::new(std::io::Cursor::new(bytes.to_vec())),
            (None, Some(archive)) => archive.read(blob)?,
            (None, None) => return Err(std::io::Error::other("a blob without an archive").into()),
        };
        let (sender, receiver) = mpsc::channel(4);
        let pieces = Pieces {
            reference: format!("{}-{digest}", self.lease),
            digest: digest.clone(),
            total: i64::try_from(blob.descriptor.size).unwrap_or(i64::MAX),
            labels,
            done: self.done.clone(),
        };
        let reading = tokio::task::spawn_blocking(move || pieces.send(reader, &sender));
        let sent = self.write(receiver, &digest).await;
        let read = reading.await.map_err(std::io::Error::other)?;
        ignore_existing(sent)?;
        Ok(read?)
    }

    async fn write(
        &self,
        receiver: mpsc::Receiver<api::WriteContentRequest>,
        digest: &str,
    ) -> Result<(), ImportError> {
        let request = self.request(ReceiverStream::new(receiver));
        let mut answers = self.client.content().write(request).await.map_err(refused(digest))?.into_inner();
        while answers.message().await.map_err(refused(digest))?.is_some() {}
        Ok(())
    }

    /// Makes the snapshot of a layer on top of its parent, unless it is there.
    async fn unpack(&self, layer: &Blob, parent: &str, chain_id: &str) -> Result<(), ImportError> {
        let mut snapshots = self.client.snapshots();
        let stat = snapshot_api::StatSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: chain_id.to_owned(),
        };
        if snapshots.stat(self.request(stat)).await.is_ok() {
            return Ok(());
        }
        let key = format!("extract-{}-{chain_id}", uuid::Uuid::new_v4());
        let what = || format!("to unpack {}", layer.descriptor.digest);
        let prepare = snapshot_api::PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let mounts =
            snapshots.prepare(self.request(prepare)).await.map_err(refused(what()))?.into_inner().mounts;
        let apply = api::ApplyRequest { diff: Some(descriptor(layer)), mounts, ..Default::default() };
        self.client.diff().apply(self.request(apply)).await.map_err(refused(what()))?;
        let commit = snapshot_api::CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: chain_id.to_owned(),
            key,
            ..Default::default()
        };
        let committed = snapshots.commit(self.request(commit)).await;
        ignore_existing(committed.map(|_| ()).map_err(refused(what())))
    }
}

struct Pieces {
    reference: String,
    digest: String,
    total: i64,
    labels: HashMap<String, String>,
    done: Bytes,
}

impl Pieces {
    fn send(
        self,
        mut reader: Box<dyn Read + Send>,
        to: &mpsc::Sender<api::WriteContentRequest>,
    ) -> std::io::Result<()> {
        let mut offset = 0;
        loop {
            let mut data = Vec::new();
            reader.by_ref().take(PIECE as u64).read_to_end(&mut data)?;
            let last = data.len() < PIECE;
            let action = if last { api::WriteAction::Commit } else { api::WriteAction::Write };
            let length = data.len();
            self.done.add(length as u64);
            let message = api::WriteContentRequest {
                action: action as i32,
                r#ref: self.reference.clone(),
                total: self.total,
                expected: self.digest.clone(),
                offset,
                data,
                labels: if last { self.labels.clone() } else { HashMap::new() },
            };
            // The receiver is gone when containerd has the blob already.
            if to.blocking_send(message).is_err() || last {
                return Ok(());
            }
            offset += i64::try_from(length).unwrap_or_default();
        }
    }
}

fn descriptor(blob: &Blob) -> types::Descriptor {
    types::Descriptor {
        media_type: blob.descriptor.media_type.clone(),
        digest: blob.descriptor.digest.clone(),
        size: i64::try_from(blob.descriptor.size).unwrap_or(i64::MAX),
        annotations: HashMap::new(),
    }
}

/// Names of snapshots: each is a digest over the layer and all below it (OCI image spec, `ChainID`).
fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => {
                let digest = Sha256::digest(format!("{parent} {diff_id}").as_bytes());
                format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>())
            }
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_the_image_spec() {
        let ids = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], "sha256:a");
        let want = Sha256::digest(b"sha256:a sha256:b");
        assert_eq!(
            chain[1],
            format!("sha256:{}", want.iter().map(|b| format!("{b:02x}")).collect::<String>())
        );
        assert!(chain_ids(&[]).is_empty());
    }
}
