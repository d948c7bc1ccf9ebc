// The table of flaws. The build script includes this file.
use super::flaw::{Flaw, FoundBy, IS_MINE, LOSS, Rule, STOP_AFTER_DELETION, TAKEABLE_AT};

pub const FLAWS: &[Flaw] = &[
    Flaw {
        name: "the term counts from the answer, not from the send",
        rule: Rule::TermCountsFromSend,
        file: "election/elector.rs",
        original: "flight.sent + self.timing.renew_deadline()",
        flawed: "now + self.timing.renew_deadline()",
        found_by: FoundBy::Model("pauses"),
    },
    Flaw {
        name: "a read extends the term",
        rule: Rule::TermCountsFromSend,
        file: "election/elector.rs",
        original: "self.last_read = Some(now);",
        flawed: r#"self.last_read = Some(now);
                if let Role::Leading { valid_until } = &mut self.role {
                    *valid_until = now + self.timing.renew_deadline();
                    self.renewed = Some(now);
                }"#,
        found_by: FoundBy::Model("pauses"),
    },
    Flaw {
        name: "a frozen process keeps its leadership when it wakes",
        rule: Rule::PausesCount,
        file: "election/elector.rs",
        original: "late && matches!(self.role, Role::Leading { .. } | Role::Leaving { .. })",
        flawed: "false",
        found_by: FoundBy::Model("pauses"),
    },
    Flaw {
        name: "the stop grace counts from the wake-up",
        rule: Rule::PausesCount,
        file: "election/elector.rs",
        original: LOSS,
        flawed: r#"match self.role {
            Role::Leading { .. } | Role::Leaving { .. } if self.is_deposed() => Some((Loss::Deposed, now)),
            Role::Leading { valid_until } | Role::Leaving { valid_until } if now >= valid_until => {
                Some((Loss::DeadlinePassed, now + self.timing.stop_grace()))
            }
            Role::Lost { kill_at } if kill_at > now && self.is_deposed() => Some((Loss::Deposed, now)),
            _ => None,
        }"#,
        found_by: FoundBy::Model("pauses"),
    },
    Flaw {
        name: "the Lease is released before the work has ended",
        rule: Rule::WorkEndsBeforeRelease,
        file: "election/elector.rs",
        original: "self.role = Role::Leaving { valid_until };",
        flawed: r#"self.release_due = valid_until > now.moment;
            self.role = Role::Standby;"#,
        found_by: FoundBy::Model("step-down, shutdown"),
    },
    Flaw {
        name: "a release ignores the version of the Lease",
        rule: Rule::WorkEndsBeforeRelease,
        file: "election/elector/requests.rs",
        original: "actions.push(Action::Write { request, purpose, expected, record, incarnation, timeout });",
        flawed: r#"let expected = if purpose == Purpose::Release { None } else { expected };
        actions.push(Action::Write { request, purpose, expected, record, incarnation, timeout });"#,
        found_by: FoundBy::Model("step-down, shutdown"),
    },
    Flaw {
        name: "a new term does not wait for the work of the previous term",
        rule: Rule::WorkEndsBeforeRelease,
        file: "election/elector.rs",
        original: "self.role = Role::Lost { kill_at };",
        flawed: "self.role = Role::Standby;",
        found_by: FoundBy::Model("step-down, shutdown"),
    },
    Flaw {
        name: "a leader ignores another holder until its deadline",
        rule: Rule::DeposedStops,
        file: "election/elector.rs",
        original: LOSS,
        flawed: r#"match self.role {
            Role::Leading { .. } | Role::Leaving { .. } if false => Some((Loss::Deposed, now)),
            Role::Leading { valid_until } | Role::Leaving { valid_until } if now >= valid_until => {
                Some((Loss::DeadlinePassed, valid_until + self.timing.stop_grace()))
            }
            Role::Lost { kill_at } if false => Some((Loss::Deposed, now)),
            _ => None,
        }"#,
        found_by: FoundBy::Model("edits by hand"),
    },
    Flaw {
        name: "a deposed leader gets the stop grace",
        rule: Rule::DeposedStops,
        file: "election/elector.rs",
        original: LOSS,
        flawed: r#"match self.role {
            Role::Leading { .. } | Role::Leaving { .. } if self.is_deposed() => Some((Loss::Deposed, now + self.timing.stop_grace())),
            Role::Leading { valid_until } | Role::Leaving { valid_until } if now >= valid_until => {
                Some((Loss::DeadlinePassed, valid_until + self.timing.stop_grace()))
            }
            Role::Lost { kill_at } if kill_at > now && self.is_deposed() => Some((Loss::Deposed, now)),
            _ => None,
        }"#,
        found_by: FoundBy::Model("edits by hand"),
    },
    Flaw {
        name: "an incarnation is identified by its name only",
        rule: Rule::DeposedStops,
        file: "election/elector.rs",
        original: IS_MINE,
        flawed: "snapshot.record.holder == self.candidate.identity()",
        found_by: FoundBy::Model("twins"),
    },
    Flaw {
        name: "an incarnation is identified by an annotation that another client kept",
        rule: Rule::DeposedStops,
        file: "election/elector.rs",
        original: IS_MINE,
        flawed: r#"snapshot.record.holder == self.candidate.identity()
            && snapshot.incarnation.as_deref() == Some(self.candidate.incarnation())"#,
        found_by: FoundBy::Model("edits by hand"),
    },
    Flaw {
        name: "a leader ignores an emptied holder",
        rule: Rule::DeposedStops,
        file: "election/elector.rs",
        original: IS_MINE,
        flawed: r#"(snapshot.record.holder.is_empty() || snapshot.record.holder == self.candidate.identity())
            && snapshot.incarnation.as_deref() == Some(self.candidate.incarnation())
            // A client that knows no incarnations keeps the annotation, but its renewTime is not this process's.
            && snapshot.record.renew_time.is_some_and(|time| {
                Some(time) == self.confirmed_time || self.pending.as_ref().is_some_and(|(_, pending)| *pending == time)
            })"#,
        found_by: FoundBy::Model("edits by hand"),
    },
    Flaw {
        name: "a leader ignores the deletion of its Lease",
        rule: Rule::DeposedStops,
        file: "election/elector.rs",
        original: "!matches!(self.known, Known::Absent { .. })",
        flawed: "self.role == Role::Standby && !matches!(self.known, Known::Absent { .. })",
        found_by: FoundBy::Model("candidates that create"),
    },
    Flaw {
        name: "a leader whose Lease was deleted has no deadline",
        rule: Rule::DeposedStops,
        file: "election/elector/deletion.rs",
        original: STOP_AFTER_DELETION,
        flawed: "renewed + wait * 10",
        found_by: FoundBy::Model("deletion, crashes, an operator"),
    },
    Flaw {
        name: "a leader whose Lease was deleted uses the whole wait without a margin",
        rule: Rule::DeposedStops,
        file: "election/elector/deletion.rs",
        original: STOP_AFTER_DELETION,
        flawed: "renewed + wait.saturating_sub(self.timing.stop_grace())",
        found_by: FoundBy::ModelAlone("deletion, crashes, an operator"),
    },
    Flaw {
        name: "expiry is computed from the record's timestamps",
        rule: Rule::WaitThenSwap,
        file: "election/elector.rs",
        original: "self.takeable_at(now.moment).is_some_and(|at| now.moment >= at)",
        flawed: r#"self.takeable_at(now.moment).is_some_and(|at| {
            let times = self.lease().and_then(|lease| Some((lease.record.renew_time?, lease.record.duration()?)));
            let expired = |(renewed, lasts): (WallTime, Duration)| now.wall.0 > renewed.0 + lasts.as_micros() as i64;
            now.moment >= at || times.is_some_and(expired)
        })"#,
        found_by: FoundBy::Model("network"),
    },
    Flaw {
        name: "a renewal does not restart the wait",
        rule: Rule::WaitThenSwap,
        file: "election/elector.rs",
        original: "self.known = Known::Lease { snapshot, since: now, takeable_at: now + wait };",
        flawed: r#"let takeable_at = match &self.known {
            Known::Lease { snapshot: known, takeable_at, .. } if known.record.holder == snapshot.record.holder => {
                *takeable_at
            }
            _ => now + wait,
        };
        self.known = Known::Lease { snapshot, since: now, takeable_at };"#,
        found_by: FoundBy::Model("network"),
    },
    Flaw {
        name: "an annotation restarts the wait",
        rule: Rule::WaitThenSwap,
        file: "election/elector.rs",
        original: "known.record == snapshot.record",
        flawed: "known.version == snapshot.version",
        found_by: FoundBy::Model("deletion, crashes, an operator"),
    },
    Flaw {
        name: "an acquisition ignores the version of the Lease",
        rule: Rule::WaitThenSwap,
        file: "election/elector/requests.rs",
        original: "actions.push(Action::Write { request, purpose, expected, record, incarnation, timeout });",
        flawed: r#"let expected = if purpose == Purpose::Acquire { None } else { expected };
        actions.push(Action::Write { request, purpose, expected, record, incarnation, timeout });"#,
        found_by: FoundBy::Model("network"),
    },
    Flaw {
        name: "a holder emptied by hand counts as a release",
        rule: Rule::WaitThenSwap,
        file: "election/record.rs",
        original: "self.holder.is_empty() && self.duration_seconds == Self::RELEASED_SECONDS",
        flawed: "self.holder.is_empty()",
        found_by: FoundBy::Model("edits by hand"),
    },
    Flaw {
        name: "the token is the number of transitions",
        rule: Rule::TokenRises,
        file: "election/elector.rs",
        original: "Action::Lead { term: self.term, token: version, transitions, valid_until }",
        flawed: r#"let token = Version::new(transitions.to_string());
                Action::Lead { term: self.term, token, transitions, valid_until }"#,
        found_by: FoundBy::Model("deletion, crashes, an operator"),
    },
    Flaw {
        name: "a Lease that vanished is created at once",
        rule: Rule::CreationWaits,
        file: "election/elector.rs",
        original: "if *was_seen { *since + self.timing.lease_duration() } else { *since }",
        flawed: "{ let _ = was_seen; *since }",
        found_by: FoundBy::Model("candidates that create"),
    },
    Flaw {
        name: "a request may outlast the term",
        rule: Rule::RetriesWithinTerm,
        file: "election/elector/requests.rs",
        original: "patience.min(left)",
        flawed: "{ let _ = left; patience }",
        found_by: FoundBy::Model("network"),
    },
    Flaw {
        name: "a failed renewal is not retried within the term",
        rule: Rule::RetriesWithinTerm,
        file: "election/elector.rs",
        original: "doubled.min(self.timing.retry_period())",
        flawed: "{ let _ = doubled; self.timing.renew_deadline() }",
        found_by: FoundBy::Model("network"),
    },
    Flaw {
        name: "a candidate acquires a Lease in its own name without proof",
        rule: Rule::DeathIsProven,
        file: "election/elector.rs",
        original: TAKEABLE_AT,
        flawed: r#"{ let has_own_name = self.lease().is_some_and(|lease| lease.record.holder == self.candidate.identity());
                Some(if has_own_name { Moment::since_boot(Duration::ZERO) } else { *takeable_at })
            }"#,
        found_by: FoundBy::Model("twins"),
    },
    Flaw {
        name: "a predecessor counts as dead without the lock",
        rule: Rule::DeathIsProven,
        file: "election/candidate.rs",
        original: "self.dead_predecessors.as_deref()",
        flawed: "self.dead_predecessors.as_deref().or(self.incarnation.split('/').next())",
        found_by: FoundBy::Model("restart in place"),
    },
    Flaw {
        name: "any process of the same pod counts as a dead predecessor",
        rule: Rule::DeathIsProven,
        file: "election/candidate.rs",
        original: "other.starts_with(prefix)",
        flawed: "other.split('/').next() == prefix.split('/').next()",
        found_by: FoundBy::Model("restart in place"),
    },
    Flaw {
        name: "a predecessor is identified by an annotation that another client kept",
        rule: Rule::DeathIsProven,
        file: "election/candidate.rs",
        original: "holder.record.holder == self.identity",
        flawed: "!holder.record.holder.is_empty()",
        found_by: FoundBy::Model("restart in place"),
    },
    Flaw {
        name: "the other candidates wait forever for the successor",
        rule: Rule::WaitThenSwap,
        file: "election/elector.rs",
        original: TAKEABLE_AT,
        flawed: "Some(*takeable_at + self.candidate.hold_back(&snapshot.preference, &self.timing) * 10_000)",
        found_by: FoundBy::Model("preferences"),
    },
    Flaw {
        name: "the successor does not wait for the end of the term",
        rule: Rule::WaitThenSwap,
        file: "election/elector.rs",
        original: TAKEABLE_AT,
        flawed: r#"{
                let is_successor = snapshot.preference.successor.as_deref() == Some(self.candidate.identity());
                Some(if is_successor { Moment::since_boot(Duration::ZERO) } else { *takeable_at })
            }"#,
        found_by: FoundBy::Model("preferences"),
    },
    Flaw {
        name: "a suspension lasts forever",
        rule: Rule::WaitThenSwap,
        file: "election/candidate.rs",
        original: "timing.lease_duration()",
        flawed: "timing.lease_duration() * 1000",
        found_by: FoundBy::Model("suspension"),
    },
    Flaw {
        name: "a candidate that is not ready acquires the Lease",
        rule: Rule::OnlyReadyLead,
        file: "election/elector.rs",
        original: "!self.candidate.is_ready()",
        flawed: "false",
        found_by: FoundBy::ModelAlone("unready programs"),
    },
    Flaw {
        name: "a leader that becomes unready keeps leading",
        rule: Rule::OnlyReadyLead,
        file: "election/elector.rs",
        original: "self.takes_part()",
        flawed: "self.candidate.is_ready() && self.takes_part()",
        found_by: FoundBy::ModelAlone("unready programs"),
    },
    Flaw {
        name: "a candidate that was not ready once never leads again",
        rule: Rule::OnlyReadyLead,
        file: "election/candidate.rs",
        original: "self.is_ready = is_ready;",
        flawed: "self.is_ready &= is_ready;",
        found_by: FoundBy::ModelAlone("unready programs"),
    },
    Flaw {
        name: "any Lease in an answer counts as the written one",
        rule: Rule::TermCountsFromSend,
        file: "campaign/driver.rs",
        original: "snapshot.record == record",
        flawed: "true",
        found_by: FoundBy::Simulation,
    },
    Flaw {
        name: "an acknowledged renewal does not extend the term's validity",
        rule: Rule::TermCountsFromSend,
        file: "campaign/driver.rs",
        original: "term.set_valid_until(valid_until);",
        flawed: "let _ = valid_until;",
        found_by: FoundBy::Simulation,
    },
    Flaw {
        name: "the incarnation is missing from the Lease",
        rule: Rule::DeposedStops,
        file: "campaign/lease.rs",
        original: "annotate(lease, INCARNATION, incarnation.map(str::to_owned));",
        flawed: "let _ = incarnation;",
        found_by: FoundBy::Simulation,
    },
    Flaw {
        name: "the request has no resourceVersion",
        rule: Rule::WaitThenSwap,
        file: "campaign/lease.rs",
        original: "expected.map(|version| version.as_str().to_owned())",
        flawed: "None",
        found_by: FoundBy::Simulation,
    },
    Flaw {
        name: "a request waits forever for its answer",
        rule: Rule::RetriesWithinTerm,
        file: "campaign/driver.rs",
        original: "clock.sleep_until(deadline)",
        flawed: r#"{
            let never: std::pin::Pin<Box<dyn std::future::Future<Output = ()> + Send>> =
                Box::pin(std::future::pending());
            never
        }"#,
        found_by: FoundBy::Simulation,
    },
    Flaw {
        name: "a step-down request is ignored",
        rule: Rule::WorkEndsBeforeRelease,
        file: "campaign/lease.rs",
        original: "requested.is_some() && requested == present",
        flawed: "{ let _ = (requested, present); false }",
        found_by: FoundBy::Simulation,
    },
    Flaw {
        name: "a step-down request for another candidate is followed",
        rule: Rule::WorkEndsBeforeRelease,
        file: "campaign/lease.rs",
        original: "requested.is_some() && requested == present",
        flawed: "{ let _ = present; requested.is_some() }",
        found_by: FoundBy::Simulation,
    },
    Flaw {
        name: "a step-down request is followed in later terms of the same process",
        rule: Rule::WorkEndsBeforeRelease,
        file: "campaign/lease.rs",
        original: "requested.is_some() && requested == present",
        flawed: r#"{
        let process = |term: &String| term.split_once('/').map(|(_, process)| process.to_owned());
        requested.is_some() && requested.as_ref().and_then(process) == present.as_ref().and_then(process)
    }"#,
        found_by: FoundBy::Simulation,
    },
];
