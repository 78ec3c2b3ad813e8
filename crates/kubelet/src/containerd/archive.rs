//! Image archives: OCI layouts and what `docker save` writes, read into what a content store takes.
//!
//! Blobs are never held in memory: each is a stretch of the archive, or a small document made here.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::images::reference::Reference;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Documents are small; anything larger is not one.
const MAX_DOCUMENT: u64 = 8 << 20;
/// An index of an index of an index is a mistake or an attack.
const MAX_INDEX_DEPTH: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    #[error("it is compressed; expand it first")]
    Compressed,
    #[error("it is neither an OCI layout (index.json) nor a docker archive (manifest.json)")]
    Unknown,
    #[error("{name} is not valid: {reason}")]
    Document { name: String, reason: String },
    #[error("{0} is missing in it")]
    Missing(String),
    #[error("{digest} has {actual} bytes where {expected} are declared")]
    Size { digest: String, actual: u64, expected: u64 },
    #[error("it holds no image for {0}")]
    Platform(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub annotations: HashMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ImageConfig {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Clone, Debug)]
enum Source {
    Stretch { offset: u64, size: u64 },
    Bytes(Vec<u8>),
}

/// A blob with the place where its bytes are.
#[derive(Clone, Debug)]
pub struct Blob {
    pub descriptor: Descriptor,
    source: Source,
}

/// One image: its manifest, config and layers, and what it is called.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    pub names: Vec<String>,
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
    /// Digests of the uncompressed layers, as the config lists them.
    pub diff_ids: Vec<String>,
}

impl ArchivedImage {
    /// The size of its layers as they lie in the archive.
    pub fn layer_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.descriptor.size).sum()
    }
}

/// An archive that has been understood; its blobs can be read.
#[derive(Debug)]
pub struct Archive {
    file: File,
    pub images: Vec<ArchivedImage>,
}

impl Archive {
    /// Reads an archive's table of contents and documents. `stem` names images that carry no name of their own.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let stem = path.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
        let mut reader = Reader::new(File::open(path)?)?;
        let images = if reader.entries.contains_key("index.json") {
            reader.oci(&stem)?
        } else if reader.entries.contains_key("manifest.json") {
            reader.docker(&stem)?
        } else {
            return Err(ArchiveError::Unknown);
        };
        Ok(Self { file: reader.file, images })
    }

    /// The bytes of a blob from the start, piece by piece.
    pub fn read(&self, blob: &Blob) -> io::Result<Box<dyn Read + Send>> {
        match &blob.source {
            Source::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            Source::Stretch { offset, size } => {
                let mut file = self.file.try_clone()?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(Box::new(file.take(*size)))
            }
        }
    }
}

struct Reader {
    file: File,
    entries: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
}

/// A path inside an archive without `.` and `..`, so that `./a/../b` and `b` are the same entry.
fn normalize(path: &Path) -> String {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out.to_string_lossy().into_owned()
}

