//! A singleton worker: one replica works, one piece after another; the others stand by.
//!
//! Run two replicas in two terminals, and end the one that works:
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
use k8sensus::shutdown::Shutdown;

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
                eprintln!("cannot work, leaving it to another replica: {error}");
            }
            // The work has ended, so the Lease may be released.
            leader.end();
            println!("{} stopped leading", campaign.identity());
        }
    };
    tokio::join!(lead, leave);
    Ok(())
}

/// Works on one piece after another until the term ends.
async fn work(term: &Term, me: &str, journal: &mut File) -> io::Result<()> {
    let mut pieces = tokio::time::interval(Duration::from_millis(400));
    for number in 1.. {
        tokio::select! {
            biased;
            _ = term.lost() => return Ok(()),
            _ = pieces.tick() => {}
        }
        // `lost` may be late if the executor was blocked; this reads the clock.
        if !term.is_valid() {
            return Ok(());
        }
        tokio::select! {
            biased;
            // On a shutdown the piece is finished; when the Lease is lost it is aborted.
            _ = term.revoked() => return Ok(()),
            done = piece(number, me, term.token(), journal) => done?,
        }
    }
    Ok(())
}

/// Writes half of a piece, pauses, and writes the other half. Pieces of two replicas must never interleave. The token
/// is part of the output.
#[expect(clippy::disallowed_methods, reason = "the pause stands for work")]
async fn piece(number: u32, me: &str, token: &str, journal: &mut File) -> io::Result<()> {
    writeln!(journal, "begin {number} {me} {token}")?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    writeln!(journal, "end {number} {me} {token}")
}
