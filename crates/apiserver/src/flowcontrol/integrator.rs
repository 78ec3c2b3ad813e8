//! The mean, spread and height of a number over time.

use std::time::Duration;

/// Follows a number from one look to the next.
#[derive(Clone, Debug)]
pub struct Integrator {
    value: f64,
    since: Duration,
    last: Duration,
    /// The integrals of the number and of its square.
    sum: f64,
    squares: f64,
    max: f64,
}

/// What became of the number between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// Seconds between the looks.
    pub seconds: f64,
    pub average: f64,
    pub deviation: f64,
    pub max: f64,
}

impl Integrator {
    pub fn new(now: Duration) -> Self {
        Self { value: 0.0, since: now, last: now, sum: 0.0, squares: 0.0, max: 0.0 }
    }

    pub fn set(&mut self, now: Duration, value: f64) {
        self.advance(now);
        self.value = value;
        self.max = self.max.max(value);
    }

    /// What happened since the last look, from which the next one counts.
    pub fn look(&mut self, now: Duration) -> Observed {
        self.advance(now);
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let mut observed = Observed { seconds, max: self.max, ..Observed::default() };
        if seconds > 0.0 {
            observed.average = self.sum / seconds;
            let variance = self.squares / seconds - observed.average * observed.average;
            observed.deviation = variance.max(0.0).sqrt();
        }
        *self = Self { value: self.value, max: self.value, ..Self::new(now) };
        observed
    }

    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.sum += self.value * passed;
        self.squares += self.value * self.value * passed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_counts_for_as_long_as_it_held() {
        let at = Duration::from_secs;
        let mut demand = Integrator::new(at(100));
        demand.set(at(100), 2.0);
        demand.set(at(103), 6.0);
        let first = demand.look(at(104));
        assert_eq!((first.seconds, first.average, first.max), (4.0, 3.0, 6.0));
        assert!((first.deviation - 3_f64.sqrt()).abs() < 1e-9, "{first:?}");
        demand.set(at(104), 1.0);
        let second = demand.look(at(108));
        assert_eq!((second.average, second.deviation, second.max), (1.0, 0.0, 6.0), "it began at 6");
        let third = demand.look(at(108));
        assert_eq!(third, Observed { max: 1.0, ..Observed::default() }, "no time has passed");
    }
}
