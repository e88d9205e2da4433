//! Facts about the machine and this process.

use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::Result;

/// Physical memory in bytes, from `sysinfo(2)`, which a sandbox that hides
/// `/proc/meminfo` still answers.
#[allow(clippy::useless_conversion, reason = "a word is 32 bits wide on some machines")]
pub fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit))
}

/// Memory that can still be had, in bytes: what nobody uses, and what caches would
/// give back. Where the kernel does not tell, the former alone.
#[allow(clippy::useless_conversion, reason = "a word is 32 bits wide on some machines")]
pub fn free_memory() -> u64 {
    kib_of("/proc/meminfo", "MemAvailable:").unwrap_or_else(|| {
        let info = rustix::system::sysinfo();
        u64::from(info.freeram).saturating_mul(u64::from(info.mem_unit))
    })
}

/// Processors this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Threads for one inference: all processors but one, and at least one. ggml's
/// workers spin at a barrier, so an oversubscribed machine crawls.
pub fn inference_threads() -> usize {
    cores().saturating_sub(1).max(1)
}

/// The resident set of this process in bytes; none where `/proc` is hidden.
pub fn resident_memory() -> Option<u64> {
    resident_memory_of(std::process::id())
}

/// The resident set of a process of ours in bytes; none when there is none.
pub fn resident_memory_of(pid: u32) -> Option<u64> {
    kib_of(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The bytes in a line `name    123 kB` of a file.
fn kib_of(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// CPU time that this process has used, in all its threads.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The addresses of this machine that others can reach: no loopback, and none
/// that holds on one link alone.
pub fn addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    interfaces.iter().map(if_addrs::Interface::ip).filter(usable).collect()
}

/// Time since the machine started, with that in which it was suspended.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Names the present run of the machine; none where `/proc` is hidden.
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Whether a time service keeps the machine's clock right: by `adjtimex(2)`, and
/// where a sandbox forbids that, by what systemd-timesyncd leaves.
#[allow(unsafe_code)]
pub fn clock_is_synchronized() -> bool {
    if std::path::Path::new("/run/systemd/timesync/synchronized").exists() {
        return true;
    }
    // SAFETY: all zeros is a valid `timex`, which asks and sets nothing, and the
    // call writes to it alone.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    (0..libc::TIME_ERROR).contains(&state)
}

/// Whether the machine has no clock that runs while it is off, and starts from a
/// time that was saved before: by fake-hwclock, or systemd-timesyncd.
pub fn clock_is_saved() -> bool {
    let exists = |path: &str| std::path::Path::new(path).exists();
    !exists("/sys/class/rtc/rtc0")
        && (exists("/etc/fake-hwclock.data") || exists("/var/lib/systemd/timesync/clock"))
}

/// Open file descriptors of this process; none where `/proc` is hidden.
pub fn open_descriptors() -> Option<usize> {
    // One of them reads the directory.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

/// How often freed memory is given back: often enough that what one busy moment
/// took does not add up with the next; it costs a millisecond.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// Gives back to the system what the start used once: code, and then, from time to
/// time, freed memory, all of which glibc keeps, in an arena for each thread.
/// Returns when `stop` is cancelled.
///
/// # Errors
/// None: it is a service like the others.
pub async fn keep_memory_small(stop: CancellationToken) -> Result<()> {
    // What the start leaves behind is free by then.
    let mut pause = Duration::from_secs(1);
    if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        if let Ok(program) = std::env::current_exe() {
            code(&maps, &program).for_each(unmap_code);
        }
        pause = Duration::ZERO;
    }
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        trim_heap();
        pause = TRIM_INTERVAL;
    }
    Ok(())
}

/// The mappings, in the form of `/proc/PID/maps`, that hold the code of `program`:
/// read from its file, and never written to.
fn code<'a>(maps: &'a str, program: &'a Path) -> impl Iterator<Item = Range<usize>> + 'a {
    maps.lines().filter_map(move |line| {
        let (mapping, file) = line.split_at(line.find('/')?);
        let mut fields = mapping.split_ascii_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let is_code = fields.next()? == "r-xp" && Path::new(file) == program;
        let address = |text| usize::from_str_radix(text, 16).ok();
        is_code.then_some(address(from)?..address(to)?)
    })
}

/// Takes pages of code out of this process. The kernel has them from the file
/// still, and maps those again that are used again: of what runs through at the
/// start, and of its surroundings, which it maps unasked, most never are.
#[allow(unsafe_code)]
fn unmap_code(range: Range<usize>) {
    let length = range.len();
    // SAFETY: nothing was ever written to these pages, so that what is read from
    // the file in their place is what they held.
    unsafe { libc::madvise(range.start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
}

/// Has the threads to come share two arenas: glibc gives each its own, up to eight
/// for each core, and what a thread has used once stays in its arena. One thread
/// does nearly all the work here; the others copy and wait for the disk.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn share_heap() {
    // SAFETY: it takes the allocator's own lock and sets a number.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// As with glibc, where the allocator is another.
#[cfg(not(target_env = "gnu"))]
pub fn share_heap() {}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim_heap() {
    // SAFETY: it takes the allocator's own locks and touches only free memory.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn code_of_this_program_is_found_and_let_go() {
        let maps = "\
5581a0000000-5581a0200000 r--p 00000000 fe:00 11   /opt/a b/friend-lite
5581a0200000-5581a1800000 r-xp 00200000 fe:00 11   /opt/a b/friend-lite
5581a1800000-5581a1900000 r--p 01800000 fe:00 11   /opt/a b/friend-lite
5581a2000000-5581a2100000 rw-p 00000000 00:00 0    [heap]
7f0000000000-7f0000100000 r-xp 00000000 fe:00 12   /usr/lib/libc.so.6
";
        let found: Vec<_> = super::code(maps, Path::new("/opt/a b/friend-lite")).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0], 0x5581_a020_0000..0x5581_a180_0000);

        let own = std::fs::read_to_string("/proc/self/maps").unwrap();
        let program = std::env::current_exe().unwrap();
        let code: Vec<_> = super::code(&own, &program).collect();
        let here = code_of_this_program_is_found_and_let_go as *const () as usize;
        assert!(code.iter().any(|range| range.contains(&here)), "{code:x?}");
        // It runs on.
        code.into_iter().for_each(super::unmap_code);
    }

    #[test]
    fn the_machine_has_memory_and_cores() {
        assert!(super::total_memory() > 64 << 20);
        assert!(super::inference_threads() >= 1);
        assert!(super::inference_threads() <= super::cores());
        assert!(super::cpu_time() > super::Duration::ZERO);
        assert!(super::open_descriptors().is_none_or(|open| open >= 3));
    }
}
