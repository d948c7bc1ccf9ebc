//! Memory and processor time of a running process. The bench `figures` includes this file, too.

use std::fs;
use std::io;
use std::time::Duration;

/// Returns the resident memory in bytes, including the touched pages of the program's file.
pub fn resident(pid: i32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map(|number| number * 1024).ok_or_else(|| io::Error::other(format!("process {pid} has no VmRSS")))
}

/// Returns the processor time of its living threads, which utime and stime round to hundredths of a second.
#[allow(dead_code, reason = "figures.rs measures no processor time")]
pub fn processor_time(pid: i32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(Duration::from_nanos(nanoseconds))
}
