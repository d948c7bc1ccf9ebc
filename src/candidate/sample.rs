//! A task to see an election by.

use std::time::Duration;

/// The time between two lines of the sample task.
pub const PERIOD: Duration = Duration::from_secs(10);

/// What the sample task says each time.
pub const LINE: &str = "k8sensus is running sample task.";

/// Says [`LINE`] every [`PERIOD`], with the fencing token if there is one, until the process is ended.
pub fn forever() -> ! {
    let token = std::env::var("K8SENSUS_FENCING_TOKEN").map(|token| format!(" Fencing token: {token}"));
    let token = token.unwrap_or_default();
    loop {
        println!("{LINE}{token}");
        std::thread::sleep(PERIOD);
    }
}
