//! One row: every peer once per round, in an order that rotates, each run in fresh processes.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::peers::Peer;
use super::rows::Row;
use super::server::{self, Server};
use super::strace::Trace;

/// The runs of one row.
#[derive(Debug)]
pub struct Contest<'a> {
    row: &'a Row,
    folder: &'a PathBuf,
    entries: Vec<Entry>,
}

/// A peer and what its runs have said.
#[derive(Debug)]
pub struct Entry {
    /// Who.
    pub peer: Peer,
    /// One report of the load generator per round that went well.
    pub reports: Vec<Value>,
    /// What went wrong in the others.
    pub failures: Vec<String>,
}

impl<'a> Contest<'a> {
    /// A contest among those of `peers` whose binaries exist in `folder`; `skipped` is told of
    /// the others, with the reason.
    pub fn new(
        row: &'a Row,
        folder: &'a PathBuf,
        peers: &[Peer],
        mut skipped: impl FnMut(Peer, String),
    ) -> Self {
        let mut entries = Vec::new();
        for &peer in peers {
            let binary = peer.binary(row.needs, folder);
            if binary.is_file() {
                entries.push(Entry { peer, reports: Vec::new(), failures: Vec::new() });
            } else {
                skipped(peer, format!("no binary {}", binary.display()));
            }
        }
        Self { row, folder, entries }
    }

    /// Runs every peer once. Nobody always runs first, or always after the same other.
    pub fn round(&mut self, number: usize, mut report: impl FnMut(Peer, &Value)) {
        let count = self.entries.len();
        for step in 0..count {
            let index = (step + number) % count;
            let peer = self.entries[index].peer;
            match self.run(peer) {
                Ok(value) => {
                    report(peer, &value);
                    self.entries[index].reports.push(value);
                }
                Err(error) => self.entries[index].failures.push(error.to_string()),
            }
        }
    }

    /// All peers and what they have done.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    fn run(&self, peer: Peer) -> io::Result<Value> {
        let needs = self.row.needs;
        let mut server = Server::start(&peer.binary(needs, self.folder), &peer.arguments(needs))?;
        let trace = self.row.traced.then(|| Trace::attach(server.pid())).transpose()?;
        let mut report = self.load(&server)?;
        if !server.is_alive() {
            return Err(io::Error::other("the server died"));
        }
        if let Some(trace) = trace {
            report["trace"] = trace.finish(report["messages_ever"].as_u64().unwrap_or(0))?;
        }
        for count in ["errors", "mismatches"] {
            if report[count] != json!(0) {
                return Err(io::Error::other(format!("{count}: {report}")));
            }
        }
        Ok(report)
    }

    fn load(&self, server: &Server) -> io::Result<Value> {
        let mut child = Command::new(self.folder.join("load"))
            .args(&self.row.load)
            .args(["--addr", server.addr(), "--pid", &server.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = child.stdout.take();
        // The report is one line and fits the pipe, so that waiting first cannot block it.
        server::wait(&mut child, LOAD_SECONDS_MAX)?;
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_string(&mut text)?;
        }
        serde_json::from_str(&text)
            .map_err(|_| io::Error::other(format!("the load generator reported {text:?}")))
    }
}

/// Longer than any allowed run with its connecting and draining.
const LOAD_SECONDS_MAX: u64 = 150;
