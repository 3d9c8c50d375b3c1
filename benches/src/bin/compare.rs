//! The runner: builds the peers, runs the rows round by round, prints markdown tables on stdout
//! and its progress on stderr.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::json;
use switchboard_bench::compare::contest::Contest;
use switchboard_bench::compare::options::Options;
use switchboard_bench::compare::peers::Peer;
use switchboard_bench::compare::rows::{Row, rows};
use switchboard_bench::compare::strace::Trace;
use switchboard_bench::compare::table::table;
use switchboard_bench::sys;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("compare: some runs failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every run went well.
fn run() -> Result<bool, Box<dyn Error>> {
    let options = Options::parse(lexopt::Parser::from_env())?;
    let rows = rows(&options);
    if options.list {
        for row in &rows {
            println!("{:16} {}", row.name, row.title);
        }
        println!("peers: {}", Peer::ALL.map(Peer::name).join(" "));
        return Ok(true);
    }
    let folder = release_folder()?;
    if options.build {
        build();
    }
    sys::raise_file_limit()?;
    let mut log = options.json.as_ref().map(File::create).transpose()?;
    println!("{}", preamble(&options));
    let mut all_well = true;
    for row in rows.iter().filter(|row| options.wants(&row.name)) {
        if row.traced && !Trace::is_available() {
            eprintln!("{}: skipped, there is no strace", row.name);
            continue;
        }
        all_well &= contest(row, &folder, &options, log.as_mut())?;
    }
    Ok(all_well)
}

fn contest(
    row: &Row,
    folder: &PathBuf,
    options: &Options,
    mut log: Option<&mut File>,
) -> Result<bool, Box<dyn Error>> {
    let peers = if options.peers.is_empty() { row.peers } else { &options.peers };
    let mut contest = Contest::new(row, folder, peers, |peer, reason| {
        eprintln!("{}: {} skipped, {reason}", row.name, peer.name());
    });
    let mut unlogged = Ok(());
    for number in 0..row.rounds {
        eprintln!("{}: round {} of {}", row.name, number + 1, row.rounds);
        contest.round(number, |peer, report| {
            if let Some(log) = log.as_mut() {
                let entry = json!({ "row": row.name, "peer": peer.name(), "report": report });
                unlogged = writeln!(log, "{entry}");
            }
        });
    }
    unlogged?;
    let entries = contest.into_entries();
    println!("{}", table(row, &entries));
    Ok(entries.iter().all(|entry| entry.failures.is_empty()))
}

/// Where release builds are, seen from this very binary, whatever the target folder is called.
fn release_folder() -> Result<PathBuf, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let profiles = own.parent().and_then(Path::parent).ok_or("this binary has no folder")?;
    Ok(profiles.join("release"))
}

/// Builds everything that competes. What cannot be built is missing later, and skipped with a
/// reason; so a failure here is told and not fatal.
fn build() {
    let targets: [&[&str]; 2] =
        [&["-p", "switchboard-bench", "--bins"], &["-p", "switchboard", "--example", "echo"]];
    for target in targets {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(["build", "--release", "--quiet"]).args(target).stdin(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(_) => eprintln!("build: cargo build {} failed", target.join(" ")),
            Err(error) => eprintln!("build: cannot run cargo: {error}"),
        }
    }
}

fn preamble(options: &Options) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let warning = if options.quick { " Quick: these numbers mean nothing." } else { "" };
    format!(
        "Medians of {} rounds of {} s (smallest–largest), {cores} cores shared with the load \
         generator, Linux {}. Under 10 % is no difference.{warning}\n",
        options.rounds,
        options.seconds,
        kernel.trim(),
    )
}
