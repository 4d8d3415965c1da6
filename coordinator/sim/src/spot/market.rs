//! A spot market drawn from a seed, for those who have no trace. Up-times and outages have heavy tails: in public
//! traces up-runs have a median of 0.3 to 1.3 h and a mean of 0.7 to 9.7 h, outages a median of 0.4 to 0.7 h, and a
//! machine is lost 2 to 8 times a day; an exponential distribution has no such ratio of mean to median. Log-normal
//! ones have.

use super::trace::{Change, Trace};
use crate::dice::Dice;

/// The shape of a market. Each is at least 0; a mean is above its median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Market {
    /// Median seconds that a machine stays.
    pub up_median_s: f64,
    /// Mean seconds that a machine stays.
    pub up_mean_s: f64,
    /// Median seconds until another comes in its place.
    pub outage_median_s: f64,
    /// Mean seconds until another comes in its place.
    pub outage_mean_s: f64,
}

impl Default for Market {
    /// In the middle of what public traces show.
    fn default() -> Self {
        Self {
            up_median_s: 0.8 * 3600.0,
            up_mean_s: 3.0 * 3600.0,
            outage_median_s: 0.55 * 3600.0,
            outage_mean_s: 0.9 * 3600.0,
        }
    }
}

/// A drawn trace is as long, and then begins anew.
const LENGTH_S: f64 = 7.0 * 86_400.0;

impl Market {
    /// A week of so many machines. The same seed gives the same week.
    #[must_use]
    pub fn draw(&self, machines: u32, seed: u64) -> Trace {
        let mut dice = Dice::new(seed);
        let mut changes = Vec::new();
        let share_up = self.up_mean_s / (self.up_mean_s + self.outage_mean_s);
        for node in 0..machines {
            let mut up = dice.unit() < share_up;
            // At the start a machine is somewhere in its run.
            let first_s = self.run_s(up, &mut dice) * dice.unit();
            let mut at_s = 0.0;
            let mut next_s = first_s;
            while at_s < LENGTH_S {
                if up || at_s > 0.0 {
                    changes.push(Change { at_s, node, up });
                }
                at_s += next_s;
                up = !up;
                next_s = self.run_s(up, &mut dice);
            }
        }
        changes.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Trace { changes, length_s: LENGTH_S, nodes: machines, zone: false, resolution_s: 0.0 }
    }

    /// Seconds of one up-time or outage; at least one second.
    fn run_s(&self, up: bool, dice: &mut Dice) -> f64 {
        let (median, mean) =
            if up { (self.up_median_s, self.up_mean_s) } else { (self.outage_median_s, self.outage_mean_s) };
        // The mean of a log-normal distribution is its median times e to the half of sigma squared.
        let sigma = libm::sqrt(2.0 * libm::log((mean / median).max(1.0)));
        (median * libm::exp(sigma * dice.normal())).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_market_has_the_figures_of_public_traces() {
        let trace = Market::default().draw(2000, 7);
        let mut came = vec![None; 2000];
        let (mut ups, mut outages) = (Vec::new(), Vec::new());
        for change in &trace.changes {
            if let Some((at_s, _)) = came[change.node as usize].replace((change.at_s, change.up)) {
                let run_h = (change.at_s - at_s) / 3600.0;
                if at_s > 0.0 {
                    if change.up { outages.push(run_h) } else { ups.push(run_h) }
                }
            }
        }
        let losses = ups.len() as f64 / 2000.0 / 7.0;
        assert!((2.0..8.0).contains(&losses), "{losses} a day");
        for (runs, medians, means) in [(&mut ups, 0.3..1.3, 0.7..9.7), (&mut outages, 0.4..0.7, 0.5..1.5)] {
            runs.sort_by(f64::total_cmp);
            let (median, mean) = (runs[runs.len() / 2], runs.iter().sum::<f64>() / runs.len() as f64);
            assert!(medians.contains(&median) && means.contains(&mean), "median {median}, mean {mean}");
        }
        assert_eq!(trace, Market::default().draw(2000, 7), "the same seed gives the same week");
    }
}
