//! The families of faults: which faults may combine, how many of them, and for how long.

use std::time::Duration;

use crate::subject::election::Timing;

/// A fault or a request that may occur at any moment within a [`Family`]'s budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A request or an answer is lost.
    Lose,
    /// A request or an answer arrives at any later moment, even long after its timeout.
    Late,
    /// The server answers 429.
    Refuse,
    /// An answer arrives twice, the second time at any later moment.
    Twice,
    /// A watch event is lost.
    MissWatch,
    /// A watch event arrives stale, at any later moment.
    LateWatch,
    /// A candidate and its work freeze, and resume at any later moment.
    Pause,
    /// A candidate and its work die. It may restart as another incarnation.
    Crash,
    /// A candidate is asked to step down.
    StepDown,
    /// A candidate is asked to shut down.
    Shutdown,
    /// A leader's work ends by itself.
    Quit,
    /// The Lease is deleted by hand.
    Delete,
    /// The holder is emptied by hand.
    Empty,
    /// Another holder is written by hand.
    Foreign,
    /// A client without incarnations renews under the holder's name and keeps the annotation.
    Mimic,
    /// An annotation of the Lease is changed.
    Annotate,
    /// The leader is asked to step down for a candidate.
    Succeed,
    /// A candidate's revision is named as proven.
    Prove,
    /// The Lease is suspended, or resumed.
    Suspend,
    /// A candidate's program becomes unready to lead.
    Unready,
    /// A candidate's program becomes ready to lead.
    Ready,
}

/// One finite world.
#[derive(Clone, Debug)]
pub struct Family {
    pub name: &'static str,
    /// The rate of each candidate's clock, per thousand. The length is the number of candidates.
    pub rates: &'static [u64],
    /// Whether all candidates have one identity.
    pub twins: bool,
    /// Whether all candidates run in one container. The first one has the lock, which proves that earlier holders of
    /// the lock are dead.
    pub in_place: bool,
    /// Whether candidates create the Lease; otherwise an operator recreates it.
    pub may_create: bool,
    pub faults: &'static [Fault],
    /// The maximum time of a graceful stop of the work.
    pub longest_stop: Duration,
    /// The maximum number of faults.
    pub budget: u8,
    /// The maximum number of pauses among them. A pause has any length, so each one multiplies the states.
    pub pauses: u8,
    /// The last second in which a fault may occur.
    pub faults_until: u64,
    /// The end of the exploration, in seconds. Only the [calm](super::calm) follows.
    pub horizon: u64,
}

impl Family {
    /// Returns the timing: lease 6 s, renew deadline 4 s, retry 2 s, recreation wait 8 s, and the longest stop grace
    /// that the rules allow: work is dead by 5.4 s.
    pub fn timing() -> Timing {
        let seconds = Duration::from_secs;
        let timing = Timing::new(seconds(6), seconds(4), seconds(2)).expect("these obey the rules");
        let timing = timing.with_stop_grace(Duration::from_millis(1400)).expect("nine tenths exactly");
        timing.with_recreation_wait(seconds(8)).expect("longer than the lease")
    }

    pub fn allows(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Returns all families. `long` adds one fault to each.
    pub fn all(long: bool) -> Vec<Family> {
        use Fault::*;
        // The maximum difference that the margin of a tenth allows.
        const APART: &[u64] = &[950, 1050];
        let two = Family {
            name: "",
            rates: APART,
            twins: false,
            in_place: false,
            may_create: false,
            faults: &[],
            longest_stop: Duration::from_secs(3),
            budget: 2,
            pauses: 1,
            faults_until: 8,
            horizon: 14,
        };
        let mut all = vec![
            Family { name: "network", faults: &[Lose, Late, Refuse, Twice, MissWatch, LateWatch], ..two.clone() },
            Family { name: "pauses", faults: &[Pause, Late], faults_until: 2, ..two.clone() },
            Family { name: "edits by hand", faults: &[Empty, Foreign, Mimic, Annotate, MissWatch], ..two.clone() },
            Family {
                name: "deletion, crashes, an operator",
                faults: &[Delete, Crash, MissWatch],
                // Longer than the recreation wait, so that the work must be killed.
                longest_stop: Duration::from_secs(10),
                faults_until: 2,
                ..two.clone()
            },
            Family {
                name: "candidates that create",
                may_create: true,
                faults: &[Delete, Lose, Late, MissWatch],
                faults_until: 2,
                ..two.clone()
            },
            Family { name: "twins", twins: true, faults: &[Lose, Late, Crash], faults_until: 2, ..two.clone() },
            Family { name: "step-down, shutdown", faults: &[StepDown, Shutdown, Quit, Lose, Late], ..two.clone() },
            Family {
                name: "restart in place",
                twins: true,
                in_place: true,
                faults: &[Crash, Lose, Late, Foreign],
                faults_until: 4,
                ..two.clone()
            },
            Family { name: "preferences", faults: &[Succeed, Prove, Shutdown, StepDown, MissWatch], ..two.clone() },
            Family { name: "suspension", faults: &[Suspend, Shutdown, StepDown, MissWatch], ..two.clone() },
            Family { name: "unready programs", faults: &[Unready, Ready, Quit, Lose, Late, MissWatch], ..two.clone() },
            Family {
                name: "three candidates",
                rates: &[950, 1000, 1050],
                faults: &[Lose, MissWatch, Crash, StepDown, Succeed, Prove],
                budget: 1,
                ..two
            },
        ];
        if long {
            all.iter_mut().for_each(|family| family.budget += 1);
        }
        all
    }
}
