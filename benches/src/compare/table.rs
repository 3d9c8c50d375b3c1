//! Markdown tables of medians, spreads and ratios.

use std::fmt::Write;

use serde_json::Value;

use super::contest::Entry;
use super::peers::Peer;
use super::rows::{Column, Row};
use crate::stats::Spread;

/// The table of one row: a line per peer; headlines with spread and ratios, the rest as medians.
#[must_use]
pub fn table(row: &Row, entries: &[Entry]) -> String {
    let bases: Vec<_> = [Peer::Raw, Peer::Tokio]
        .into_iter()
        .filter_map(|base| entries.iter().find(|entry| entry.peer == base))
        .collect();
    let mut heads = vec!["peer".to_owned()];
    for column in row.columns {
        heads.push(column.title.to_owned());
        if column.headline {
            heads.extend(bases.iter().map(|base| format!("÷ {}", base.peer.name())));
        }
    }
    let mut text = format!("### {}: {}\n\n", row.name, row.title);
    line(&mut text, &heads);
    let rules: Vec<_> =
        (0..heads.len()).map(|at| if at == 0 { "---" } else { "---:" }.to_owned()).collect();
    line(&mut text, &rules);
    for entry in entries {
        let mut cells = vec![entry.peer.name().to_owned()];
        for column in row.columns {
            let spread = spread(entry, *column);
            cells.push(spread.map_or_else(|| "–".to_owned(), |spread| cell(spread, *column)));
            if column.headline {
                cells.extend(bases.iter().map(|base| ratio(spread, self::spread(base, *column))));
            }
        }
        line(&mut text, &cells);
    }
    for entry in entries {
        for failure in &entry.failures {
            // A string never refuses to be written to.
            let _ = writeln!(text, "\n{} FAILED: {failure}", entry.peer.name());
        }
    }
    text
}

fn line(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn spread(entry: &Entry, column: Column) -> Option<Spread> {
    let value = |report: &Value| report.pointer(column.pointer).and_then(Value::as_f64);
    let values: Vec<_> =
        entry.reports.iter().filter_map(value).map(|value| value * column.scale).collect();
    Spread::of(&values)
}

fn cell(spread: Spread, column: Column) -> String {
    let median = number(spread.median, column.decimals);
    if column.headline {
        let (min, max) = (number(spread.min, column.decimals), number(spread.max, column.decimals));
        format!("{median} ({min}–{max})")
    } else {
        median
    }
}

fn ratio(spread: Option<Spread>, base: Option<Spread>) -> String {
    let ratio = spread.zip(base).and_then(|(spread, base)| spread.ratio(&base));
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// A number with commas between thousands.
fn number(value: f64, decimals: usize) -> String {
    let plain = format!("{value:.decimals$}");
    let (whole, fraction) = match plain.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (plain.as_str(), String::new()),
    };
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text + &fraction
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{number, table};
    use crate::compare::contest::Entry;
    use crate::compare::options::Options;
    use crate::compare::peers::Peer;
    use crate::compare::rows::rows;

    #[test]
    fn thousands_are_set_apart() {
        for (value, decimals, text) in [
            (0.0, 0, "0"),
            (999.4, 0, "999"),
            (1_000.0, 0, "1,000"),
            (1_234_567.891, 2, "1,234,567.89"),
            (-12_345.0, 0, "-12,345"),
            (-123.0, 1, "-123.0"),
        ] {
            assert_eq!(number(value, decimals), text);
        }
    }

    #[test]
    fn a_line_has_median_spread_and_ratios_and_gaps_where_nothing_was_measured() {
        let options = Options::parse(lexopt::Parser::from_args(["--quick"])).expect("options");
        let row = &rows(&options)[0];
        let entry = |peer, rates: &[f64]| Entry {
            peer,
            reports: rates.iter().map(|rate| json!({ "messages_per_s": rate })).collect(),
            failures: Vec::new(),
        };
        let mut entries = [
            entry(Peer::Raw, &[1_000.0, 3_000.0, 2_000.0]),
            entry(Peer::Tokio, &[4_000.0]),
            entry(Peer::Switchboard, &[]),
        ];
        entries[2].failures.push("gone".to_owned());
        let text = table(row, &entries);
        assert!(text.contains("| raw | 2,000 (1,000–3,000) | 1.00 | 0.50 | – | – | – |"), "{text}");
        assert!(text.contains("| tokio | 4,000 (4,000–4,000) | 2.00 | 1.00 |"), "{text}");
        assert!(text.contains("| switchboard | – | – | – |"), "{text}");
        assert!(text.contains("switchboard FAILED: gone"), "{text}");
    }
}
