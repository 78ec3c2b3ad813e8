//! Inputs made from others by small changes, the same for the same seed.

/// Bits that look random (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`; 0 where there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or_default()
    }
}

/// Inputs do not grow beyond this.
const LONGEST: usize = 1 << 14;

/// What breaks readers: ends of numbers, odd text, what closes and opens, what protobuf means as lengths.
const TOKENS: [&[u8]; 34] = [
    b"null",
    b"true",
    b"0",
    b"-1",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"1e999",
    b"0.1",
    b"\"\"",
    b"\"a\":",
    b"{}",
    b"[]",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"}",
    b"]",
    b",",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"\xef\xbf\xbe",
    b"\xe2\x80\xa8",
    b"\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x80",
    b": ",
    b"\n- ",
    b"&a *a",
    b"!!binary ",
    b"$patch",
    b"~1",
];

/// An input made from one of some others.
pub fn mutated(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut out = seeds.get(random.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(5) {
        change(random, &mut out, seeds);
    }
    out.truncate(LONGEST);
    out
}

fn change(random: &mut Random, out: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = random.below(out.len() + 1);
    let end = at + random.below(out.len() - at.min(out.len()) + 1).min(64);
    let here = at.min(out.len().saturating_sub(1));
    match random.below(9) {
        0 if !out.is_empty() => out[here] ^= 1 << random.below(8),
        1 if !out.is_empty() => out[here] = u8::try_from(random.below(256)).unwrap_or_default(),
        2 => drop(out.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
        3 => drop(out.splice(at..end, TOKENS[random.below(TOKENS.len())].iter().copied())),
        4 => drop(out.drain(at..end)),
        5 => out.truncate(at),
        6 => {
            let part = out[at..end].to_vec();
            let times = [1, 2, 3, 300][random.below(4)];
            drop(out.splice(at..at, part.repeat(times).into_iter().take(LONGEST)));
        }
        7 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            let length = random.below(other.len() - from + 1);
            drop(out.splice(at..end, other[from..from + length].iter().copied()));
        }
        _ if !out.is_empty() => {
            let digit = b"0123456789abczAZ-_./+="[random.below(22)];
            out[here] = digit;
        }
        _ => {}
    }
}
