//! One contender with a number of groups: from an empty cluster to a restart over all of them.

use std::time::{Duration, Instant};

use crate::Error;
use crate::audit::Requests;
use crate::contender::{Contender, Programs, Running};
use crate::process::{processor_time, resident};
use crate::sample::Sample;
use crate::world::{World, name_of, pod_of};

/// The number and length of the measurements.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub changes: usize,
    pub renewals: usize,
    pub idle: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub contender: Contender,
    pub groups: usize,
}

/// Times in seconds, memory in bytes.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub resident_without_groups: u64,
    /// Start of the program, with all groups there, to the last status.
    pub converged: f64,
    pub converging: Requests,
    pub processor_time: Duration,
    pub resident_without_pods: u64,
    pub resident: u64,
    pub peak: u64,
    /// From the write of a Lease to the observed status: from sending the write, and from its response.
    pub from_sent: Sample,
    pub from_answer: Sample,
    pub changing: Requests,
    pub reconciles_changing: usize,
    pub renewing: Requests,
    pub reconciles_renewing: usize,
    pub idling: Requests,
    pub idle_processor_time: Duration,
    /// Start of the program to a reconcile of each group.
    pub restarted: f64,
    pub restarting: Requests,
}

const BETWEEN: Duration = Duration::from_millis(100);
const SHOWN: Duration = Duration::from_secs(20);

impl Trial {
    /// Returns the approximate duration.
    pub fn estimate(self, plan: Plan) -> Duration {
        let each = if self.contender == Contender::Ours { 0.035 } else { 0.08 };
        let measured = (plan.changes + plan.renewals) as f64 * 0.15;
        plan.idle + Duration::from_secs_f64(35.0 + measured + self.groups as f64 * each)
    }

    fn limit(self) -> Duration {
        Duration::from_secs(60) + Duration::from_millis(300) * u32::try_from(self.groups).unwrap_or(u32::MAX)
    }

    pub async fn run(self, plan: Plan, programs: &Programs) -> Result<Outcome, Error> {
        let Self { contender, groups } = self;
        let report = |what: &str| println!("[{contender}, {groups} groups] {what}");
        let limit = self.limit();
        report("an empty control plane");
        let mut world = World::new(contender).await?;
        let kubeconfig = world.kubeconfig.path().to_owned();
        let start = || Running::start(contender, programs, &kubeconfig);
        let running = start()?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let resident_without_groups = resident(running.program.pid())?;
        running.stop()?;

        report("creating the groups, then starting the contender");
        world.create_groups(groups).await?;
        world.audit.since_last()?;
        let running = start()?;
        let pid = running.program.pid();
        let last = world.all_observed(groups, limit, "converging").await;
        let last = last.map_err(|error| format!("{error}; its last line: {}", running.last_line()))?;
        let converged = last.saturating_duration_since(running.started).as_secs_f64();
        world.check_children(groups).await?;
        let converging = world.until_quiet(limit).await?;
        let time = processor_time(pid)?;
        report(&format!("converged after {converged:.2} s: {}", converging.summary()));
        let resident_without_pods = resident(pid)?;
        world.create_pods().await?;
        world.until_quiet(limit).await?;
        let (resident, peak) = (resident(pid)?, running.peak()?);

        report(&format!("{} changes of holders", plan.changes));
        let before = running.reconciles()?;
        let mut times = Vec::new();
        for change in 0..plan.changes {
            let name = name_of(change % groups);
            let holder = pod_of(&name, change / groups % 2);
            times.push(world.change_holder(&name, &holder, SHOWN).await?);
            tokio::time::sleep(BETWEEN).await;
        }
        let changing = world.until_quiet(limit).await?;
        let reconciles_changing = running.reconciles()? - before;

        report(&format!("{} renewals, then {} s idle", plan.renewals, plan.idle.as_secs()));
        let before = running.reconciles()?;
        for renewal in 0..plan.renewals {
            world.renew(&name_of(renewal % groups)).await?;
            tokio::time::sleep(BETWEEN / 2).await;
        }
        let renewing = world.until_quiet(limit).await?;
        let reconciles_renewing = running.reconciles()? - before;
        let before = processor_time(pid)?;
        tokio::time::sleep(plan.idle).await;
        let idling = world.audit.since_last()?;
        let idle_processor_time = processor_time(pid)?.saturating_sub(before);

        report("restarting the contender");
        running.stop()?;
        world.audit.since_last()?;
        let running = start()?;
        let restarted = loop {
            if running.reconciles()? >= groups {
                break running.started.elapsed().as_secs_f64();
            }
            if running.started.elapsed() > limit {
                return Err(format!("a restart has not reconciled every group after {limit:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let restarting = world.until_quiet(limit).await?;
        report(&format!("all reconciled again after {restarted:.2} s: {}", restarting.summary()));
        running.stop()?;
        let end = Instant::now();
        world.cluster.down()?;
        report(&format!("done, taken down within {:.1} s", end.elapsed().as_secs_f64()));
        Ok(Outcome {
            resident_without_groups,
            converged,
            converging,
            processor_time: time,
            resident_without_pods,
            resident,
            peak,
            from_sent: times.iter().map(|(sent, _)| *sent).collect(),
            from_answer: times.iter().map(|(_, answer)| *answer).collect(),
            changing,
            reconciles_changing,
            renewing,
            reconciles_renewing,
            idling,
            idle_processor_time,
            restarted,
            restarting,
        })
    }
}
