//! Measured times and their quantiles. The benches `figures` and `scale` include this file, too.

use std::fmt;

/// Seconds, in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the value with `share` of the others below it; NaN if there are no values.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }

    #[allow(dead_code, reason = "figures.rs draws nothing")]
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

/// Seconds in human-readable form.
#[allow(dead_code, reason = "figures.rs has its own columns")]
pub struct HumanTime(pub f64);

impl fmt::Display for HumanTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            none if none.is_nan() => f.write_str("-"),
            short if short.abs() < 0.1 => write!(f, "{:.1} ms", short * 1e3),
            short if short.abs() < 1.0 => write!(f, "{:.0} ms", short * 1e3),
            long => write!(f, "{long:.2} s"),
        }
    }
}
