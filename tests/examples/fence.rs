//! The example's fence, and what it does to transactions that run beside each other.

#[path = "../../examples/fenced/fence.rs"]
mod copied;

use std::time::Duration;

use copied::{RAISE, begin};
use tokio_postgres::{Client, Transaction};

use super::LIMIT;
use super::postgres::Postgres;
use crate::support::root;

const LEASE: &str = "weir";

/// The guide's other form, for transactions that are to run side by side.
const SHARE: &str = "SELECT 1 FROM fence WHERE lease = $1 AND token = $2::text::numeric FOR SHARE";

/// Whether a transaction under `token` gets through the fence.
async fn passes(client: &mut Client, token: &str) -> bool {
    match begin(client, LEASE, token).await.unwrap() {
        Some(transaction) => transaction.commit().await.is_ok(),
        None => false,
    }
}

/// Waits until somebody waits for a lock.
async fn somebody_waits(client: &Client) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let start = tokio::time::Instant::now();
    while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(start.elapsed() < LIMIT, "nobody waits for a lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_fence_compares_tokens_as_numbers_of_any_length() {
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
async fn who_waits_at_the_fence_is_compared_with_what_was_committed_meanwhile() {
    let postgres = Postgres::start().await;
    let (mut holding, mut coming, looking) =
        (postgres.connect().await, postgres.connect().await, postgres.connect().await);
    assert!(passes(&mut holding, "3").await);
    // (the one at the fence, whether it commits, the one who waits, whether that passes)
    for (held, commits, waiting, passed) in
        [("5", true, "4", false), ("7", false, "6", true), ("6", true, "8", true), ("8", true, "6", false)]
    {
        let transaction = begin(&mut holding, LEASE, held).await.unwrap().expect("the fence lets it through");
        let (through, ()) = tokio::join!(passes(&mut coming, waiting), async {
            somebody_waits(&looking).await;
            let ended = if commits { transaction.commit().await } else { transaction.rollback().await };
            ended.unwrap();
        });
        assert_eq!(through, passed, "{waiting} after {held}");
    }
}

#[tokio::test]
async fn who_shares_the_fence_holds_a_raise_off_and_is_refused_after_it() {
    let postgres = Postgres::start().await;
    let (mut one, mut two, mut new, looking) =
        (postgres.connect().await, postgres.connect().await, postgres.connect().await, postgres.connect().await);
    assert!(passes(&mut one, "3").await);
    let shares =
        async |transaction: &Transaction<'_>| transaction.query(SHARE, &[&LEASE, &"3"]).await.unwrap().len() == 1;
    let (first, second) = (one.transaction().await.unwrap(), two.transaction().await.unwrap());
    assert!(shares(&first).await && shares(&second).await, "they must not wait for each other");
    second.commit().await.unwrap();
    let (raised, ()) = tokio::join!(begin(&mut new, LEASE, "4"), async {
        somebody_waits(&looking).await;
        first.commit().await.unwrap();
    });
    let raised = raised.unwrap().expect("the fence lets it through");
    let late = one.transaction().await.unwrap();
    let (through, ()) = tokio::join!(shares(&late), async {
        somebody_waits(&looking).await;
        raised.commit().await.unwrap();
    });
    assert!(!through, "it must see what was committed while it waited");
}

#[tokio::test]
async fn a_stricter_isolation_refuses_the_race_instead() {
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

/// Writers with tokens that rise at different paces, all at once. How many writes were refused, and how many came after a
/// write with a higher token.
async fn storm(fenced: bool) -> (usize, i64) {
    let postgres = Postgres::start().await;
    let looking = postgres.connect().await;
    looking.batch_execute("CREATE TABLE history (place bigserial PRIMARY KEY, token numeric)").await.unwrap();
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
    (refused, looking.query_one(fallen, &[]).await.unwrap().get(0))
}

#[tokio::test]
async fn no_write_with_a_lower_token_comes_after_one_with_a_higher() {
    let (refused, fallen) = storm(true).await;
    assert!(refused > 0, "nobody was late, so nothing is shown");
    assert_eq!(fallen, 0);
    let (_, fallen) = storm(false).await;
    assert!(fallen > 0, "without the fence late writes must be seen, or this test sees nothing");
}

#[test]
fn the_guide_shows_the_statements_that_are_tested() {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let guide = plain(&std::fs::read_to_string(root().join("docs/fencing.md")).unwrap());
    let schema = include_str!("../../examples/fenced/schema.sql");
    let table = schema.lines().find(|line| line.starts_with("CREATE TABLE fence")).unwrap();
    for shown in [format!("```sql {} ```", plain(RAISE)), format!("```sql {} ```", plain(table)), format!("`{SHARE}`")]
    {
        assert!(guide.contains(&shown), "docs/fencing.md lacks: {shown}");
    }
}
