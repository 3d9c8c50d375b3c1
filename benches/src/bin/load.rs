//! The load generator: one run against one loopback server, one JSON object on stdout.

use std::error::Error;
use std::process::ExitCode;

use serde_json::Value;
use switchboard_bench::plan::{Mode, Plan};
use switchboard_bench::{churn, idle, steady, sys};

fn main() -> ExitCode {
    match run() {
        Ok(report) => {
            println!("{report}");
            let clean = report["errors"] == 0 && report["mismatches"] == 0;
            if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Value, Box<dyn Error>> {
    let plan = Plan::parse(lexopt::Parser::from_env())?;
    sys::raise_file_limit()?;
    let report = match plan.mode {
        Mode::Closed { depth } => steady::closed(&plan, depth)?,
        Mode::Open { rate, slow } => steady::open(&plan, rate, slow)?,
        Mode::Churn => churn::run(&plan)?,
        Mode::Idle { quiet, watch } => {
            let pid = plan.pid.ok_or("idle needs --pid")?;
            idle::run(&plan, pid, quiet, watch)?
        }
    };
    Ok(report)
}
