//! Signals by their names in Kubernetes.

use k8sensus_candidate::app::signal::{name_of, named};
use rustix::process::Signal;

/// The enum of `stopSignal` in the Kubernetes API, version 1.33.
const OF_KUBERNETES: &str = "SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL \
    SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU \
    SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIGRTMIN SIGRTMAX";

#[test]
fn every_stop_signal_of_the_pod_api_is_known() {
    for name in OF_KUBERNETES.split_whitespace() {
        assert!(named(name).is_some(), "{name}");
    }
    for offset in 1..=15 {
        let (up, down) = (format!("SIGRTMIN+{offset}"), format!("SIGRTMAX-{offset}"));
        assert_eq!(named(&up).unwrap().as_raw(), libc::SIGRTMIN() + offset, "{up}");
        assert_eq!(named(&down).unwrap().as_raw(), libc::SIGRTMAX() - offset, "{down}");
    }
    assert_eq!(named("SIGQUIT"), Some(Signal::QUIT));
    assert_eq!(named("SIGWINCH"), Some(Signal::WINCH));
}

#[test]
fn unknown_names_are_no_signals() {
    for name in [
        "",
        "SIG",
        "QUIT",
        "sigquit",
        "SIGNOPE",
        "15",
        "SIGRTMIN+31",
        "SIGRTMIN-1",
        "SIGRTMAX+1",
        "SIGRTMIN++1",
        "SIGRTMIN+",
    ] {
        assert_eq!(named(name), None, "{name}");
    }
}

#[test]
fn logs_use_the_common_name_of_a_signal() {
    for name in ["SIGABRT", "SIGIO", "SIGCHLD", "SIGTERM", "SIGUSR2"] {
        assert_eq!(name_of(named(name).unwrap()), name);
    }
    assert_eq!(name_of(named("SIGRTMIN+3").unwrap()), format!("signal {}", libc::SIGRTMIN() + 3));
}