fn document<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ArchiveError::Document { name: name.to_owned(), reason: error.to_string() })
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Reader {
    fn new(mut file: File) -> Result<Self, ArchiveError> {
        let mut magic = [0u8; 4];
        let read = file.read(&mut magic)?;
        let compressed = magic[..read].starts_with(&[0x1f, 0x8b])
            || magic[..read].starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
            || magic[..read].starts_with(b"BZh");
        if compressed {
            return Err(ArchiveError::Compressed);
        }
        file.seek(SeekFrom::Start(0))?;
        let length = file.metadata()?.len();
        let (mut entries, mut links) = (HashMap::new(), HashMap::new());
        let mut archive = tar::Archive::new(file.try_clone()?);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let name = normalize(&entry.path()?);
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                if offset.saturating_add(size) > length {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends too early").into());
                }
                entries.insert(name, (offset, size));
            } else if (kind.is_symlink() || kind.is_hard_link())
                && let Some(target) = entry.link_name()?
            {
                let base = if kind.is_symlink() { Path::new(&name).parent() } else { None };
                links.insert(name.clone(), normalize(&base.unwrap_or(Path::new("")).join(target)));
            }
        }
        Ok(Self { file, entries, links })
    }

    fn find(&self, name: &str) -> Result<(u64, u64), ArchiveError> {
        let mut name = normalize(Path::new(name));
        // links may be chained, but not without end
        for _ in 0..8 {
            if let Some(stretch) = self.entries.get(&name) {
                return Ok(*stretch);
            }
            match self.links.get(&name) {
                Some(target) => name = target.clone(),
                None => break,
            }
        }
        Err(ArchiveError::Missing(name))
    }

    fn read_document(&mut self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let (offset, size) = self.find(name)?;
        if size > MAX_DOCUMENT {
            let reason = format!("{size} bytes are too many");
            return Err(ArchiveError::Document { name: name.to_owned(), reason });
        }
        self.file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(size).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Blob, ArchiveError> {
        let path = blob_path(&descriptor.digest);
        let (offset, size) =
            self.find(&path).map_err(|_| ArchiveError::Missing(descriptor.digest.clone()))?;
        if size != descriptor.size {
            let digest = descriptor.digest.clone();
            return Err(ArchiveError::Size { digest, actual: size, expected: descriptor.size });
        }
        Ok(Blob { descriptor: descriptor.clone(), source: Source::Stretch { offset, size } })
    }

    fn oci(&mut self, stem: &str) -> Result<Vec<ArchivedImage>, ArchiveError> {
        let bytes = self.read_document("index.json")?;
        let index: Index = document("index.json", &bytes)?;
        let mut images: Vec<ArchivedImage> = Vec::new();
        let alone = index.manifests.len() == 1;
        for descriptor in &index.manifests {
            let Some(manifest) = self.resolve(descriptor, 0)? else {
                if alone {
                    return Err(ArchiveError::Platform(format!("linux/{}", architecture())));
                }
                continue;
            };
            let blob = self.blob(&manifest)?;
            let bytes = self.read_document(&blob_path(&manifest.digest))?;
            let content: Manifest = document(&manifest.digest, &bytes)?;
            let config_bytes = self.read_document(&blob_path(&content.config.digest))?;
            let config: ImageConfig = document(&content.config.digest, &config_bytes)?;
            images.push(ArchivedImage {
                names: vec![name_of(descriptor, stem)],
                manifest: blob,
                config: self.blob(&content.config)?,
                layers: content.layers.iter().map(|l| self.blob(l)).collect::<Result<_, _>>()?,
                diff_ids: config.rootfs.diff_ids,
            });
        }
        if images.is_empty() {
            return Err(ArchiveError::Platform(format!("linux/{}", architecture())));
        }
        Ok(images)
    }

    /// The manifest for this machine that a descriptor leads to.
    fn resolve(&mut self, at: &Descriptor, depth: usize) -> Result<Option<Descriptor>, ArchiveError> {
        let fits = at.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture());
        if !fits {
            return Ok(None);
        }
        if at.media_type == OCI_MANIFEST || at.media_type == DOCKER_MANIFEST {
            return Ok(Some(at.clone()));
        }
        let bytes = self.read_document(&blob_path(&at.digest))?;
        if depth >= MAX_INDEX_DEPTH {
            let reason = "indexes are nested too deeply".to_owned();
            return Err(ArchiveError::Document { name: at.digest.clone(), reason });
        }
        let index: Index = document(&at.digest, &bytes)?;
        for descriptor in &index.manifests {
            if let Some(found) = self.resolve(descriptor, depth + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn docker(&mut self, stem: &str) -> Result<Vec<ArchivedImage>, ArchiveError> {
        let bytes = self.read_document("manifest.json")?;
        let listed: Vec<DockerImage> = document("manifest.json", &bytes)?;
        let mut images = Vec::new();
        for image in listed {
            let config_bytes = self.read_document(&image.config)?;
            let config: ImageConfig = document(&image.config, &config_bytes)?;
            let layers: Vec<Blob> =
                image.layers.iter().map(|name| self.layer(name)).collect::<Result<_, _>>()?;
            let config_blob = made(OCI_CONFIG, config_bytes);
            let described = |blob: &Blob| {
                let Descriptor { media_type, digest, size, .. } = &blob.descriptor;
                json!({"mediaType": media_type, "digest": digest, "size": size})
            };
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": described(&config_blob),
                "layers": layers.iter().map(described).collect::<Vec<_>>(),
            });
            let tags = image.repo_tags.unwrap_or_default();
            let names = if tags.is_empty() { vec![unnamed(stem, "latest")] } else { tags };
            images.push(ArchivedImage {
                names: names.iter().map(|n| canonical(n, stem)).collect(),
                manifest: made(OCI_MANIFEST, manifest.to_string().into_bytes()),
                config: config_blob,
                layers,
                diff_ids: config.rootfs.diff_ids,
            });
        }
        Ok(images)
    }

    /// A layer of a docker archive: its digest is nowhere written and has to be computed.
    fn layer(&mut self, name: &str) -> Result<Blob, ArchiveError> {
        let (offset, size) = self.find(name)?;
        self.file.seek(SeekFrom::Start(offset))?;
        let mut hasher = Sha256::new();
        let mut rest = (&mut self.file).take(size);
        let mut buffer = vec![0u8; 1 << 16];
        let mut gzip = false;
        let mut first = true;
        loop {
            let read = rest.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            if first {
                gzip = buffer[..read].starts_with(&[0x1f, 0x8b]);
                first = false;
            }
            hasher.update(&buffer[..read]);
        }
        let media_type = if gzip { format!("{OCI_LAYER}+gzip") } else { OCI_LAYER.to_owned() };
        let digest = format!("sha256:{}", hex(&hasher.finalize()));
        let descriptor = Descriptor { media_type, digest, size, annotations: HashMap::new(), platform: None };
        Ok(Blob { descriptor, source: Source::Stretch { offset, size } })
    }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn made(media_type: &str, bytes: Vec<u8>) -> Blob {
    let descriptor = Descriptor {
        media_type: media_type.to_owned(),
        digest: sha256(&bytes),
        size: bytes.len() as u64,
        annotations: HashMap::new(),
        platform: None,
    };
    Blob { descriptor, source: Source::Bytes(bytes) }
}

fn unnamed(stem: &str, tag: &str) -> String {
    format!("docker.io/library/{stem}:{tag}")
}

fn canonical(name: &str, stem: &str) -> String {
    Reference::parse(name).map_or_else(|_| unnamed(stem, "latest"), |reference| reference.canonical())
}

/// Full names stand in containerd's own annotation, or in `ref.name`, which may also be a bare tag.
fn name_of(descriptor: &Descriptor, stem: &str) -> String {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|v| !v.is_empty());
    if let Some(name) = annotation("io.containerd.image.name") {
        return canonical(name, stem);
    }
    match annotation("org.opencontainers.image.ref.name") {
        Some(name) if name.contains(['/', ':']) => canonical(name, stem),
        Some(tag) => unnamed(stem, tag),
        None => unnamed(stem, "latest"),
    }
}

