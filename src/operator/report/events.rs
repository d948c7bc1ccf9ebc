//! Writes Kubernetes Events. No reconcile waits for them: an Event that cannot be written is logged and lost.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::api::{ElectionGroup, ElectionGroupStatus, GROUP, KIND, VERSION};
use crate::campaign::{describe, micro_time};
use crate::group::events::series::Now;
use crate::group::events::{About, Event, Series, Write, between, of_step_down};
use crate::group::judge::step_down::StepDown;
use crate::group::observed::Facts;
use crate::runtime::clock::Clock;

/// How many Events may wait for the API server; further Events are lost.
const QUEUE: usize = 4_096;
/// How often the writer checks whether the count of a repeated Event is due.
const TICK: Duration = Duration::from_secs(15);
const CONTROLLER: &str = "k8sensus-operator";
/// The most characters of `reportingInstance`.
const LONGEST_INSTANCE: usize = 128;

/// The sender of Events to the task that writes them. All clones share it.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: Sender<(About, Event)>,
}

impl Recorder {
    /// Starts the task. It writes with `client`, as `reportingInstance` `instance`, until it is aborted.
    pub(crate) fn start(client: Client, clock: Arc<dyn Clock>, instance: &str) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = channel(QUEUE);
        let instance = instance[..instance.floor_char_boundary(LONGEST_INSTANCE)].to_owned();
        let writer = Writer { client, clock, instance, series: Series::default(), failing: false };
        (Self { queue }, tokio::spawn(writer.run(waiting)))
    }

    /// Records what happened to `group` when its status became `after`. Returns at once.
    pub(crate) fn record_changes(&self, group: &ElectionGroup, after: &ElectionGroupStatus, facts: &Facts) {
        let first = ElectionGroupStatus::default();
        self.enqueue(group, between(group.status.as_ref().unwrap_or(&first), after, facts));
    }

    /// Records the progress of a step-down. Returns at once.
    pub(crate) fn record_step_down(&self, group: &ElectionGroup, step_down: &StepDown) {
        self.enqueue(group, of_step_down(step_down));
    }

    /// Records `event` of `group`. Returns at once.
    pub(crate) fn record(&self, group: &ElectionGroup, event: Event) {
        self.enqueue(group, [event]);
    }

    fn enqueue(&self, group: &ElectionGroup, events: impl IntoIterator<Item = Event>) {
        let about = About {
            namespace: group.namespace().unwrap_or_default(),
            name: group.name_any(),
            uid: group.uid().unwrap_or_default(),
        };
        for event in events {
            if let Err(lost) = self.queue.try_send((about.clone(), event)) {
                let (_, event) = lost.into_inner();
                debug!(group = format!("{}/{}", about.namespace, about.name), "Event lost: {}", event.words.note);
            }
        }
    }
}

struct Writer {
    client: Client,
    clock: Arc<dyn Clock>,
    instance: String,
    series: Series,
    /// Whether the last write failed: only the first of several failures is a warning.
    failing: bool,
}

impl Writer {
    async fn run(mut self, mut waiting: Receiver<(About, Event)>) {
        let mut tick = self.clock.since_boot() + TICK;
        loop {
            tokio::select! {
                () = self.clock.sleep_until(tick) => {
                    tick = self.clock.since_boot() + TICK;
                    for write in self.series.due(self.clock.since_boot()) {
                        self.write(write).await;
                    }
                }
                next = waiting.recv() => match next {
                    Some((about, event)) => self.record(&about, event).await,
                    None => return,
                },
            }
        }
    }

    /// Writes `event`. If it repeats an Event that is gone by now, writes it as a new one.
    async fn record(&mut self, about: &About, event: Event) {
        if let Some(write) = self.series.see(about, event.clone(), self.now())
            && !self.write(write).await
            && let Some(retry) = self.series.see(about, event, self.now())
        {
            self.write(retry).await;
        }
    }

    fn now(&self) -> Now {
        Now { since_boot: self.clock.since_boot(), wall_micros: self.clock.wall_micros() }
    }

    /// Sends `write`. Returns `false` if the Event to update no longer exists; its series is then forgotten.
    async fn write(&mut self, write: Write) -> bool {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("events.k8s.io", "v1", "Event"));
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &write.about.namespace, &kind);
        let series = json!({ "count": write.count, "lastObservedTime": micro_time(write.last) });
        let written = if write.create {
            let mut event = event(&write, &self.instance);
            if write.count > 1 {
                event["series"] = series;
            }
            match serde_json::from_value(event) {
                Ok(event) => api.create(&PostParams::default(), &event).await,
                Err(error) => Err(kube::Error::SerdeError(error)),
            }
        } else {
            api.patch(&write.name, &PatchParams::default(), &Patch::Merge(json!({ "series": series }))).await
        };
        let Err(error) = written else {
            self.failing = false;
            return true;
        };
        self.series.forget(&write);
        if !write.create && matches!(&error, kube::Error::Api(status) if status.code == 404) {
            return false;
        }
        let (About { namespace, name, .. }, note) = (&write.about, &write.words.note);
        let group = format!("{namespace}/{name}");
        if self.failing {
            debug!(group, "cannot write an Event: {}; its note was: {note}", describe(&error));
        } else {
            warn!(group, "cannot write an Event: {}; its note was: {note}", describe(&error));
        }
        self.failing = true;
        true
    }
}

fn event(write: &Write, instance: &str) -> Value {
    let Write { about, words, name, first, .. } = write;
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": about.namespace },
        "eventTime": micro_time(*first),
        "type": if words.warning { "Warning" } else { "Normal" },
        "reason": words.reason,
        "action": words.action,
        "note": words.note,
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
    });
    if let Some(pod) = &words.pod {
        event["related"] = json!({ "apiVersion": "v1", "kind": "Pod", "namespace": about.namespace, "name": pod });
    }
    event
}
