//! Fencing with PostgreSQL, complete: copy this file and the table `fence` of `schema.sql`.

use tokio_postgres::{Client, Error, Transaction};

/// Stores the token if there was never a higher one, and locks the row until the transaction ends. Affects one row if
/// so, else none.
///
/// The row is locked before the tokens are compared. So in READ COMMITTED, the default, the comparison is with the last
/// committed token. In REPEATABLE READ and SERIALIZABLE a race ends with error 40001 instead: retry the transaction.
///
/// A `resourceVersion` is a decimal integer of any length, hence `numeric`: as text, 999 would be higher than 1000.
pub const RAISE: &str = "
    INSERT INTO fence AS seen (lease, token) VALUES ($1, $2::text::numeric)
    ON CONFLICT (lease) DO UPDATE SET token = excluded.token
    WHERE seen.token <= excluded.token";

/// Begins a transaction under `token` of `lease`; returns `None` if there was a higher token.
///
/// A transaction with a lower token waits until this one ends, then gets `None`. So start a term with an empty
/// transaction before the first read: no earlier leader can change the data after that.
pub async fn begin<'c>(database: &'c mut Client, lease: &str, token: &str) -> Result<Option<Transaction<'c>>, Error> {
    let transaction = database.transaction().await?;
    let rows = transaction.execute(RAISE, &[&lease, &token]).await?;
    // A transaction that is dropped is rolled back.
    Ok((rows == 1).then_some(transaction))
}
