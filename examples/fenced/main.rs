//! A leader that freezes between its check and its write, and a database that refuses the write when it wakes.
//!
//! Two replicas increment two rows of a table, one with a fence and one without. A lease cannot stop a process that was
//! frozen; only the resource itself can, see `docs/fencing.md`.
//!
//! ```text
//! cargo demo -- up
//! export KUBECONFIG=$(cargo demo -- kubeconfig) DATABASE='host=/run/postgresql user=postgres'
//! psql -h /run/postgresql -U postgres -f examples/fenced/schema.sql
//! POD_NAME=otter cargo run --example fenced -- --freeze     # stops itself, as a paused machine would
//! POD_NAME=heron cargo run --example fenced                 # in another terminal; leads after 15 s
//! fg                                                        # in the first terminal: wakes otter
//! ```
//!
//! In a cluster it needs POD_NAME and POD_NAMESPACE from the downward API, and this Role in its namespace:
//!
//! ```yaml
//! rules:
//!   - apiGroups: [coordination.k8s.io]
//!     resources: [leases]
//!     verbs: [get, list, watch, create, update]
//! ```

mod fence;

use std::error::Error;
use std::time::Duration;

use k8sensus::campaign::{Campaign, Term};
use k8sensus::shutdown::Shutdown;
use tokio_postgres::{Client, NoTls};

const LEASE: &str = "fenced";

struct Counter<'a> {
    me: &'a str,
    term: &'a Term,
    /// Freeze at the third count.
    freeze: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut freeze = std::env::args().any(|argument| argument == "--freeze");
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "default".to_owned());
    let address = std::env::var("DATABASE").map_err(|_| "expected DATABASE, such as host=/run/postgresql")?;
    let (mut database, connection) = tokio_postgres::connect(&address, NoTls).await?;
    tokio::spawn(connection);
    let mut shutdown = Shutdown::listen()?;
    let campaign = Campaign::builder(namespace, LEASE).start(&kube::Config::infer().await?)?;

    let leave = async {
        println!("{}: leaving the election", shutdown.requested().await);
        campaign.leave();
    };
    let lead = async {
        while let Some(leader) = campaign.lead().await {
            println!("{} leads with token {}", campaign.identity(), leader.token());
            let counter = Counter { me: campaign.identity(), term: &leader, freeze: std::mem::take(&mut freeze) };
            if let Err(error) = counter.count(&mut database).await {
                eprintln!("cannot count: {error}");
            }
            leader.end();
        }
    };
    tokio::join!(lead, leave);
    Ok(())
}

impl Counter<'_> {
    async fn count(&self, database: &mut Client) -> Result<(), tokio_postgres::Error> {
        // The fence is raised before the first read: from here on no earlier leader can change the row.
        match fence::begin(database, LEASE, self.term.token()).await? {
            Some(raised) => raised.commit().await?,
            None => {
                self.refused();
                return Ok(());
            }
        }
        let (mut fenced, mut unfenced) = (read(database, "fenced").await?, read(database, "unfenced").await?);
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        for number in 1.. {
            tokio::select! {
                biased;
                _ = self.term.lost() => return Ok(()),
                _ = ticks.tick() => {}
            }
            (fenced, unfenced) = (fenced + 1, unfenced + 1);
            if !self.term.is_valid() {
                return Ok(());
            }
            if self.freeze && number == 3 {
                freeze();
            }
            database.execute(WRITE, &[&"unfenced", &unfenced, &self.me]).await?;
            let Some(transaction) = fence::begin(database, LEASE, self.term.token()).await? else {
                self.refused();
                return Ok(());
            };
            transaction.execute(WRITE, &[&"fenced", &fenced, &self.me]).await?;
            transaction.commit().await?;
            println!("{} wrote {unfenced} unfenced, {fenced} fenced", self.me);
        }
        Ok(())
    }

    fn refused(&self) {
        println!("{} was refused: there is a higher token than {}", self.me, self.term.token());
    }
}

const WRITE: &str = "UPDATE counter SET value = $2, written_by = $3 WHERE name = $1";

async fn read(database: &Client, name: &str) -> Result<i64, tokio_postgres::Error> {
    Ok(database.query_one("SELECT value FROM counter WHERE name = $1", &[&name]).await?.get(0))
}

/// Stops this process until it gets SIGCONT.
fn freeze() {
    println!("leadership is valid: freezing before the write");
    let stopped = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    assert!(stopped.is_ok(), "a process may always stop itself");
    // Another thread may handle the signal first: this thread must not continue in the meantime.
    std::thread::sleep(Duration::from_secs(1));
}
