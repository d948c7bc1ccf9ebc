/// No metrics: feature `metrics` is off.
#[derive(Clone, Debug, Default)]
pub struct Metrics;

impl Metrics {
    pub(super) fn count_slowpath(&self, _lease: &str) {}

    pub(super) fn set_leading(&self, _lease: &str, _leading: bool) {}
}
