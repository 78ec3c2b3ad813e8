//! Container logs in CRI's format: read for `kubectl logs`, followed, tailed and rotated.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// One line of a log: `2016-10-06T00:17:09.669794202Z stdout F the text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: &'a str,
    /// A line that the runtime cut goes on in the next one.
    pub partial: bool,
    pub text: &'a [u8],
}

/// Reads a line without its line end; `None` when it is not in CRI's format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = std::str::from_utf8(parts.next()?).ok()?;
    let text = parts.next().unwrap_or_default();
    let known = matches!(stream, "stdout" | "stderr") && time.contains('T');
    known.then_some(Line { time, partial: tags.split(':').any(|tag| tag == "P"), text })
}

/// The text of the last `lines` lines, at most `max` bytes of it.
pub fn tail_text(path: &Path, lines: usize, max: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = find_tail(&mut file, lines)?;
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if let Some(parsed) = parse(&line) {
            text.extend_from_slice(parsed.text);
            if !parsed.partial {
                text.push(b'\n');
            }
        }
    }
    let from = text.len().saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
    Ok(String::from_utf8_lossy(&text[from..]).into_owned())
}

/// Where the last `lines` lines of a file start, read from its end.
pub fn find_tail(file: &mut File, lines: usize) -> io::Result<u64> {
    const BLOCK: u64 = 4096;
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut seen = 0;
    let mut at = end;
    let mut block = Vec::new();
    while at > 0 {
        let from = at.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(from))?;
        block.clear();
        Read::by_ref(file).take(at - from).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = from + index as u64;
            // the end of the last line is no start of another
            if *byte == b'\n' && position + 1 != end {
                seen += 1;
                if seen == lines {
                    return Ok(position + 1);
                }
            }
        }
        at = from;
    }
    Ok(0)
}

/// Files that a log was rotated into, oldest first: `0.log.20260102-030405`, some of them compressed.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) =
        (path.parent(), path.file_name().map(|n| n.to_string_lossy().into_owned()))
    else {
        return Ok(Vec::new());
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Moves a log aside, compresses the one moved before, and removes the oldest beyond `max_files`. The runtime has
/// to open its log anew afterwards.
pub fn rotate(path: &Path, max_files: u32) -> io::Result<()> {
    let mut old = rotated(path)?;
    for file in old.iter_mut().filter(|file| file.extension().is_none_or(|e| e != "gz")) {
        *file = compress(file)?;
    }
    // the live log and the one that is moved now count, too
    let keep = usize::try_from(max_files).unwrap_or(usize::MAX).saturating_sub(2);
    for file in old.iter().rev().skip(keep) {
        fs::remove_file(file)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(jiff::Timestamp::now().strftime(".%Y%m%d-%H%M%S").to_string());
    fs::rename(path, name)
}

fn compress(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let target = PathBuf::from(name);
    let temporary = target.with_extension("tmp");
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(&temporary)?, flate2::Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&temporary, &target)?;
    fs::remove_file(path)?;
    Ok(target)
}

/// Removes a log and what it was rotated into.
pub fn remove_with_rotated(path: &Path) -> io::Result<()> {
    for file in rotated(path)? {
        fs::remove_file(file)?;
    }
    crate::files::remove_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_rotated_and_compressed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        for (round, stamp) in
            ["20260101-000001", "20260101-000002", "20260101-000003"].into_iter().enumerate()
        {
            fs::write(folder.path().join(format!("0.log.{stamp}")), format!("{round}")).expect("a file");
        }
        fs::write(&path, "now").expect("a file");
        rotate(&path, 3).expect("rotated");
        let files = rotated(&path).expect("a listing");
        assert!(!path.exists() && files.len() == 2, "{files:?}");
        assert!(files[0].to_string_lossy().ends_with("000003.gz"), "{files:?}");
        assert_eq!(fs::read_to_string(&files[1]).expect("a file"), "now");
        remove_with_rotated(&path).expect("removed");
        assert_eq!(fs::read_dir(folder.path()).expect("a listing").count(), 0);
    }

    #[test]
    fn lines_are_read_in_cri_format() {
        let line = parse(b"2026-01-02T03:04:05.6Z stdout F hello  world ").expect("a line");
        assert_eq!((line.partial, line.text), (false, b"hello  world ".as_slice()));
        assert!(parse(b"2026-01-02T03:04:05Z stderr P part").expect("a line").partial);
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F").map(|l| l.text), Some(b"".as_slice()));
        for bad in [b"".as_slice(), b"x", b"a b c d", b"2026-01-02T03:04:05Z other F x"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn the_tail_is_found_from_the_end() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let content: String =
            (0..5000).map(|n| format!("2026-01-02T03:04:05Z stdout F line {n}\n")).collect();
        std::fs::write(file.path(), &content).expect("content");
        let tail = tail_text(file.path(), 3, 2048).expect("a tail");
        assert_eq!(tail, "line 4997\nline 4998\nline 4999\n");
        assert_eq!(tail_text(file.path(), 2, 5).expect("a tail"), "4999\n");
        let mut handle = File::open(file.path()).expect("a handle");
        for (lines, want) in [(0, content.len()), (10_000, 0), (5000, 0)] {
            assert_eq!(find_tail(&mut handle, lines).expect("a place"), want as u64, "{lines}");
        }
    }
}
