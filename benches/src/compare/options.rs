//! The command line of the runner.

use lexopt::prelude::*;

use super::peers::Peer;

/// What to compare and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Rounds per row; in each, every peer runs once.
    pub rounds: usize,
    /// Counted seconds per run.
    pub seconds: f64,
    /// Seconds before them.
    pub warmup: f64,
    /// Threads of each server, where the row does not say otherwise.
    pub threads: usize,
    /// Rows whose name contains one of these; empty: all.
    pub only: Vec<String>,
    /// Peers instead of those the row names; empty: those.
    pub peers: Vec<Peer>,
    /// Small counts and short runs: shows that everything works, measures nothing.
    pub quick: bool,
    /// Build the binaries first.
    pub build: bool,
    /// Only say which rows and peers there are.
    pub list: bool,
    /// Where every single run is kept, one JSON object per line.
    pub json: Option<String>,
}

impl Options {
    /// Parses the command line. `--quick` sets defaults that other options override.
    ///
    /// # Errors
    /// What is wrong, in words for the person at the command line.
    pub fn parse(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let (mut rounds, mut seconds) = (None, None);
        let mut options = Self {
            rounds: 5,
            seconds: 3.0,
            warmup: 0.5,
            threads: 2,
            only: Vec::new(),
            peers: Vec::new(),
            quick: false,
            build: true,
            list: false,
            json: None,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("rounds") => rounds = Some(parser.value()?.parse()?),
                Long("seconds") => seconds = Some(parser.value()?.parse()?),
                Long("threads") => options.threads = parser.value()?.parse()?,
                Long("only") => options.only.extend(list(&parser.value()?.string()?)),
                Long("peers") => {
                    for name in list(&parser.value()?.string()?) {
                        let peer = Peer::named(&name);
                        options.peers.push(peer.ok_or_else(|| format!("no peer {name}"))?);
                    }
                }
                Long("quick") => options.quick = true,
                Long("no-build") => options.build = false,
                Long("list") => options.list = true,
                Long("json") => options.json = Some(parser.value()?.string()?),
                Short(_) | Long(_) | Value(_) => return Err(argument.unexpected()),
            }
        }
        if options.quick {
            (options.rounds, options.seconds, options.warmup) = (1, 0.3, 0.1);
        }
        options.rounds = rounds.unwrap_or(options.rounds);
        options.seconds = seconds.unwrap_or(options.seconds);
        let sane = (1..=100).contains(&options.rounds) && (0.05..=60.0).contains(&options.seconds);
        if !sane || options.threads == 0 {
            return Err("rounds 1 to 100, seconds 0.05 to 60, threads at least 1".into());
        }
        Ok(options)
    }

    /// Whether a row is asked for.
    #[must_use]
    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| row.contains(part.as_str()))
    }
}

fn list(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::Options;
    use crate::compare::peers::Peer;

    fn parse(line: &str) -> Result<Options, String> {
        let parser = lexopt::Parser::from_args(line.split_whitespace());
        Options::parse(parser).map_err(|error| error.to_string())
    }

    #[test]
    fn quick_sets_defaults_that_can_be_overridden() {
        let options = parse("--seconds 0.5 --quick").expect("options");
        assert_eq!((options.rounds, options.seconds), (1, 0.5));
        let options = parse("").expect("options");
        assert_eq!((options.rounds, options.seconds, options.quick), (5, 3.0, false));
    }

    #[test]
    fn lists_are_split_and_names_checked() {
        let options = parse("--peers raw,tokio --only churn,idle").expect("options");
        assert_eq!(options.peers, [Peer::Raw, Peer::Tokio]);
        assert!(options.wants("churn") && options.wants("idle-15000") && !options.wants("bulk"));
        assert!(parse("--peers raw,nobody").is_err());
        assert!(parse("--rounds 0").is_err() && parse("--seconds NaN").is_err());
    }
}
