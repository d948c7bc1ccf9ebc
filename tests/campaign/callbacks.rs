//! Leadership as callbacks.

#![allow(clippy::disallowed_methods, reason = "these tests wait for real connections in real time")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8sensus::campaign::{Callbacks, Term};

use super::server::{Fate, Shared, candidate, serve};

/// A log of all callbacks, each with the Lease's holder at that time.
#[derive(Clone)]
struct Diary {
    lines: Arc<Mutex<Vec<String>>>,
    server: Shared,
    /// The duration of the work, if it ends by itself.
    work: Option<Duration>,
}

impl Diary {
    fn new(server: &Shared, work: Option<Duration>) -> Self {
        Self { lines: Arc::default(), server: server.clone(), work }
    }

    fn note(&self, what: &str) {
        let server = self.server.lock().unwrap();
        let holder = server.lease["spec"]["holderIdentity"].as_str().unwrap();
        self.lines.lock().unwrap().push(format!("{what}, held by {holder:?}"));
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

struct Dropped<'a>(&'a Diary);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.note("work ended");
    }
}

impl Callbacks for Diary {
    async fn on_started_leading(&self, term: Term) {
        let _dropped = Dropped(self);
        self.note(&format!("started with token {}", term.token()));
        match self.work {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    }

    fn on_stopped_leading(&self) {
        self.note("stopped");
    }

    fn on_new_leader(&self, identity: &str) {
        self.note(&format!("leader {identity}"));
    }
}

/// Removes the lines of new leaders: their order relative to leadership is not fixed.
fn without_leader(lines: Vec<String>) -> Vec<String> {
    assert!(lines.iter().any(|line| line.starts_with("leader otter")), "{lines:?}");
    lines.into_iter().filter(|line| !line.starts_with("leader otter")).collect()
}

#[tokio::test]
async fn at_shutdown_the_work_ends_before_the_lease_is_released() {
    let (server, config) = serve(|_| Fate::Written);
    let diary = Diary::new(&server, None);
    candidate(&config).run(diary.clone(), tokio::time::sleep(Duration::from_millis(1_500))).await;
    assert_eq!(
        without_leader(diary.lines()),
        ["started with token 42, held by \"otter\"", "work ended, held by \"otter\"", "stopped, held by \"otter\"",]
    );
    assert_eq!(server.lock().unwrap().lease["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn work_that_ends_by_itself_releases_the_lease_and_ends_the_campaign() {
    let (server, config) = serve(|_| Fate::Written);
    let diary = Diary::new(&server, Some(Duration::from_millis(500)));
    let run = candidate(&config).run(diary.clone(), std::future::pending());
    tokio::time::timeout(Duration::from_secs(10), run).await.expect("it must return");
    assert_eq!(without_leader(diary.lines()).len(), 3);
    assert_eq!(server.lock().unwrap().lease["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_candidate_campaigns_again_after_losing_leadership() {
    // The first renewals fail until the server recovers.
    let (server, config) = serve(|n| if !(1..=6).contains(&n) { Fate::Written } else { Fate::Status(500) });
    let diary = Diary::new(&server, None);
    let lines = diary.lines.clone();
    let twice = async {
        let starts = || lines.lock().unwrap().iter().filter(|line| line.starts_with("started")).count();
        while starts() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let run = candidate(&config).run(diary.clone(), twice);
    tokio::time::timeout(Duration::from_secs(30), run).await.expect("a second term");
    let lines = without_leader(diary.lines());
    let what: Vec<&str> = lines.iter().map(|line| line.split([',', ' ']).next().unwrap()).collect();
    assert_eq!(what, ["started", "work", "stopped", "started", "work", "stopped"], "{lines:?}");
}
