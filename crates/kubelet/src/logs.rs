//! Container logs in CRI's format: read for `kubectl logs`, followed, tailed and rotated.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// One line of a log: `2016-10-06T00:17:09.669794202Z stdout F the text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: &'a str,
    pub stream: &'a str,
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
    known.then_some(Line { time, stream, partial: tags.split(':').any(|tag| tag == "P"), text })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_cri_format() {
        let line = parse(b"2026-01-02T03:04:05.6Z stdout F hello  world ").expect("a line");
        assert_eq!((line.stream, line.partial, line.text), ("stdout", false, b"hello  world ".as_slice()));
        assert!(parse(b"2026-01-02T03:04:05Z stderr P part").expect("a line").partial);
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F").map(|l| l.text), Some(b"".as_slice()));
        for bad in [b"".as_slice(), b"x", b"a b c d", b"2026-01-02T03:04:05Z other F x"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn the_tail_is_found_from_the_end() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let content: String = (0..5000).map(|n| format!("2026-01-02T03:04:05Z stdout F line {n}\n")).collect();
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
