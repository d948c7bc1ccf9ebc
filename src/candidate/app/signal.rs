//! Signals by their names in Kubernetes' `stopSignal`.

use rustix::process::Signal;

const NAMES: [(&str, Signal); 34] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("CLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("IO", Signal::IO),
    ("IOT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("POLL", Signal::IO),
    ("PROF", Signal::PROF),
    ("PWR", Signal::POWER),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("STKFLT", Signal::STKFLT),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("VTALRM", Signal::VTALARM),
    ("WINCH", Signal::WINCH),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
];

/// Returns the signal of that name: `SIGQUIT`, `SIGUSR1`, `SIGRTMIN+3`, `SIGRTMAX-1`.
pub fn named(name: &str) -> Option<Signal> {
    let short = name.strip_prefix("SIG")?;
    let known = NAMES.iter().find(|(known, _)| *known == short).map(|(_, signal)| *signal);
    known.or_else(|| real_time(short))
}

fn real_time(short: &str) -> Option<Signal> {
    let (least, most) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(number) if number.bytes().all(|digit| digit.is_ascii_digit()) => number.parse::<i32>().ok(),
        None if rest.is_empty() => Some(0),
        _ => None,
    };
    let number = match (short.strip_prefix("RTMIN"), short.strip_prefix("RTMAX")) {
        (Some(rest), _) => least.checked_add(offset(rest, '+')?)?,
        (_, Some(rest)) => most.checked_sub(offset(rest, '-')?)?,
        _ => return None,
    };
    // SAFETY: the number is between the bounds of libc, so it is a real-time signal that libc does not reserve.
    (least..=most).contains(&number).then(|| unsafe { Signal::from_raw_unchecked(number) })
}

/// Returns the name of `signal` for logs.
pub fn name_of(signal: Signal) -> String {
    // An alias comes later in the list, or names the same signal.
    let known = NAMES.iter().find(|(_, known)| *known == signal);
    known.map_or_else(|| format!("signal {}", signal.as_raw()), |(name, _)| format!("SIG{name}"))
}
