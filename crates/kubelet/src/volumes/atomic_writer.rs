//! Writes a set of files so that a reader sees all of the old or all of the new: the files lie in a folder with a
//! time in its name, `..data` points to it, and each visible name is a link through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file: content, mode, and the user it belongs to when that is not root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    pub uid: Option<u32>,
}

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, File>;

fn invalid(path: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?}: {why}"))
}

/// Paths may not leave the volume, nor meet the writer's own names.
fn validate(payload: &Payload) -> io::Result<()> {
    for path in payload.keys() {
        if path.is_empty() || path.len() > 4096 {
            return Err(invalid(path, "must not be empty or too long"));
        }
        if path.starts_with("..") {
            return Err(invalid(path, "must not start with '..'"));
        }
        if !Path::new(path).components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(invalid(path, "must be relative and without '..'"));
        }
    }
    Ok(())
}

/// Writes the payload into `target`. `prepare` sets owners and modes before anything is visible. Returns whether
/// anything changed.
pub fn write(
    target: &Path,
    payload: &Payload,
    prepare: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    validate(payload)?;
    let old = fs::read_link(target.join(DATA)).ok();
    if let Some(old) = &old
        && is_same(&target.join(old), payload)?
    {
        return Ok(false);
    }
    let now = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let name = format!("{now}.{}", rand::random::<u32>());
    let folder = target.join(&name);
    let made = fs::create_dir(&folder)
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)))
        .and_then(|()| write_files(&folder, payload))
        .and_then(|()| prepare(&folder));
    if let Err(error) = made {
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    let new_link = target.join(NEW_DATA);
    crate::files::remove_all(&new_link)?;
    symlink(&name, &new_link)?;
    fs::rename(&new_link, target.join(DATA))?;
    let visible: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &visible {
        let link = target.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let shown = file_name.to_string_lossy();
        if !shown.starts_with("..") && !visible.contains(shown.as_ref()) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        crate::files::remove_all(&target.join(old))?;
    }
    Ok(true)
}

fn write_files(folder: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.data)?;
        // not at creation: the umask would take part
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode & 0o7777))?;
        if let Some(uid) = file.uid {
            chown(&path, Some(uid), None)?;
        }
    }
    Ok(())
}

/// Whether a folder holds exactly these files.
fn is_same(folder: &Path, payload: &Payload) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    collect(folder, Path::new(""), &mut found)?;
    if found.len() != payload.len() {
        return Ok(false);
    }
    for (path, file) in payload {
        if !found.contains(Path::new(path)) || fs::read(folder.join(path))? != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn collect(folder: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder.join(below)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(folder, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.into(), mode: 0o640, uid: None };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    fn shown(folder: &Path) -> String {
        let mut lines = Vec::new();
        for entry in fs::read_dir(folder).expect("a listing").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") {
                let target = fs::read_link(entry.path()).expect("a link");
                lines.push(format!("{name} -> {}", target.display()));
            }
        }
        lines.sort();
        lines.join(", ")
    }

    #[test]
    fn readers_go_through_one_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path();
        let first = payload(&[("a", "1"), ("dir/b", "2"), ("dir/c", "3")]);
        assert!(write(target, &first, |_| Ok(())).expect("written"));
        assert_eq!(shown(target), "a -> ..data/a, dir -> ..data/dir");
        assert_eq!(fs::read_to_string(target.join("dir/b")).expect("a file"), "2");
        let mode = fs::metadata(target.join("a")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let before = fs::read_link(target.join(DATA)).expect("a link");
        assert!(!write(target, &first, |_| panic!("nothing to prepare")).expect("unchanged"));

        assert!(write(target, &payload(&[("a", "9"), ("d", "4")]), |_| Ok(())).expect("written"));
        assert_eq!(shown(target), "a -> ..data/a, d -> ..data/d");
        assert_eq!(fs::read_to_string(target.join("a")).expect("a file"), "9");
        assert!(!target.join(before).exists(), "the old folder is gone");
        assert!(write(target, &Payload::new(), |_| Ok(())).expect("written"));
        assert_eq!(shown(target), "");
    }

    #[test]
    fn a_failure_leaves_the_old_files() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &payload(&[("a", "1")]), |_| Ok(())).expect("written");
        let failed = write(folder.path(), &payload(&[("a", "2")]), |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(folder.path().join("a")).expect("a file"), "1");
        assert_eq!(fs::read_dir(folder.path()).expect("a listing").count(), 3);
    }

    #[test]
    fn paths_stay_inside() {
        let folder = tempfile::tempdir().expect("a folder");
        for bad in ["", "/etc/passwd", "../x", "..data", "a/../../b", "a/./b/.."] {
            assert!(write(folder.path(), &payload(&[(bad, "x")]), |_| Ok(())).is_err(), "{bad}");
        }
    }
}
