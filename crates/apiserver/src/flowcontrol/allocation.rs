//! How the server's seats are divided among priority levels: by their shares, and by what those lend that need less.

use super::integrator::Observed;

/// How much of the smoothed demand outlives one period; half is gone after five minutes.
const SMOOTHING: f64 = 0.977;

/// Targets below are treated as this, so that nothing is divided by zero.
const MIN_TARGET: f64 = 0.001;

const EPSILON: f64 = 1e-7;

/// What a level's configuration says of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub shares: u32,
    pub lendable_percent: u32,
    /// `None`: as much as there is.
    pub borrowing_percent: Option<u32>,
}

/// The seats of a level: by its share, at least, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub nominal: u32,
    pub min: u32,
    pub max: u32,
}

impl Limits {
    /// What a level starts with: half of what it may lend is lent.
    pub fn initial(self) -> u32 {
        self.nominal - (self.nominal - self.min) / 2
    }
}

/// Divides the seats of a server by shares. Rounding up may give out a few more than there are.
pub fn nominal(seats: u32, levels: &[Share]) -> Vec<Limits> {
    let sum: f64 = levels.iter().map(|level| f64::from(level.shares)).sum();
    let limits = |level: &Share| {
        let nominal = if sum > 0.0 { f64::from(seats) * f64::from(level.shares) / sum } else { 0.0 };
        let nominal = nominal.ceil() as u32;
        let percent = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let borrowed = level.borrowing_percent.map_or(seats, percent);
        Limits {
            nominal,
            min: nominal - percent(level.lendable_percent).min(nominal),
            max: nominal + borrowed,
        }
    };
    levels.iter().map(limits).collect()
}

/// How many seats a level could have used, over the last period and smoothed over many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    pub average: f64,
    pub deviation: f64,
    pub high_watermark: u32,
    pub smoothed: f64,
}

impl Demand {
    pub fn update(&mut self, observed: Observed) {
        self.high_watermark = observed.max.round() as u32;
        if observed.seconds <= 0.0 {
            return;
        }
        self.average = observed.average;
        self.deviation = observed.deviation;
        let envelope = observed.average + observed.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

/// A level that takes part in lending and borrowing.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    pub exempt: bool,
    pub limits: Limits,
    pub demand: Demand,
    /// What it has now, which it keeps where nothing better can be found.
    pub current: u32,
}

/// What an adjustment came to, in the order of the levels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adjusted {
    pub seats: Vec<u32>,
    /// What each level was meant to get if there had been enough; nothing for exempt ones.
    pub targets: Vec<Option<f64>>,
    /// The part of its target that every level gets.
    pub fair_fraction: f64,
}

/// Divides the seats anew by what levels could use. `sum` is the sum of nominal limits.
pub fn adjust(sum: u32, parties: &[Party]) -> Adjusted {
    let floor = |party: &Party| {
        let wanted = party.demand.high_watermark;
        party.limits.min.max(if party.exempt { wanted } else { wanted.min(party.limits.nominal) })
    };
    let taken: i64 = parties.iter().filter(|party| party.exempt).map(|party| i64::from(floor(party))).sum();
    let left = i64::from(sum) - taken;
    let limited = || parties.iter().filter(|party| !party.exempt);
    let min_sum: i64 = limited().map(|party| i64::from(party.limits.min)).sum();
    let floor_sum: i64 = limited().map(|party| i64::from(floor(party))).sum();
    let targets: Vec<Option<f64>> = parties
        .iter()
        .map(|party| (!party.exempt).then(|| party.demand.smoothed.max(f64::from(floor(party)))))
        .collect();
    let mut out = Adjusted { targets, ..Adjusted::default() };
    let seats_of = |of: &dyn Fn(&Party) -> u32| -> Vec<u32> {
        parties.iter().map(|party| if party.exempt { floor(party) } else { of(party) }).collect()
    };
    if left <= min_sum {
        out.seats = seats_of(&|party| party.limits.min);
    } else if left <= floor_sum {
        let fraction = (left - min_sum) as f64 / (floor_sum - min_sum) as f64;
        out.seats = seats_of(&|party| {
            let above = f64::from(floor(party) - party.limits.min) * fraction;
            party.limits.min + above.round() as u32
        });
    } else {
        let claims: Vec<Claim> = limited()
            .map(|party| Claim {
                low: f64::from(floor(party)),
                high: f64::from(party.limits.max),
                target: party.demand.smoothed.max(f64::from(floor(party))),
            })
            .collect();
        match allocate(sum, &claims) {
            Ok((given, fraction)) => {
                let mut given = given.into_iter();
                out.seats = seats_of_given(parties, floor, &mut given);
                out.fair_fraction = fraction;
            }
            Err(error) => {
                tracing::error!(error, "seats could not be divided anew; levels keep what they have");
                out.seats = seats_of(&|party| party.current);
            }
        }
    }
    out
}

