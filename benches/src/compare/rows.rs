//! The rows of the comparison: for each, the load, the servers' settings, the peers, the columns.

use super::options::Options;
use super::peers::{BURN_BYTE, Needs, Peer, SLEEP_BYTE};

/// One row of the goal table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Short name, for `--only`.
    pub name: String,
    /// Heading of its table.
    pub title: String,
    /// Arguments of the load generator, without address and process.
    pub load: Vec<String>,
    /// What the servers need.
    pub needs: Needs,
    /// Who competes, unless the options say otherwise.
    pub peers: &'static [Peer],
    /// What is shown.
    pub columns: &'static [Column],
    /// Count the system calls of the server meanwhile.
    pub traced: bool,
    /// Rounds, where fewer than asked for are enough.
    pub rounds: usize,
}

/// One measured value and how to show it.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading.
    pub title: &'static str,
    /// Where it stands in a run's JSON.
    pub pointer: &'static str,
    /// Factor to the unit of the heading.
    pub scale: f64,
    /// Digits behind the point.
    pub decimals: usize,
    /// Shown with the spread over the rounds and as ratios against raw and tokio.
    pub headline: bool,
}

/// All rows, cut to the options' size.
#[must_use]
pub fn rows(options: &Options) -> Vec<Row> {
    let base = Needs {
        threads: options.threads,
        reactors: options.threads,
        workers: 1,
        burn_us: None,
        buffer_bytes: None,
    };
    let mut rows = echo_rows(options, base);
    rows.extend(open_rows(options, base));
    rows.extend(other_rows(options, base));
    rows
}

fn echo_rows(options: &Options, base: Needs) -> Vec<Row> {
    let mut rows = Vec::new();
    for count in [1, 64, 1_000, 10_000] {
        let count = if options.quick { count.min(100) } else { count };
        let title = format!("ping-pong, 64 B, {count} connections");
        let load = format!("pingpong --connections {count}");
        rows.push(echo(&format!("pingpong-{count}"), &title, &load, options, base));
    }
    // Cut to size, two of them have become the same.
    rows.dedup_by(|left, right| left.name == right.name);
    let title = "pipelined, 64 B, 64 connections, 32 deep";
    rows.push(echo("pipeline", title, "pipeline", options, base));
    let needs = Needs { buffer_bytes: Some(64 * 1024), ..base };
    let title = "bulk, 64 KiB, 8 connections, full duplex";
    let bulk = echo("bulk", title, "bulk", options, needs);
    rows.push(Row { columns: &BULK_COLUMNS, ..bulk });
    let title = "churn: connect, one echo, close; 32 at a time";
    let churn = echo("churn", title, "churn", options, base);
    rows.push(Row { columns: &CHURN_COLUMNS, ..churn });
    rows
}

fn echo(name: &str, title: &str, load: &str, options: &Options, needs: Needs) -> Row {
    Row {
        name: name.to_owned(),
        title: title.to_owned(),
        load: timed(load, options),
        needs,
        peers: &ECHO_PEERS,
        columns: &ECHO_COLUMNS,
        traced: false,
        rounds: options.rounds,
    }
}

fn open_rows(options: &Options, base: Needs) -> Vec<Row> {
    let slow = |byte: u8| format!(" --slow-share 0.01 --slow-connections 16 --slow-byte {byte}");
    let row = |name: &str, title: &str, extra: String| Row {
        name: name.to_owned(),
        title: format!("open loop, 20,000 msg/s on 400 connections, {title}"),
        load: timed(&format!("open --connections 400 --rate 20000{extra}"), options),
        needs: Needs { burn_us: Some(5_000), ..base },
        peers: &WORK_PEERS,
        columns: &SLOW_COLUMNS,
        traced: false,
        rounds: options.rounds,
    };
    let calm = row("open-calm", "nobody slow", String::new());
    let calm = Row { needs: base, peers: &ECHO_PEERS, columns: &OPEN_COLUMNS, ..calm };
    let sleep = row("open-sleep", "1 % of the messages sleep 50 ms", slow(SLEEP_BYTE));
    let burn = row("open-burn", "1 % of the messages use 5 ms of CPU", slow(BURN_BYTE));
    vec![calm, sleep, burn]
}

fn other_rows(options: &Options, base: Needs) -> Vec<Row> {
    let load = format!("pingpong --connections 64 --work-byte {BURN_BYTE}");
    let title = "stealing: 64 connections, every handler uses 100 µs of CPU, two threads";
    let needs = Needs { threads: 2, reactors: 1, workers: 1, burn_us: Some(100), ..base };
    let stealing = echo("stealing", title, &load, options, needs);
    let stealing = Row { peers: &WORK_PEERS, ..stealing };

    let (count, quiet, watch) = if options.quick { (500, 0.2, 0.2) } else { (15_000, 2.0, 3.0) };
    let title = format!("{count} connections, watched for {watch} s");
    let idle = Row {
        load: words(&format!("idle --connections {count} --quiet {quiet} --watch {watch}")),
        columns: &IDLE_COLUMNS,
        // Memory hardly varies, and each run takes long.
        rounds: options.rounds.min(3),
        ..echo("idle", &title, "", options, base)
    };

    let title = "system calls per 64 B echo, 64 connections (under strace: counts, not times)";
    let syscalls = Row {
        columns: &TRACE_COLUMNS,
        traced: true,
        rounds: options.rounds.min(3),
        ..echo("syscalls", title, "pingpong --connections 64", options, base)
    };
    vec![stealing, idle, syscalls]
}

