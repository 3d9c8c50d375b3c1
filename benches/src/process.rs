//! What `/proc` says about another process: CPU time by kind, context switches, memory; and about
//! the kernel's memory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::sys;

/// CPU time and switches of a process since it started.
#[derive(Debug, Clone)]
pub struct Usage {
    user_ticks: u64,
    system_ticks: u64,
    thread_nanoseconds: BTreeMap<u32, u64>,
    voluntary: BTreeMap<u32, u64>,
}

/// What a process used between two readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Time in user space, in nanoseconds.
    pub user: f64,
    /// Time in the kernel on behalf of the process, in nanoseconds.
    pub system: f64,
    /// Times a thread went to sleep of its own accord.
    pub voluntary_switches: u64,
}

/// Memory of a process, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident now (`Rss` of `smaps_rollup`). `VmRSS` is not exact (proc(5)): of each thread up to
    /// 64 pages are added later.
    pub resident: u64,
    /// Largest ever resident (`VmHWM`).
    pub peak: u64,
    /// Proportional share (`Pss` of `smaps_rollup`).
    pub proportional: u64,
    /// Its own anonymous part (`Pss_Anon`), where a server's heap and stacks are.
    pub anonymous: u64,
}

impl Usage {
    /// Reads the times of all threads of `pid`.
    ///
    /// # Errors
    /// When the process is gone or its files do not look as expected.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(path(pid, "stat"))?;
        let (user_ticks, system_ticks) = parse_stat(&stat).ok_or_else(|| odd("stat"))?;
        let mut usage = Self {
            user_ticks,
            system_ticks,
            thread_nanoseconds: BTreeMap::new(),
            voluntary: BTreeMap::new(),
        };
        for entry in fs::read_dir(path(pid, "task"))? {
            usage.read_thread(&entry?.path());
        }
        Ok(usage)
    }

    /// A thread may end while it is looked at; then it is left out.
    fn read_thread(&mut self, task: &std::path::Path) {
        let name = task.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(thread) = name.parse() else { return };
        let Ok(schedstat) = fs::read_to_string(task.join("schedstat")) else {
            return;
        };
        let Ok(status) = fs::read_to_string(task.join("status")) else {
            return;
        };
        let on_cpu = schedstat.split_whitespace().next().and_then(|field| field.parse().ok());
        self.thread_nanoseconds.insert(thread, on_cpu.unwrap_or(0));
        let switches = parse_field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        self.voluntary.insert(thread, switches);
    }

    /// What was used since `earlier`.
    ///
    /// The scheduler's nanoseconds are exact but do not tell user from system; the ticks do, in
    /// units of 10 ms. So the sum is taken from the first and divided in proportion to the second.
    /// The nanoseconds of a thread that has ended are gone; then the ticks, which still contain
    /// it, have to do for the sum too.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Spent {
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        let ticks = user + system;
        let all_alive =
            earlier.thread_nanoseconds.keys().all(|id| self.thread_nanoseconds.contains_key(id));
        let total = if all_alive {
            difference(&self.thread_nanoseconds, &earlier.thread_nanoseconds) as f64
        } else {
            ticks * 1e9 / sys::ticks_per_second() as f64
        };
        let user_share = if ticks > 0.0 { user / ticks } else { 0.5 };
        Spent {
            user: total * user_share,
            system: total * (1.0 - user_share),
            voluntary_switches: difference(&self.voluntary, &earlier.voluntary),
        }
    }
}

impl Memory {
    /// Reads the memory of `pid`.
    ///
    /// # Errors
    /// When the process is gone or its files do not look as expected.
    pub fn of(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(path(pid, "status"))?;
        let rollup = fs::read_to_string(path(pid, "smaps_rollup"))?;
        Ok(Self {
            resident: parse_field(&rollup, "Rss:").ok_or_else(|| odd("smaps_rollup"))?,
            peak: parse_field(&status, "VmHWM:").ok_or_else(|| odd("status"))?,
            proportional: parse_field(&rollup, "Pss:").ok_or_else(|| odd("smaps_rollup"))?,
            anonymous: parse_field(&rollup, "Pss_Anon:").unwrap_or(0),
        })
    }
}

/// What the kernel's own objects take, over the whole machine, in KiB (`Slab` of `/proc/meminfo`).
///
/// # Errors
/// When the file does not look as expected.
pub fn kernel_memory() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    parse_field(&meminfo, "Slab:").ok_or_else(|| odd("meminfo"))
}

fn path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

fn odd(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cannot read {file} in /proc"))
}

/// The sum over all threads of what each gained; a new thread gained all it has.
fn difference(now: &BTreeMap<u32, u64>, earlier: &BTreeMap<u32, u64>) -> u64 {
    now.iter().map(|(id, value)| value - earlier.get(id).unwrap_or(&0).min(value)).sum()
}

/// User and system ticks: fields 14 and 15. The name in field 2 may hold spaces and parentheses,
/// so counting begins after the last closing one.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The number after `name` at the start of a line.
fn parse_field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Memory, Spent, Usage, parse_field, parse_stat};

    fn usage(user_ticks: u64, system_ticks: u64, threads: &[(u32, u64)]) -> Usage {
        let thread_nanoseconds: BTreeMap<u32, u64> = threads.iter().copied().collect();
        let voluntary = thread_nanoseconds.clone();
        Usage { user_ticks, system_ticks, thread_nanoseconds, voluntary }
    }

    #[test]
    fn stat_is_parsed_behind_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20 0 3";
        assert_eq!(parse_stat(stat), Some((111, 222)));
        assert_eq!(parse_stat("42 no name"), None);
    }

    #[test]
    fn a_field_is_found_at_the_start_of_a_line_only() {
        let status =
            "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t7\nVmRSS:\t 12 kB\n";
        assert_eq!(parse_field(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(parse_field(status, "VmRSS:"), Some(12));
        assert_eq!(parse_field(status, "VmHWM:"), None);
    }

    #[test]
    fn time_is_summed_over_threads_and_divided_by_ticks() {
        let before = usage(10, 10, &[(1, 1_000), (2, 500)]);
        let after = usage(11, 13, &[(1, 2_000), (2, 500), (3, 3_000)]);
        let spent = Spent { user: 1_000.0, system: 3_000.0, voluntary_switches: 4_000 };
        assert_eq!(after.since(&before), spent);
    }

    #[test]
    fn a_thread_that_ended_makes_the_ticks_count() {
        let before = usage(10, 10, &[(1, 1_000), (2, 500)]);
        let after = usage(30, 10, &[(1, 2_000)]);
        let spent = after.since(&before);
        let tick = 1e9 / crate::sys::ticks_per_second() as f64;
        assert_eq!((spent.user, spent.system), (20.0 * tick, 0.0));
    }

    #[test]
    fn this_process_can_be_read() {
        let own = std::process::id();
        let before = Usage::of(own).expect("own times");
        let after = Usage::of(own).expect("own times");
        assert!(after.since(&before).user >= 0.0);
        let memory = Memory::of(own).expect("own memory");
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        assert!(super::kernel_memory().expect("the machine's memory") > 0);
    }
}
