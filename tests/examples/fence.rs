//! The example's fence under concurrent transactions.

#[path = "../../examples/fenced/fence.rs"]
mod copied;

use std::time::Duration;

use copied::{RAISE, begin};
use tokio_postgres::{Client, Transaction};

use super::LIMIT;
use super::postgres::Postgres;
use crate::support::root;

const LEASE: &str = "weir";

/// The other statement of the guide, for transactions that may run concurrently.
const SHARE: &str = "SELECT 1 FROM fence WHERE lease = $1 AND token = $2::text::numeric FOR SHARE";

/// Returns whether a transaction under `token` passes the fence.
async fn passes(client: &mut Client, token: &str) -> bool {
    match begin(client, LEASE, token).await.unwrap() {
        Some(transaction) => transaction.commit().await.is_ok(),
        None => false,
    }
}

/// Waits until a transaction is blocked by a lock.
async fn wait_for_blocked_transaction(client: &Client) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let start = tokio::time::Instant::now();
    while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(start.elapsed() < LIMIT, "no transaction is blocked by a lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn fence_compares_tokens_as_numbers_of_any_length() {
    let postgres = Postgres::start().await;
    let mut client = postgres.connect().await;
    for (token, passed) in [
        ("999", true),
        ("999", true),
        ("1000", true),
        ("999", false),
        ("9", false),
        ("18446744073709551616", true),
        ("18446744073709551615", false),
        ("99999999999999999999999999999999999999999", true),
        ("18446744073709551616", false),
    ] {
        assert_eq!(passes(&mut client, token).await, passed, "{token}");
    }
    assert!(begin(&mut client, LEASE, "seven").await.is_err(), "a token that is no number must be refused");
    assert!(begin(&mut client, "another", "9").await.unwrap().is_some(), "each Lease has a fence of its own");
}

#[tokio::test]
async fn waiting_transaction_is_compared_with_the_committed_token() {
    let postgres = Postgres::start().await;
    let (mut holder, mut waiter, monitor) =
        (postgres.connect().await, postgres.connect().await, postgres.connect().await);
    assert!(passes(&mut holder, "3").await);
    // (token at the fence, whether it commits, waiting token, whether that passes)
    for (held, commits, waiting, passed) in
        [("5", true, "4", false), ("7", false, "6", true), ("6", true, "8", true), ("8", true, "6", false)]
    {
        let transaction = begin(&mut holder, LEASE, held).await.unwrap().expect("the fence lets it through");
        let (through, ()) = tokio::join!(passes(&mut waiter, waiting), async {
            wait_for_blocked_transaction(&monitor).await;
            let ended = if commits { transaction.commit().await } else { transaction.rollback().await };
            ended.unwrap();
        });
        assert_eq!(through, passed, "{waiting} after {held}");
    }
}

#[tokio::test]
async fn shared_fence_blocks_a_raise_and_is_refused_after_it() {
    let postgres = Postgres::start().await;
    let (mut one, mut two, mut new, monitor) =
        (postgres.connect().await, postgres.connect().await, postgres.connect().await, postgres.connect().await);
    assert!(passes(&mut one, "3").await);
    let shares =
        async |transaction: &Transaction<'_>| transaction.query(SHARE, &[&LEASE, &"3"]).await.unwrap().len() == 1;
    let (first, second) = (one.transaction().await.unwrap(), two.transaction().await.unwrap());
    assert!(shares(&first).await && shares(&second).await, "they must not wait for each other");
    second.commit().await.unwrap();
    let (raised, ()) = tokio::join!(begin(&mut new, LEASE, "4"), async {
        wait_for_blocked_transaction(&monitor).await;
        first.commit().await.unwrap();
    });
    let raised = raised.unwrap().expect("the fence lets it through");
    let late = one.transaction().await.unwrap();
    let (through, ()) = tokio::join!(shares(&late), async {
        wait_for_blocked_transaction(&monitor).await;
        raised.commit().await.unwrap();
    });
    assert!(!through, "it must see the token that was committed while it waited");
}

#[tokio::test]
async fn serializable_isolation_refuses_the_race_instead() {
    let postgres = Postgres::start().await;
    let (mut old, mut new) = (postgres.connect().await, postgres.connect().await);
    old.batch_execute("SET default_transaction_isolation = 'serializable'").await.unwrap();
    assert!(passes(&mut old, "3").await);
    let transaction = old.transaction().await.unwrap();
    transaction.query_one("SELECT token::text FROM fence", &[]).await.unwrap();
    assert!(passes(&mut new, "4").await);
    let error = transaction.execute(RAISE, &[&LEASE, &"3"]).await.unwrap_err();
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::T_R_SERIALIZATION_FAILURE));
}

/// Writes under `token`, with a pause between the fence and the write.
async fn write(transaction: Transaction<'_>, token: &str) {
    transaction.execute("SELECT pg_sleep(random() / 200)", &[]).await.unwrap();
    transaction.execute("INSERT INTO history (token) VALUES ($1::text::numeric)", &[&token]).await.unwrap();
    transaction.commit().await.unwrap();
}

/// Runs concurrent writers whose tokens rise at different rates. Returns how many writes were refused, and how many
/// came after a write with a higher token.
async fn storm(fenced: bool) -> (usize, i64) {
    let postgres = Postgres::start().await;
    let monitor = postgres.connect().await;
    monitor.batch_execute("CREATE TABLE history (place bigserial PRIMARY KEY, token numeric)").await.unwrap();
    let mut writers = Vec::new();
    for writer in 0_u64..8 {
        let mut client = postgres.connect().await;
        writers.push(tokio::spawn(async move {
            let mut refused = 0;
            for round in 0_u64..50 {
                let token = (990 + round + writer * round / 8).to_string();
                match fenced {
                    true => match begin(&mut client, LEASE, &token).await.unwrap() {
                        Some(transaction) => write(transaction, &token).await,
                        None => refused += 1,
                    },
                    false => write(client.transaction().await.unwrap(), &token).await,
                }
            }
            refused
        }));
    }
    let mut refused = 0;
    for writer in writers {
        refused += writer.await.unwrap();
    }
    let fallen =
        "SELECT count(*) FROM (SELECT token < max(token) OVER (ORDER BY place) AS fell FROM history) AS h WHERE fell";
    (refused, monitor.query_one(fallen, &[]).await.unwrap().get(0))
}

#[tokio::test]
async fn no_lower_token_writes_after_a_higher_one() {
    let (refused, fallen) = storm(true).await;
    assert!(refused > 0, "no write was late, so this test shows nothing");
    assert_eq!(fallen, 0);
    let (_, fallen) = storm(false).await;
    assert!(fallen > 0, "without the fence there must be late writes, or this test shows nothing");
}

#[test]
fn guide_shows_the_tested_statements() {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let guide = plain(&std::fs::read_to_string(root().join("docs/fencing.md")).unwrap());
    let schema = include_str!("../../examples/fenced/schema.sql");
    let table = schema.lines().find(|line| line.starts_with("CREATE TABLE fence")).unwrap();
    for shown in [format!("```sql {} ```", plain(RAISE)), format!("```sql {} ```", plain(table)), format!("`{SHARE}`")]
    {
        assert!(guide.contains(&shown), "docs/fencing.md lacks: {shown}");
    }
}
