//! Fencing with PostgreSQL, all of it: copy this file, and the table `fence` of `schema.sql`.

use tokio_postgres::{Client, Error, Transaction};

/// Remembers the token if no higher one was ever seen, and locks the row until the transaction ends. One row if so, else none.
///
/// The row is locked before the tokens are compared, so in READ COMMITTED, the default, they are compared with what was
/// committed last. In REPEATABLE READ and SERIALIZABLE a race ends with error 40001 instead: try the transaction again.
///
/// A `resourceVersion` is a decimal integer of any length, hence `numeric`: as text, 999 would be higher than 1000.
pub const RAISE: &str = "
    INSERT INTO fence AS seen (lease, token) VALUES ($1, $2::text::numeric)
    ON CONFLICT (lease) DO UPDATE SET token = excluded.token
    WHERE seen.token <= excluded.token";

/// Begins a transaction in which `lease` is held under `token`; `None` if a higher token was seen.
///
/// Who holds a lower token waits for its end, then gets none. So begin a term with an empty one, before the first read: what
/// was read then is not changed by an earlier leader any more.
pub async fn begin<'c>(database: &'c mut Client, lease: &str, token: &str) -> Result<Option<Transaction<'c>>, Error> {
    let transaction = database.transaction().await?;
    let rows = transaction.execute(RAISE, &[&lease, &token]).await?;
    // A transaction that is dropped is rolled back.
    Ok((rows == 1).then_some(transaction))
}
