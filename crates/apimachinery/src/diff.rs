//! Unified diffs of texts, as upstream's messages show them: which lines count as kept is decided the way of Python's
//! `difflib`, so that the same lines are shown.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// How many lines are shown around a change.
const CONTEXT: usize = 3;
/// From how many lines on those that stand often are no place to begin a match.
const MANY: usize = 200;

/// Lines of both sides from somewhere on that are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// A part of the first text and what stands for it in the second.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    kept: bool,
    a: Range<usize>,
    b: Range<usize>,
}

/// What tells the second text from the first; empty when nothing does.
pub fn unified(a: &str, b: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('\n').collect(), b.split('\n').collect());
    let mut out = String::new();
    for hunk in hunks(steps(&a, &b)) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let (before, after) = (first.a.start..last.a.end, first.b.start..last.b.end);
        out.push_str(&format!("@@ -{} +{} @@\n", place(&before), place(&after)));
        for step in &hunk {
            let mut write = |sign: char, lines: &[&str]| {
                lines.iter().for_each(|line| out.push_str(&format!("{sign}{line}\n")));
            };
            if step.kept {
                write(' ', &a[step.a.clone()]);
            } else {
                write('-', &a[step.a.clone()]);
                write('+', &b[step.b.clone()]);
            }
        }
    }
    out
}

/// Where lines stand, counted from one; no lines stand after the one before.
fn place(lines: &Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        len => format!("{},{len}", lines.start + 1),
    }
}

/// Where each line of a text stands, without those that stand too often.
fn positions<'a>(lines: &[&'a str]) -> HashMap<&'a str, Vec<usize>> {
    let mut at: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, line) in lines.iter().enumerate() {
        at.entry(line).or_default().push(index);
    }
    if lines.len() >= MANY {
        let often = lines.len() / 100 + 1;
        at.retain(|_, indices| indices.len() <= often);
    }
    at
}

/// The longest run of lines that both ranges have; of several the first.
fn longest(
    (a, b): (&[&str], &[&str]),
    at: &HashMap<&str, Vec<usize>>,
    in_a: &Range<usize>,
    in_b: &Range<usize>,
) -> Match {
    let mut best = Match { a: in_a.start, b: in_b.start, len: 0 };
    // how long the run is that ends at a line of the second text
    let mut runs: BTreeMap<usize, usize> = BTreeMap::new();
    for i in in_a.clone() {
        let mut next = BTreeMap::new();
        for &j in at.get(a[i]).into_iter().flatten().filter(|j| in_b.contains(j)) {
            let len = 1 + j.checked_sub(1).and_then(|before| runs.get(&before)).copied().unwrap_or_default();
            next.insert(j, len);
            if len > best.len {
                best = Match { a: i + 1 - len, b: j + 1 - len, len };
            }
        }
        runs = next;
    }
    while best.a > in_a.start && best.b > in_b.start && a[best.a - 1] == b[best.b - 1] {
        best = Match { a: best.a - 1, b: best.b - 1, len: best.len + 1 };
    }
    while best.a + best.len < in_a.end
        && best.b + best.len < in_b.end
        && a[best.a + best.len] == b[best.b + best.len]
    {
        best.len += 1;
    }
    best
}

fn matches(a: &[&str], b: &[&str]) -> Vec<Match> {
    let at = positions(b);
    let mut found = Vec::new();
    let mut open = vec![(0..a.len(), 0..b.len())];
    while let Some((in_a, in_b)) = open.pop() {
        let one = longest((a, b), &at, &in_a, &in_b);
        if one.len == 0 {
            continue;
        }
        found.push(one);
        let (before, after) =
            ((in_a.start..one.a, in_b.start..one.b), (one.a + one.len..in_a.end, one.b + one.len..in_b.end));
        open.extend([before, after].into_iter().filter(|(a, b)| !a.is_empty() && !b.is_empty()));
    }
    found.sort_unstable_by_key(|one| one.a);
    found
}