fn seats_of_given(
    parties: &[Party],
    floor: impl Fn(&Party) -> u32,
    given: &mut impl Iterator<Item = f64>,
) -> Vec<u32> {
    let seats = |party: &Party| match party.exempt {
        true => floor(party),
        false => given.next().unwrap_or_default().round() as u32,
    };
    parties.iter().map(seats).collect()
}

/// What one level asks for.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub low: f64,
    pub high: f64,
    pub target: f64,
}

impl Claim {
    fn given(&self, fraction: f64) -> f64 {
        (fraction * self.target.max(MIN_TARGET)).min(self.high).max(self.low)
    }
}

/// Gives every claim the same fraction of its target, but for those whose bounds that would break; all of it adds up
/// to `sum`. Says the fraction too.
pub fn allocate(sum: u32, claims: &[Claim]) -> Result<(Vec<f64>, f64), &'static str> {
    let sum = f64::from(sum);
    if claims.iter().any(|claim| claim.low < 0.0 || claim.high < claim.low || claim.target < claim.low) {
        return Err("a claim's bounds contradict each other");
    }
    let total = |of: fn(&Claim) -> f64| claims.iter().map(of).sum::<f64>();
    if total(|claim| claim.low) - sum > EPSILON {
        return Err("lower bounds sum to more than the required sum");
    }
    if sum - total(|claim| claim.high) > EPSILON {
        return Err("upper bounds sum to less than the required sum");
    }
    if claims.is_empty() || sum == 0.0 {
        return Ok((vec![0.0; claims.len()], 0.0));
    }
    // what is given grows with the fraction in straight lines, which bend where a claim meets a bound
    let relative = |claim: &Claim| {
        let target = claim.target.max(MIN_TARGET);
        [claim.low / target, claim.high / target]
    };
    let mut bends: Vec<f64> = claims.iter().flat_map(relative).collect();
    bends.sort_unstable_by(f64::total_cmp);
    let given_at = |fraction: f64| claims.iter().map(|claim| claim.given(fraction)).sum::<f64>();
    let above = bends.partition_point(|bend| given_at(*bend) < sum - EPSILON);
    let fraction = match (above.checked_sub(1).map(|below| bends[below]), bends.get(above).copied()) {
        (Some(below), Some(above)) => {
            let (low, high) = (given_at(below), given_at(above));
            if high > low { below + (above - below) * (sum - low) / (high - low) } else { above }
        }
        (None, Some(only)) | (Some(only), None) => only,
        (None, None) => 0.0,
    };
    Ok((claims.iter().map(|claim| claim.given(fraction)).collect(), fraction))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(shares: u32, lendable: u32, borrowing: Option<u32>) -> Share {
        Share { shares, lendable_percent: lendable, borrowing_percent: borrowing }
    }

    #[test]
    fn the_levels_of_every_cluster_get_upstreams_seats() {
        // exempt, catch-all, system, node-high, leader-election, workload-high, workload-low, global-default
        let levels = [(0, 0), (5, 0), (30, 33), (40, 25), (10, 0), (40, 50), (100, 90), (20, 50)];
        let levels: Vec<Share> =
            levels.iter().map(|(shares, lendable)| share(*shares, *lendable, None)).collect();
        let limits = nominal(600, &levels);
        let got: Vec<_> = limits.iter().map(|limits| (limits.nominal, limits.min, limits.max)).collect();
        let want = [
            (0, 0, 600),
            (13, 13, 613),
            (74, 50, 674),
            (98, 73, 698),
            (25, 25, 625),
            (98, 49, 698),
            (245, 24, 845),
            (49, 24, 649),
        ];
        assert_eq!(got, want);
        let borrowing = nominal(100, &[share(1, 50, Some(20)), share(3, 0, Some(0))]);
        assert_eq!(borrowing[0], Limits { nominal: 25, min: 12, max: 30 });
        assert_eq!(borrowing[0].initial(), 19);
        assert_eq!(borrowing[1], Limits { nominal: 75, min: 75, max: 75 });
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::default();
        let observed = |average, max| Observed { seconds: 10.0, average, deviation: 0.0, max };
        demand.update(observed(10.0, 14.0));
        assert_eq!((demand.smoothed, demand.high_watermark), (10.0, 14));
        demand.update(observed(0.0, 0.0));
        assert!((demand.smoothed - 9.77).abs() < 1e-9);
        demand.update(Observed { max: 3.0, ..Observed::default() });
        assert!((demand.smoothed - 9.77).abs() < 1e-9, "no time has passed");
    }

    fn party(nominal: u32, min: u32, max: u32, smoothed: f64, high_watermark: u32) -> Party {
        let demand = Demand { smoothed, high_watermark, ..Demand::default() };
        Party { exempt: false, limits: Limits { nominal, min, max }, demand, current: nominal }
    }

    #[test]
    fn who_needs_more_borrows_from_who_needs_less() {
        // the busy level gets what the idle one may lend
        let adjusted = adjust(100, &[party(50, 10, 150, 200.0, 200), party(50, 10, 150, 0.0, 0)]);
        assert_eq!(adjusted.seats, [90, 10]);
        // not more than it may borrow
        let adjusted = adjust(100, &[party(50, 10, 60, 200.0, 200), party(50, 10, 150, 0.0, 0)]);
        assert_eq!(adjusted.seats, [60, 40]);
        // two that need the same get the same
        let adjusted = adjust(100, &[party(50, 10, 150, 80.0, 80), party(50, 10, 150, 80.0, 80)]);
        assert_eq!(adjusted.seats, [50, 50]);
    }

    #[test]
    fn exempt_requests_take_what_they_need_from_what_may_be_lent() {
        let exempt = |wanted| Party { exempt: true, ..party(0, 0, 0, f64::from(wanted), wanted) };
        let limited = [party(50, 10, 150, 50.0, 50), party(50, 30, 150, 50.0, 50)];
        // with 70 left, what is above the minimum of 40 is divided; with less, everybody has the minimum
        for (wanted, seats) in [(30, [30, 30, 40]), (70, [70, 10, 30]), (200, [200, 10, 30])] {
            let mut parties = vec![exempt(wanted)];
            parties.extend(limited);
            let adjusted = adjust(100, &parties);
            assert_eq!(adjusted.seats, seats);
            assert_eq!(adjusted.targets[0], None);
        }
    }

    #[test]
    fn claims_that_cannot_be_met_are_refused() {
        let claim = |low, high, target| Claim { low, high, target };
        assert!(allocate(5, &[claim(3.0, 9.0, 3.0), claim(3.0, 9.0, 3.0)]).is_err());
        assert!(allocate(5, &[claim(0.0, 2.0, 1.0), claim(0.0, 2.0, 1.0)]).is_err());
        assert!(allocate(5, &[claim(4.0, 9.0, 3.0)]).is_err());
        let (given, _) = allocate(5, &[claim(0.0, 9.0, 0.0), claim(0.0, 9.0, 0.0)]).unwrap();
        assert_eq!(given, [2.5, 2.5], "who asks for nothing shares what nobody asks for");
    }

    proptest! {
        #[test]
        fn everybody_gets_the_same_fraction_within_their_bounds(
            claims in proptest::collection::vec((0_u32..50, 0_u32..50, 0_u32..80), 1..8), part in 0.0_f64..=1.0,
        ) {
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|(low, more, above)| Claim {
                    low: f64::from(low), high: f64::from(low + more), target: f64::from(low + above),
                })
                .collect();
            let low: f64 = claims.iter().map(|claim| claim.low).sum();
            let high: f64 = claims.iter().map(|claim| claim.high).sum();
            let sum = (low + (high - low) * part).round() as u32;
            let (given, fraction) = allocate(sum, &claims).unwrap();
            prop_assert!((given.iter().sum::<f64>() - f64::from(sum)).abs() < 1e-3, "{given:?} {sum}");
            if sum > 0 {
                for (claim, given) in claims.iter().zip(given) {
                    let fair = fraction * claim.target.max(MIN_TARGET);
                    prop_assert!(given >= claim.low - 1e-6 && given <= claim.high + 1e-6);
                    let bound = given - claim.low < 1e-6 && claim.low >= fair - 1e-6
                        || claim.high - given < 1e-6 && claim.high <= fair + 1e-6;
                    prop_assert!(bound || (given - fair).abs() < 1e-6);
                }
            }
        }
    }
}
