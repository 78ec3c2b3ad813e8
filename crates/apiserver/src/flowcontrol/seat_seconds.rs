//! Work, measured in seats times time: what fair queuing counts in.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

/// Units of a seat-second.
const SCALE: i128 = 100_000_000;

/// Seat-seconds in fixed point. Wide enough that a server never has to wind it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatSeconds(i128);

impl SeatSeconds {
    pub const ZERO: Self = Self(0);

    pub fn new(seats: f64, time: Duration) -> Self {
        Self((seats * time.as_secs_f64() * SCALE as f64).round() as i128)
    }

    /// How long so many seats take for this work.
    pub fn per_seat(self, seats: u32) -> Duration {
        let seconds = self.0.max(0) as f64 / SCALE as f64 / f64::from(seats.max(1));
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

impl Add for SeatSeconds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for SeatSeconds {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl AddAssign for SeatSeconds {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for SeatSeconds {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl Sum for SeatSeconds {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for SeatSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.abs() / SCALE, self.0.abs() % SCALE);
        write!(f, "{sign}{whole}.{part:08}ss")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_times_time() {
        let work = SeatSeconds::new(4.0, Duration::from_millis(5));
        assert_eq!(work.to_string(), "0.02000000ss");
        assert_eq!(work.per_seat(2), Duration::from_millis(10));
        assert_eq!((SeatSeconds::ZERO - work).to_string(), "-0.02000000ss");
        assert_eq!([work, work].into_iter().sum::<SeatSeconds>(), work + work);
    }
}
