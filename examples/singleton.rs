//! A singleton worker: of all replicas one works, one piece after another; the others stand ready.
//!
//! Run two, in two terminals, and end the one that works:
//!
//! ```text
//! cargo demo -- up
//! export KUBECONFIG=$(cargo demo -- kubeconfig)
//! POD_NAME=otter cargo run --example singleton -- /tmp/journal
//! POD_NAME=heron cargo run --example singleton -- /tmp/journal
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

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::Duration;

use k8sensus::campaign::{Campaign, Term};
use k8sensus::runtime::shutdown::Shutdown;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("expected the path of a journal")?;
    let mut journal = OpenOptions::new().create(true).append(true).open(path)?;
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "default".to_owned());
    let mut shutdown = Shutdown::listen()?;
    let campaign = Campaign::builder(namespace, "singleton").start(&kube::Config::infer().await?)?;

    let leave = async {
        println!("{}: leaving the election", shutdown.requested().await);
        campaign.leave();
    };
    let lead = async {
        while let Some(leader) = campaign.lead().await {
            println!("{} leads with token {}", campaign.identity(), leader.token());
            if let Err(error) = work(&leader, campaign.identity(), &mut journal).await {
                eprintln!("cannot work, another replica may: {error}");
            }
            // Nothing of the work is left, so the Lease may be released.
            leader.end();
            println!("{} leads no longer", campaign.identity());
        }
    };
    tokio::join!(lead, leave);
    Ok(())
}

/// One piece after another, until the term is over.
async fn work(term: &Term, me: &str, journal: &mut File) -> io::Result<()> {
    let mut pieces = tokio::time::interval(Duration::from_millis(400));
    for number in 1.. {
        tokio::select! {
            biased;
            _ = term.lost() => return Ok(()),
            _ = pieces.tick() => {}
        }
        // `lost` comes late to an executor that was blocked; this reads the clock.
        if !term.is_valid() {
            return Ok(());
        }
        tokio::select! {
            biased;
            // A piece is finished when an end is asked for, and cut when the Lease is lost.
            _ = term.revoked() => return Ok(()),
            done = piece(number, me, term.token(), journal) => done?,
        }
    }
    Ok(())
}

/// Half of what is to be done, a pause, the other half: never to be mixed with another replica's. The token goes along.
#[expect(clippy::disallowed_methods, reason = "the pause stands for work")]
async fn piece(number: u32, me: &str, token: &str, journal: &mut File) -> io::Result<()> {
    writeln!(journal, "begin {number} {me} {token}")?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    writeln!(journal, "end {number} {me} {token}")
}
