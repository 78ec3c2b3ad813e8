//! Mounts of the host that volumes are made of: memory file systems, sub-paths, ownership, host paths.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

/// Whether something is mounted on a folder.
pub fn is_mount_point(path: &Path) -> bool {
    let (Ok(own), Some(Ok(parent))) = (fs::symlink_metadata(path), path.parent().map(fs::symlink_metadata))
    else {
        return false;
    };
    own.dev() != parent.dev()
}

/// Mounts a memory file system, unless it is there.
pub fn mount_tmpfs(path: &Path, size: Option<i64>, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if is_mount_point(path) {
        return Ok(());
    }
    let size = size.filter(|size| *size > 0).map(|size| format!(",size={size}")).unwrap_or_default();
    let options = format!("mode={mode:o}{size}");
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
        .map_err(io::Error::from)
}

/// Mount points at or below a path, deepest first.
pub fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(path))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(points)
}

/// Paths in the mount table have blanks written as octal numbers.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal.filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Unmounts everything at or below a path.
pub fn unmount_below(path: &Path) -> io::Result<()> {
    for point in mounts_below(path)? {
        umount2(&point, MntFlags::empty())
            .or_else(|_| umount2(&point, MntFlags::MNT_DETACH))
            .map_err(|error| io::Error::other(format!("cannot unmount {}: {error}", point.display())))?;
    }
    Ok(())
}

/// Gives a volume to a group: files readable (and writable) by it, folders hand their group on.
pub fn set_group(path: &Path, group: i64, read_only: bool) -> io::Result<()> {
    let group = u32::try_from(group).map_err(|_| io::Error::other("the group is out of range"))?;
    walk(path, &mut |path, metadata| {
        lchown(path, None, Some(group))?;
        if metadata.is_symlink() {
            return Ok(());
        }
        let mut mode = if read_only { 0o440 } else { 0o660 };
        if metadata.is_dir() {
            mode |= 0o2000 | 0o110;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777 | mode))
    })
}

fn walk(path: &Path, act: &mut impl FnMut(&Path, &fs::Metadata) -> io::Result<()>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    act(path, &metadata)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), act)?;
        }
    }
    Ok(())
}

/// Checks, and where asked makes, what a host path volume is to be.
pub fn check_host_path(path: &Path, kind: &str) -> Result<(), String> {
    let failed = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    let exists = path.exists();
    let make = |result: io::Result<()>| result.map_err(|error| error.to_string());
    let metadata = fs::metadata(path).ok();
    let is = |test: fn(&fs::FileType) -> bool| metadata.as_ref().is_some_and(|m| test(&m.file_type()));
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if !exists => make(
            fs::create_dir_all(path)
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755))),
        ),
        "FileOrCreate" if !exists => make(
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(|_| ())
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644))),
        ),
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => failed("a directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => failed("a file"),
        "Socket" if !is(FileTypeExt::is_socket) => failed("a socket file"),
        "CharDevice" if !is(FileTypeExt::is_char_device) => failed("a character device"),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => failed("a block device"),
        _ => Ok(()),
    }
}

/// Makes the part of a volume at `sub_path` available at `target`, whatever links a container may have put into
/// the volume: the kernel resolves the path and lets it not leave the volume.
pub fn bind_sub_path(volume: &Path, sub_path: &str, target: &Path) -> io::Result<()> {
    let root = fs::File::open(volume)?;
    let resolve = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let relative = Path::new(sub_path);
    let found = match openat2(&root, relative, resolve) {
        Err(nix::Error::ENOENT) => {
            make_folders(&root, volume, relative)?;
            openat2(&root, relative, resolve)?
        }
        other => other?,
    };
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    let is_folder = fs::metadata(&source)?.is_dir();
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::symlink_metadata(target).is_ok() {
        unmount_below(target)?;
        crate::files::remove_all(target)?;
    }
    if is_folder {
        fs::create_dir(target)?
    } else {
        fs::File::create(target).map(|_| ())?
    };
    let source = Path::new(&source);
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(io::Error::from)
}

/// Makes the folders of a sub-path one by one, each opened without following links out of the volume.
fn make_folders(root: &fs::File, volume: &Path, relative: &Path) -> io::Result<()> {
    use nix::fcntl::openat;
    use nix::sys::stat::mkdirat;
    let mode = fs::metadata(volume)?.mode() & 0o777;
    let mut at: std::os::fd::OwnedFd = root.try_clone()?.into();
    for part in relative.components() {
        let std::path::Component::Normal(part) = part else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the sub-path leaves its volume"));
        };
        match mkdirat(&at, part, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        at = openat(&at, part, flags, Mode::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_mount_table_is_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c\\x"), "/a b\\c\\x");
    }

    #[test]
    fn host_paths_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f");
        fs::write(&file, "").expect("a file");
        let cases = [
            (folder.path().to_owned(), "Directory", true),
            (folder.path().to_owned(), "File", false),
            (file.clone(), "File", true),
            (file.clone(), "Socket", false),
            (file, "", true),
            (folder.path().join("none"), "", true),
            (folder.path().join("none"), "Directory", false),
            (folder.path().join("new/deep"), "DirectoryOrCreate", true),
            (folder.path().join("new/file"), "FileOrCreate", true),
            (PathBuf::from("/dev/null"), "CharDevice", true),
        ];
        for (path, kind, fits) in cases {
            assert_eq!(check_host_path(&path, kind).is_ok(), fits, "{} {kind}", path.display());
        }
        assert_eq!(
            check_host_path(Path::new("/dev/null"), "Directory"),
            Err("hostPath type check failed: /dev/null is not a directory".into())
        );
    }

    #[test]
    fn sub_paths_cannot_leave_their_volume() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let volume = folder.path().join("volume");
        fs::create_dir(&volume).expect("a folder");
        fs::write(volume.join("real"), "in").expect("a file");
        symlink("real", volume.join("link")).expect("a link");
        symlink("/etc", volume.join("out")).expect("a link");
        symlink("../..", volume.join("up")).expect("a link");
        let target = folder.path().join("sub/0");
        bind_sub_path(&volume, "link", &target).expect("bound");
        assert_eq!(fs::read_to_string(&target).expect("a file"), "in");
        // a restart binds again
        bind_sub_path(&volume, "new/deep", &target).expect("bound");
        assert!(volume.join("new/deep").is_dir() && is_mount_below(folder.path()));
        for bad in ["out", "out/passwd", "up", "../x"] {
            assert!(bind_sub_path(&volume, bad, &folder.path().join("bad")).is_err(), "{bad}");
        }
        unmount_below(folder.path()).expect("unmounted");
        assert!(!is_mount_below(folder.path()));
    }

    fn is_mount_below(path: &Path) -> bool {
        !mounts_below(path).expect("a table").is_empty()
    }

    #[test]
    fn a_group_gets_the_files() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("f"), "").expect("a file");
        fs::set_permissions(folder.path().join("f"), fs::Permissions::from_mode(0o600)).expect("a mode");
        set_group(folder.path(), 1234, false).expect("given");
        let file = fs::metadata(folder.path().join("f")).expect("a file");
        assert_eq!((file.gid(), file.mode() & 0o7777), (1234, 0o660));
        let own = fs::metadata(folder.path()).expect("a folder");
        assert_eq!((own.gid(), own.mode() & 0o7070), (1234, 0o2070));
    }
}
