//! Which faults may meet, how many of them, and for how long.

use std::time::Duration;

use crate::subject::election::Timing;

/// What may go wrong, or be asked for, at any moment while a [`Family`]'s budget lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A request or an answer is lost.
    Lose,
    /// A request or an answer comes at any later moment, also long after its timeout.
    Late,
    /// The server says 429.
    Refuse,
    /// An answer comes twice, the second time at any later moment.
    Twice,
    /// A watch event is lost.
    MissWatch,
    /// A watch event comes at any later moment, stale.
    LateWatch,
    /// A candidate and its work stand still, and resume at any later moment.
    Pause,
    /// A candidate and its work die; it may start again as another incarnation.
    Crash,
    /// A candidate is told to step down.
    StepDown,
    /// A candidate is told to leave for good.
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
    /// A candidate's revision is named as proved.
    Prove,
    /// Nobody is to lead from now on, and somebody may be again.
    Suspend,
    /// A candidate's program falls silent: it is not ready to lead.
    Silence,
    /// A candidate's program asks again: it is ready to lead.
    Ask,
}

/// One finite world.
#[derive(Clone, Debug)]
pub struct Family {
    pub name: &'static str,
    /// How fast each candidate's clock runs, per thousand. Its length is the number of candidates.
    pub rates: &'static [u64],
    /// Whether all candidates have one identity.
    pub twins: bool,
    /// Whether all candidates run in one container, where the first one has the lock, and with it the proof that who had it before
    /// is dead.
    pub in_place: bool,
    /// Whether candidates create the Lease; otherwise an operator recreates it.
    pub may_create: bool,
    pub faults: &'static [Fault],
    /// How long work takes at most to end in good order.
    pub longest_stop: Duration,
    /// How many faults in all, at most.
    pub budget: u8,
    /// How many of them may be pauses: a pause may be of any length, so that each multiplies the states by many.
    pub pauses: u8,
    /// In seconds: when the last fault can come.
    pub faults_until: u64,
    /// In seconds. What happens later is not looked at, but for the [calm](super::calm) that follows.
    pub horizon: u64,
}

impl Family {
    /// Lease 6 s, renew deadline 4 s, retry 2 s, and the whole margin that the rules allow: dead by 5.4 s. All candidates wait
    /// 8 s for a Lease that was made again.
    pub fn timing() -> Timing {
        let seconds = Duration::from_secs;
        let timing = Timing::new(seconds(6), seconds(4), seconds(2)).expect("these obey the rules");
        let timing = timing.with_stop_grace(Duration::from_millis(1400)).expect("nine tenths exactly");
        timing.with_recreation_wait(seconds(8)).expect("longer than the lease")
    }

    pub fn allows(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// All families; `long` gives each one fault more.
    pub fn all(long: bool) -> Vec<Family> {
        use Fault::*;
        // As far apart as nine tenths of a lease bear.
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
                // Longer than all candidates wait after a deletion, so that the time to stop must be cut short.
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
            Family { name: "silent programs", faults: &[Silence, Ask, Quit, Lose, Late, MissWatch], ..two.clone() },
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