fn timed(load: &str, options: &Options) -> Vec<String> {
    words(&format!("{load} --seconds {} --warmup {}", options.seconds, options.warmup))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

const fn headline(title: &'static str, pointer: &'static str, decimals: usize) -> Column {
    Column { title, pointer, scale: 1.0, decimals, headline: true }
}

const fn column(title: &'static str, pointer: &'static str, decimals: usize) -> Column {
    Column { title, pointer, scale: 1.0, decimals, headline: false }
}

const ECHO_PEERS: [Peer; 4] = [Peer::Raw, Peer::Tokio, Peer::TokioLazy, Peer::Switchboard];
const WORK_PEERS: [Peer; 6] = [
    Peer::Raw,
    Peer::Tokio,
    Peer::TokioBlocking,
    Peer::Switchboard,
    Peer::SwitchboardHandOff,
    Peer::SwitchboardInline,
];

const CPU: Column = headline("CPU µs/msg", "/server/cpu_us_per_message", 2);
const USER: Column = column("user", "/server/user_us_per_message", 2);
const SYSTEM: Column = column("system", "/server/system_us_per_message", 2);
const P50: Column = column("p50 µs", "/latency_us/p50", 0);
const P99: Column = column("p99 µs", "/latency_us/p99", 0);
const P999: Column = column("p99.9 µs", "/latency_us/p99_9", 0);

const ECHO_COLUMNS: [Column; 7] =
    [headline("msg/s", "/messages_per_s", 0), CPU, USER, SYSTEM, P50, P99, P999];

const BULK_COLUMNS: [Column; 7] = [
    // Messages of 64 KiB per second to MiB per second, each way.
    Column { scale: 1.0 / 16.0, ..headline("MiB/s each way", "/messages_per_s", 0) },
    CPU,
    USER,
    SYSTEM,
    P50,
    P99,
    column("RSS peak KiB", "/server/rss_peak_kib", 0),
];

const CHURN_COLUMNS: [Column; 7] = [
    headline("connections/s", "/messages_per_s", 0),
    headline("CPU µs/connection", "/server/cpu_us_per_message", 2),
    USER,
    SYSTEM,
    P50,
    P99,
    P999,
];

const OPEN_COLUMNS: [Column; 7] = [
    headline("p99 µs", "/latency_us/p99", 0),
    P50,
    P999,
    column("max µs", "/latency_us/max", 0),
    CPU,
    column("msg/s", "/messages_per_s", 0),
    column("unanswered", "/unanswered", 0),
];

const SLOW_COLUMNS: [Column; 8] = [
    headline("p99 µs of the others", "/latency_us/p99", 0),
    P50,
    P999,
    column("max µs", "/latency_us/max", 0),
    column("p50 µs of the slow", "/slow_latency_us/p50", 0),
    column("p99 µs of the slow", "/slow_latency_us/p99", 0),
    column("CPUs", "/server/cpus", 2),
    column("unanswered", "/unanswered", 0),
];

const IDLE_COLUMNS: [Column; 6] = [
    headline("RSS bytes/connection", "/rss_bytes_per_connection", 0),
    column("of it anonymous", "/anon_bytes_per_connection", 0),
    column("RSS at start KiB", "/rss_start_kib", 0),
    column("kept after closing KiB", "/rss_kept_kib", 0),
    column("voluntary switches", "/voluntary_switches", 0),
    column("CPU µs", "/cpu_us", 0),
];

const TRACE_COLUMNS: [Column; 5] = [
    headline("calls/msg", "/trace/per_message", 2),
    column("read", "/trace/read", 2),
    column("write", "/trace/write", 2),
    column("wait", "/trace/wait", 2),
    column("other", "/trace/other", 2),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::rows;
    use crate::compare::options::Options;
    use crate::plan::Plan;

    fn options(line: &str) -> Options {
        let parser = lexopt::Parser::from_args(line.split_whitespace());
        Options::parse(parser).expect("options")
    }

    #[test]
    fn every_row_has_its_own_name_and_a_load_that_parses() {
        for line in ["", "--quick"] {
            let rows = rows(&options(line));
            let names: HashSet<_> = rows.iter().map(|row| row.name.clone()).collect();
            assert_eq!(names.len(), rows.len());
            for row in rows {
                let rest = ["--addr", "127.0.0.1:7", "--pid", "1"].map(str::to_owned);
                let parser = lexopt::Parser::from_args(row.load.iter().cloned().chain(rest));
                Plan::parse(parser).expect("the load generator understands its row");
                assert!(row.columns.iter().any(|column| column.headline), "{}", row.name);
            }
        }
    }
}
