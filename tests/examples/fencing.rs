//! A leader that is frozen between its check and its write.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use tokio_postgres::Client;

use super::postgres::Postgres;
use super::{LIMIT, Stage};
use crate::support::{Program, within};

/// Records each write of a counter. The writes of a row are in commit order, because the row is locked.
const HISTORY: &str = "
    CREATE TABLE history (place bigserial PRIMARY KEY, name text, value bigint, written_by text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO history (name, value, written_by) VALUES (NEW.name, NEW.value, NEW.written_by);
            RETURN NEW;
        END
    $$;
    CREATE TRIGGER note AFTER UPDATE ON counter FOR EACH ROW EXECUTE FUNCTION note();";

/// Returns the values written to a counter, each with its writer.
async fn history(database: &Client, name: &str) -> Vec<(i64, String)> {
    let rows = database.query("SELECT value, written_by FROM history WHERE name = $1 ORDER BY place", &[&name]).await;
    rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn wait_for_writes_of_heron(database: &Client, times: usize) {
    let start = tokio::time::Instant::now();
    while history(database, "fenced").await.iter().filter(|(_, by)| by == "heron").count() < times {
        assert!(start.elapsed() < LIMIT, "heron does not write");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_stopped(program: &Program) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
    stat.rsplit(") ").next().unwrap().starts_with('T')
}

#[tokio::test]
async fn late_write_corrupts_only_the_unfenced_counter() {
    let postgres = Postgres::start().await;
    let database = postgres.connect().await;
    database.batch_execute(HISTORY).await.unwrap();
    let stage = Stage::new("fenced");
    let start = |pod: &str, arguments: &[&str]| {
        let mut command = stage.command(pod);
        Program::start(pod, command.args(arguments).env("DATABASE", postgres.address()))
    };

    let mut otter = start("otter", &["--freeze"]);
    otter.wait_for("leadership is valid: freezing before the write", LIMIT);
    within(60, "otter to freeze", || is_stopped(&otter).then_some(()));
    let mut heron = start("heron", &[]);
    wait_for_writes_of_heron(&database, 5).await;
    assert!(is_stopped(&otter));
    assert_eq!(history(&database, "fenced").await[..2], [(1, "otter".to_owned()), (2, "otter".to_owned())]);

    otter.signal(Signal::CONT);
    otter.wait_for("otter was refused: there is a higher token", LIMIT);
    let after = history(&database, "fenced").await.len();
    wait_for_writes_of_heron(&database, after + 3).await;
    assert!(otter.terminate(LIMIT).success());
    assert!(heron.terminate(LIMIT).success());

    let unfenced = history(&database, "unfenced").await;
    let late: Vec<usize> = (2..unfenced.len()).filter(|at| unfenced[*at].1 == "otter").collect();
    let [late] = late[..] else { panic!("expected one late write: {unfenced:?}") };
    assert_eq!(unfenced[late].0, 3, "{unfenced:?}");
    let (before, by) = &unfenced[late - 1];
    assert!(by == "heron" && *before > 3, "the counter must have been set back: {unfenced:?}");

    let fenced = history(&database, "fenced").await;
    let values: Vec<i64> = fenced.iter().map(|(value, _)| *value).collect();
    assert!(values.iter().copied().eq(1..=i64::try_from(values.len()).unwrap()), "{fenced:?}");
    assert!(fenced[2..].iter().all(|(_, by)| by == "heron"), "{fenced:?}");
    stage.assert_nothing_was_forbidden();
}
