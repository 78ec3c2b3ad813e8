//! Imports every `*.tar` in the images folder, at start and when one appears. A bad archive is reported and does
//! not keep the others back.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::containerd::archive::{Archive, ArchiveError, ArchivedImage};
use crate::containerd::import::{ImportError, Importer};
use crate::containerd::pause;
use crate::progress::{Bytes, Progress, Step};

/// How often the folder is looked at; a listing of a handful of files.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum ArchiveImportError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Imports one archive; returns the names of its images.
pub async fn import(channel: Channel, path: &Path, done: Bytes) -> Result<Vec<String>, ArchiveImportError> {
    let file = path.to_owned();
    let archive = tokio::task::spawn_blocking(move || Archive::open(&file))
        .await
        .map_err(|error| ArchiveError::Io(io::Error::other(error)))??;
    done.set_total(archive.images.iter().map(ArchivedImage::layer_bytes).sum());
    let importer = Importer::new(channel, done).await?;
    let mut names = Vec::new();
    let mut result = Ok(());
    for image in &archive.images {
        if let Err(error) = importer.import(image, Some(&archive)).await {
            result = Err(error.into());
            break;
        }
        names.extend(image.names.iter().cloned());
    }
    importer.finish().await;
    result.map(|()| names)
}

/// Puts the built-in pause image into containerd.
pub async fn import_pause(channel: Channel) -> Result<(), ImportError> {
    let image = pause::image()?;
    let importer = Importer::new(channel, Bytes::default()).await?;
    let result = importer.import(&image, None).await;
    importer.finish().await;
    result.map(|_| ())
}

/// What tells two versions of a file apart without reading it.
type Stamp = (u64, Option<SystemTime>);

/// Imports what lies in the folder. Owns the memory of what has been tried.
pub struct Archives {
    folder: PathBuf,
    channel: Channel,
    progress: Progress,
    tried: HashMap<PathBuf, Stamp>,
}

impl Archives {
    pub fn new(folder: PathBuf, channel: Channel, progress: Progress) -> Self {
        Self { folder, channel, progress, tried: HashMap::new() }
    }

    /// Imports all archives that are new since the last look.
    async fn look(&mut self) {
        let found = match list(&self.folder) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "cannot read the images folder");
                return;
            }
        };
        self.tried.retain(|path, _| found.iter().any(|(found, _)| found == path));
        for (path, stamp) in found {
            if self.tried.get(&path) == Some(&stamp) {
                continue;
            }
            let done = self.progress.importing(&path);
            match import(self.channel.clone(), &path, done).await {
                Ok(names) => {
                    tracing::info!(archive = %path.display(), images = %names.join(", "), "imported images");
                    self.progress.tell(Step::Imported { images: names });
                }
                Err(ArchiveImportError::Import(ImportError::Containerd { what, status }))
                    if status.code() == tonic::Code::Unavailable =>
                {
                    tracing::debug!(%what, %status, "containerd is away; the import is tried again");
                    continue;
                }
                Err(error) => {
                    tracing::error!(archive = %path.display(), "cannot import the image archive: {error}");
                    self.progress.import_failed(&path, &error);
                }
            }
            self.tried.insert(path, stamp);
        }
    }

    /// Imports what is there, says so, and goes on looking until cancelled.
    pub async fn run(mut self, imported: watch::Sender<bool>, cancel: CancellationToken) {
        let look = async {
            self.look().await;
            imported.send_replace(true);
            loop {
                tokio::time::sleep(LOOK_PERIOD).await;
                self.look().await;
            }
        };
        cancel.run_until_cancelled(look).await;
    }
}

fn list(folder: &Path) -> io::Result<Vec<(PathBuf, Stamp)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tar")
            && let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
        {
            found.push((path, (metadata.len(), metadata.modified().ok())));
        }
    }
    found.sort();
    Ok(found)
}
