//! What a process takes, as Linux tells it.

/// Resident memory in bytes.
#[allow(dead_code, reason = "for the benches, which share this harness")]
pub fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() * 1024.0
}

/// CPU time so far, in seconds.
#[allow(dead_code, reason = "for the benches, which share this harness")]
pub fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // Linux reports in units of USER_HZ, which is 100 everywhere.
    ticks / 100.0
}