/// An image made in memory: one layer and its configuration (the pause image comes so).
pub fn single_layer(name: &str, layer: Vec<u8>, config: &serde_json::Value) -> ArchivedImage {
    let diff_id = sha256(&layer);
    let mut config = config.clone();
    config["architecture"] = architecture().into();
    config["os"] = "linux".into();
    config["rootfs"] = json!({"type": "layers", "diff_ids": [diff_id]});
    let layer = made(OCI_LAYER, layer);
    let config = made(OCI_CONFIG, config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG, "digest": config.descriptor.digest, "size": config.descriptor.size,
        },
        "layers": [{
            "mediaType": OCI_LAYER, "digest": layer.descriptor.digest, "size": layer.descriptor.size,
        }],
    });
    ArchivedImage {
        names: vec![name.to_owned()],
        manifest: made(OCI_MANIFEST, manifest.to_string().into_bytes()),
        config,
        layers: vec![layer],
        diff_ids: vec![diff_id],
    }
}

/// Blobs of an image that lies in memory only.
pub fn bytes_of(blob: &Blob) -> Option<&[u8]> {
    match &blob.source {
        Source::Bytes(bytes) => Some(bytes),
        Source::Stretch { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, Vec<u8>)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::with_suffix(".tar").expect("a file");
        let mut builder = tar::Builder::new(file.reopen().expect("a handle"));
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes.as_slice()).expect("an entry");
        }
        builder.finish().expect("an archive");
        file
    }

    fn described(bytes: &[u8], media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
    }

    fn oci(name: Option<&str>, break_layer: bool) -> Vec<(String, Vec<u8>)> {
        let layer = b"layer".to_vec();
        let config =
            json!({"rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]}}).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "config": described(&config, OCI_CONFIG), "layers": [described(&layer, OCI_LAYER)],
        })
        .to_string()
        .into_bytes();
        let mut descriptor = described(&manifest, OCI_MANIFEST);
        if let Some(name) = name {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string().into_bytes();
        let mut files = vec![("index.json".to_owned(), index)];
        for blob in [manifest, config] {
            files.push((blob_path(&sha256(&blob)), blob));
        }
        if !break_layer {
            files.push((format!("./{}", blob_path(&sha256(&layer))), layer));
        }
        files
    }

    fn open(files: Vec<(String, Vec<u8>)>) -> Result<Archive, ArchiveError> {
        let borrowed: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
        Archive::open(archive(&borrowed).path())
    }

    #[test]
    fn an_oci_layout_gives_its_image() {
        let read = open(oci(Some("me/app:v1"), false)).expect("an archive");
        let [image] = read.images.as_slice() else { panic!("one image") };
        assert_eq!(image.names, ["docker.io/me/app:v1"]);
        let mut bytes = Vec::new();
        read.read(&image.layers[0]).and_then(|mut r| r.read_to_end(&mut bytes)).expect("a layer");
        assert_eq!(bytes, b"layer");
        assert_eq!(image.diff_ids, [sha256(b"layer")]);
    }

    #[test]
    fn a_docker_archive_gives_its_image() {
        let layer = b"some layer".to_vec();
        let config = json!({"rootfs": {"diff_ids": [sha256(&layer)]}}).to_string().into_bytes();
        let manifest = json!([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l/layer.tar"]}]);
        let file = archive(&[
            ("manifest.json", manifest.to_string().into_bytes()),
            ("c.json", config),
            ("l/layer.tar", layer.clone()),
        ]);
        let read = Archive::open(file.path()).expect("an archive");
        assert_eq!(read.images[0].names, ["docker.io/library/app:1"]);
        assert_eq!(read.images[0].layers[0].descriptor.digest, sha256(&layer));
        assert!(bytes_of(&read.images[0].manifest).is_some());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let text =
            |result: Result<Archive, ArchiveError>| result.err().map(|e| e.to_string()).unwrap_or_default();
        let missing = text(open(oci(None, true)));
        assert_eq!(missing, format!("{} is missing in it", sha256(b"layer")));
        let unknown = archive(&[("readme", b"x".to_vec())]);
        assert_eq!(text(Archive::open(unknown.path())), ArchiveError::Unknown.to_string());
        let bad = archive(&[("index.json", b"{".to_vec())]);
        assert!(text(Archive::open(bad.path())).starts_with("index.json is not valid:"));
        let compressed = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(compressed.path(), [0x1f, 0x8b, 8, 0]).expect("bytes");
        assert_eq!(text(Archive::open(compressed.path())), ArchiveError::Compressed.to_string());
        // an archive that was cut off
        let whole = archive(&[("index.json", vec![b' '; 4000])]);
        let handle = std::fs::OpenOptions::new().write(true).open(whole.path()).expect("a handle");
        handle.set_len(1000).expect("a cut");
        assert!(!text(Archive::open(whole.path())).is_empty());
    }

    #[test]
    fn names_come_from_annotations_or_the_file() {
        let named =
            |name: Option<&str>| open(oci(name, false)).expect("an archive").images[0].names[0].clone();
        assert_eq!(named(Some("quay.io/a/b:c")), "quay.io/a/b:c");
        assert!(named(Some("v2")).ends_with(":v2"));
        assert!(named(None).starts_with("docker.io/library/"));
    }
}
