//! The pause image, packed from the program that `build.rs` made.

use serde_json::json;

use super::archive::{ArchivedImage, single_layer};
use super::config::PAUSE_IMAGE;

static PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The same bytes on every start, so that the image keeps its digest.
pub fn image() -> std::io::Result<ArchivedImage> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(PAUSE.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    layer.append_data(&mut header, "pause", PAUSE)?;
    let config = json!({"config": {"Entrypoint": ["/pause"], "User": "65535:65535"}});
    Ok(single_layer(PAUSE_IMAGE, layer.into_inner()?, &config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_small_and_always_the_same() {
        let (one, two) = (image().expect("an image"), image().expect("an image"));
        assert_eq!(one.manifest.descriptor, two.manifest.descriptor);
        assert!(PAUSE.starts_with(b"\x7fELF") && PAUSE.len() < 16 << 10);
    }
}