fn steps(a: &[&str], b: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut i, mut j) = (0, 0);
    let end = Match { a: a.len(), b: b.len(), len: 0 };
    for one in matches(a, b).into_iter().chain([end]) {
        if i < one.a || j < one.b {
            steps.push(Step { kept: false, a: i..one.a, b: j..one.b });
        }
        (i, j) = (one.a + one.len, one.b + one.len);
        let (a, b) = (one.a..i, one.b..j);
        match steps.last_mut().filter(|last| last.kept) {
            // two matches that touch are one
            Some(last) => (last.a.end, last.b.end) = (i, j),
            None if one.len > 0 => steps.push(Step { kept: true, a, b }),
            None => {}
        }
    }
    steps
}

/// Steps with no more around them than is shown, apart where much is kept between.
fn hunks(mut steps: Vec<Step>) -> Vec<Vec<Step>> {
    let head = |step: &Step| Step {
        kept: true,
        a: step.a.start..step.a.end.min(step.a.start + CONTEXT),
        b: step.b.start..step.b.end.min(step.b.start + CONTEXT),
    };
    let tail = |step: &Step| Step {
        kept: true,
        a: step.a.start.max(step.a.end.saturating_sub(CONTEXT))..step.a.end,
        b: step.b.start.max(step.b.end.saturating_sub(CONTEXT))..step.b.end,
    };
    if let Some(first) = steps.first_mut().filter(|step| step.kept) {
        *first = tail(first);
    }
    if let Some(last) = steps.last_mut().filter(|step| step.kept) {
        *last = head(last);
    }
    let mut hunks = Vec::new();
    let mut hunk: Vec<Step> = Vec::new();
    for step in steps {
        if step.kept && step.a.len() > 2 * CONTEXT {
            hunk.push(head(&step));
            hunks.push(std::mem::take(&mut hunk));
            hunk.push(tail(&step));
        } else {
            hunk.push(step);
        }
    }
    hunks.push(hunk);
    hunks.retain(|hunk| hunk.iter().any(|step| !step.kept));
    hunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(numbers: impl IntoIterator<Item = u32>) -> String {
        numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn diffs() {
        let cases = [
            (lines(1..10), lines(1..10), String::new()),
            ("a\nb\nc".into(), "a\nx\nc".into(), "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n".into()),
            ("a".into(), "a\nb".into(), "@@ -1 +1,2 @@\n a\n+b\n".into()),
            (
                lines(1..20),
                lines((1..3).chain(4..20)),
                "@@ -1,6 +1,5 @@\n 1\n 2\n-3\n 4\n 5\n 6\n".into(),
            ),
            (
                lines(1..20),
                lines((1..3).chain([33]).chain(4..18).chain([20, 19])),
                "@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+33\n 4\n 5\n 6\n@@ -15,5 +15,5 @@\n 15\n 16\n 17\n-18\n+20\n 19\n".into(),
            ),
        ];
        for (a, b, expected) in cases {
            assert_eq!(unified(&a, &b), expected, "{a:?} {b:?}");
        }
    }

    /// As go-difflib, which upstream uses, says it.
    #[test]
    fn what_follows_a_change_among_lines_that_stand_often_changes_with_it() {
        let a = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj";
        let b = "a\nb\nc\nD\ne\nf\ng\nh\ni\nJ\nk";
        let expected = "@@ -1,10 +1,11 @@\n a\n b\n c\n-d\n+D\n e\n f\n g\n h\n i\n-j\n+J\n+k\n";
        assert_eq!(unified(a, b), expected);
        let long = |line: &str| [vec!["}"; 150], vec![line], vec!["}"; 100]].concat().join("\n");
        let expected = format!(
            "@@ -148,104 +148,104 @@\n }}\n }}\n }}\n-x\n{}+y\n{}",
            "-}\n".repeat(100),
            "+}\n".repeat(100)
        );
        assert_eq!(unified(&long("x"), &long("y")), expected);
    }

    /// In long texts a line that stands often begins no match, but lengthens one.
    #[test]
    fn what_stands_often_begins_nothing() {
        let often = |number: u32| if number.is_multiple_of(2) { "}".to_owned() } else { number.to_string() };
        let long = |changed: &str| {
            let lines: Vec<String> = (0..300)
                .map(|number| if number == 151 { changed.to_owned() } else { often(number) })
                .collect();
            lines.join("\n")
        };
        assert_eq!(
            unified(&long("a"), &long("b")),
            "@@ -149,7 +149,7 @@\n }\n 149\n }\n-a\n+b\n }\n 153\n }\n"
        );
    }
}
