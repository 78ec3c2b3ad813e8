//! When those that were turned away are told to come again: later, the more of them there are.

use std::collections::VecDeque;

/// In seconds, as everything here.
const MAX: u64 = 32;

/// Who was turned away of late at one level.
#[derive(Debug)]
pub struct RetryAfter {
    seconds: u64,
    /// When it last grew.
    grown: u64,
    /// The second that is running, and how many were turned away in it.
    current: (u64, u64),
    history: VecDeque<(u64, u64)>,
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self { seconds: 1, grown: 0, current: (0, 0), history: VecDeque::new() }
    }
}

impl RetryAfter {
    /// Takes note of a request that was turned away; says when it may come again.
    pub fn dropped(&mut self, now: u64) -> u64 {
        if self.current.0 == now {
            self.current.1 += 1;
            return self.seconds;
        }
        self.history.push_back(std::mem::replace(&mut self.current, (now, 1)));
        let kept = (2 * self.seconds).min(MAX);
        while self.history.front().is_some_and(|(second, _)| now.saturating_sub(*second) > kept) {
            self.history.pop_front();
        }
        let recent = self.history.iter().filter(|(second, _)| now.saturating_sub(*second) <= self.seconds);
        let dropped: u64 = recent.map(|(_, count)| count).sum();
        if now.saturating_sub(self.grown) >= self.seconds && dropped >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(MAX);
            self.grown = now;
        } else if dropped < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_under_load_and_shrinks_after() {
        let mut level = RetryAfter::default();
        // second, how many are turned away in it, what the last of them is told
        for (second, count, told) in [
            (1000, 1, 1),
            (1001, 5, 1),
            (1002, 5, 2),
            (1003, 20, 2),
            (1004, 20, 4),
            (1005, 50, 4),
            (1008, 50, 8),
            (1016, 1, 16),
            (1032, 1, 15),
            (1100, 1, 14),
        ] {
            let mut last = 0;
            for _ in 0..count {
                last = level.dropped(second);
            }
            assert_eq!(last, told, "{second}");
        }
        for second in 1..200 {
            for _ in 0..100 {
                assert!(level.dropped(2000 + second) <= MAX);
            }
        }
        assert_eq!(level.dropped(2500), MAX - 1);
    }
}
