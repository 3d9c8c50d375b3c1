//! Compares the tables of the chapter on limits with what the code says: settings, defaults,
//! figures and close reasons.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};

use crate::core::codec::Raw;
use crate::core::group::Group;
use crate::edge::backoff::Backoff;
use crate::edge::connector::ConnectOptions;
use crate::edge::idle_pool::PoolOptions;
use crate::front::builder::Builder;
use crate::words::config::{Limits, Listening, Overflow, Rate, Timeouts, WhenFull};
use crate::words::reason::Cause;

/// The head of every table.
const HEAD: &str = "| setting | default | what happens | figure | reason |";
/// How the page is brought up to date.
const COMMAND: &str =
    "SWITCHBOARD_UPDATE_DOCS=1 cargo test --lib the_tables_show_what_the_code_says";

/// Defaults that depend on the machine or the program, in words: section, setting, default.
const IN_WORDS: &[(&str, &str, &str)] = &[
    ("Limits", "connections_max", "descriptor limit − 64"),
    ("Limits", "memory_max", "half of the machine's memory"),
    ("Limits", "lingering_max", "descriptor limit / 16"),
    ("GroupBuilder", "codec", "as given"),
    ("Builder", "reactors", "one per core, at most 64"),
    ("Builder", "placement", "as the platform balances"),
];
/// What builds a server and is no setting that has a default.
const VERBS: &[&str] = &[
    "listen",
    "listen_with",
    "limits",
    "raise_descriptor_limit",
    "on_start",
    "on_alarm",
    "on_shortage",
];

/// The page as it is kept; a checkout may have changed how lines end.
fn kept() -> String {
    include_str!("../../../docs/guide/limits.md").replace("\r\n", "\n")
}

/// A setting and its default.
type Setting = (String, String);

#[test]
fn the_tables_show_what_the_code_says() {
    let kept = kept();
    let (page, complaints) = compare(&kept);
    if std::env::var_os("SWITCHBOARD_UPDATE_DOCS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/limits.md");
        std::fs::write(path, &page).expect("the page is written");
    } else {
        assert!(
            kept == page,
            "docs/guide/limits.md does not show the defaults; run\n    {COMMAND}\n{page}",
        );
    }
    assert!(complaints.is_empty(), "docs/guide/limits.md\n{}", complaints.join("\n"));
}

#[test]
fn what_is_wrong_in_a_table_is_complained_of() {
    let kept = kept();
    let complaint = |from: &str, to: &str| {
        assert!(kept.contains(from), "the page says {from}");
        let (page, complaints) = compare(&kept.replacen(from, to, 1));
        (page, complaints.join("\n"))
    };
    let row = kept.lines().find(|line| line.starts_with("| `timers_max`")).expect("a row");
    let (_, said) = complaint(&format!("{row}\n"), "");
    assert!(said.contains("Limits: there is no row for `timers_max`: what happens"), "{said}");
    let (_, said) = complaint("| `timers_max` |", "| `timers_min` |");
    assert!(said.contains("Limits: `timers_min` is no setting"), "{said}");
    let (_, said) = complaint("`linger_resets`", "`linger_sets`");
    assert!(said.contains("`lingering_max`: no snapshot has a figure `linger_sets`"), "{said}");
    let (_, said) = complaint("`frame_timeout`", "`frame_time`");
    assert!(said.contains("Timeouts: `frame`: no cause has the label `frame_time`"), "{said}");
    let (page, _) = complaint("| `timers_max` | 64 |", "| `timers_max` | 63 |");
    assert!(page.contains("| `timers_max` | 64 |"), "a wrong default is put right");
    let (_, said) = complaint("## Backoff", "## Back");
    assert!(said.contains("there is no table `Backoff`"), "{said}");
}

#[test]
fn every_close_reason_is_explained() {
    let page = include_str!("../../../docs/guide/closing.md");
    let rows = page.lines().skip_while(|line| *line != "| label | blame | when |").skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let explained: BTreeSet<_> = rows.filter_map(|row| quoted(row).next()).collect();
    let labels: BTreeSet<_> = Cause::LABELS.into_iter().collect();
    assert_eq!(explained, labels, "the table in docs/guide/closing.md has a row for each");
}

/// The page with the defaults as they are, and what else is wrong with it.
fn compare(page: &str) -> (String, Vec<String>) {
    let (sections, figures) = (sections(), figures());
    let (mut new, mut complaints) = (String::new(), Vec::new());
    let mut section: Option<&(&str, Vec<Setting>)> = None;
    let mut seen = BTreeSet::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = sections.iter().find(|(name, _)| *name == title);
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let row = section.filter(|_| cells.len() == 7 && cells[1].starts_with('`'));
        let Some((name, settings)) = row else {
            let _ = writeln!(new, "{line}");
            continue;
        };
        let setting = cells[1].trim_matches('`');
        let found = settings.iter().find(|(known, _)| known == setting);
        if found.is_none() {
            complaints.push(format!("{name}: `{setting}` is no setting"));
        }
        let default = found.map_or(cells[2], |(_, default)| default);
        let _ = writeln!(
            new,
            "| {} | {default} | {} | {} | {} |",
            cells[1], cells[3], cells[4], cells[5]
        );
        for figure in quoted(cells[4]).filter(|figure| !figures.contains(*figure)) {
            let why = format!("{name}: `{setting}`: no snapshot has a figure `{figure}`");
            complaints.push(why);
        }
        for label in quoted(cells[5]).filter(|label| !Cause::LABELS.contains(label)) {
            complaints.push(format!("{name}: `{setting}`: no cause has the label `{label}`"));
        }
        seen.insert((*name, setting.to_owned()));
    }
    for (name, settings) in &sections {
        if !page.contains(&format!("\n## {name}\n")) {
            complaints.push(format!("there is no table `{name}`"));
        }
        let missing = settings.iter().filter(|(known, _)| !seen.contains(&(*name, known.clone())));
        complaints.extend(missing.map(|(setting, _)| {
            format!("{name}: there is no row for `{setting}`: what happens when it is met?")
        }));
    }
    if page.matches(HEAD).count() != sections.len() {
        complaints.push(format!("there are {} tables, each with the head\n{HEAD}", sections.len()));
    }
    (new, complaints)
}

/// What stands in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Every table there is to be, with its settings and their defaults.
fn sections() -> Vec<(&'static str, Vec<Setting>)> {
    let limits = Limits::for_descriptors(None);
    let mut sections = vec![
        ("Limits", fields(&limits)),
        ("Timeouts", fields(&Timeouts::default())),
        ("Listening", listening(&limits)),
        ("Builder", builder()),
        ("ConnectOptions", fields(&ConnectOptions::new())),
        ("Backoff", fields(&Backoff::new())),
        ("PoolOptions", fields(&PoolOptions::new())),
        ("GroupBuilder", fields(&Group::builder(Raw::new()))),
    ];
    for (section, settings) in &mut sections {
        for (name, default) in settings {
            let by_hand = IN_WORDS.iter().find(|(s, n, _)| (s, *n) == (&*section, name));
            *default = match by_hand {
                Some((_, _, words)) => (*words).to_owned(),
                None => in_words(name, default),
            };
        }
    }
    sections
}

/// The fields of a listener; those that follow the server when that is changed have no default.
fn listening(limits: &Limits) -> Vec<Setting> {
    let mut changed = limits.clone();
    let rate = Some(Rate::per_second(1));
    changed.timeouts.frame = None;
    (changed.connections_max, changed.connections_per_client_max) = (1, Some(1));
    (changed.accept_rate, changed.read_rate, changed.send_rate) = (rate, rate, rate);
    (changed.when_full, changed.when_too_fast) = (WhenFull::Reject, WhenFull::Reject);
    changed.overflow = Overflow::DropNewest;
    let mut settings = fields(&Listening::of(limits));
    let others = fields(&Listening::of(&changed));
    for ((_, default), (_, other)) in settings.iter_mut().zip(others) {
        if *default != other {
            "as the server".clone_into(default);
        }
    }
    settings
}

/// What has a method on the builder, with what the builder shows of itself.
fn builder() -> Vec<Setting> {
    let shown = fields(&Builder::new());
    let threads = shown.iter().find(|(name, _)| name == "threads").expect("it shows its threads");
    let mut known = fields_of(&threads.1);
    known.extend(shown);
    let source = include_str!("../builder.rs").replace("\r\n", "\n");
    let methods = source.split("pub fn ").skip(1).filter(|rest| {
        let until = rest.find('{').unwrap_or(rest.len());
        rest[..until].contains("mut self") || rest[..until].contains("\n        self,\n")
    });
    let names = methods.filter_map(|rest| rest.split(['(', '<']).next());
    let names = names.filter(|name| !VERBS.contains(name));
    let settings: Vec<_> = names
        .map(|name| {
            let default = known.iter().find(|(known, _)| known == name);
            let (_, default) = default.unwrap_or_else(|| panic!("the builder hides `{name}`"));
            (name.to_owned(), default.clone())
        })
        .collect();
    assert!(settings.len() > 5, "the methods are found: {settings:?}");
    settings
}

/// The names of all figures of a snapshot and of its reactors.
fn figures() -> BTreeSet<String> {
    let server = Builder::new().reactors(1).start().expect("it starts");
    let snapshot = format!("{:?}", server.snapshot());
    assert_eq!(server.stop().opened, 0);
    let ends = snapshot.match_indices(": ").map(|(at, _)| &snapshot[..at]);
    ends.filter_map(|text| text.rsplit(|sign: char| sign != '_' && !sign.is_alphanumeric()).next())
        .map(str::to_owned)
        .collect()
}

/// The fields of a struct and their values, as its `Debug` shows them.
fn fields(value: &impl Debug) -> Vec<Setting> {
    fields_of(&format!("{value:?}"))
}

fn fields_of(debug: &str) -> Vec<Setting> {
    let inner = debug.split_once(" { ").expect("a struct with fields").1;
    let inner = inner.strip_suffix(" }").expect("a struct with fields");
    let (mut fields, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, sign) in inner.char_indices() {
        match sign {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                fields.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&inner[from..]);
    let pairs = fields.into_iter().filter_map(|field| field.trim().split_once(": "));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A default as a reader wants it.
fn in_words(name: &str, value: &str) -> String {
    let inner = value.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')'));
    let value = inner.unwrap_or(value);
    if let Ok(number) = value.parse::<u64>() {
        return if name.contains("bytes") { bytes(number) } else { grouped(number) };
    }
    let digits = value.trim_end_matches(char::is_alphabetic);
    if digits.parse::<f64>().is_ok() {
        return format!("{digits} {}", &value[digits.len()..]);
    }
    match value {
        "None" => "none".to_owned(),
        "false" => "no".to_owned(),
        "true" => "yes".to_owned(),
        "b\"\"" => "empty".to_owned(),
        "as the server" => value.to_owned(),
        _ if value.starts_with("Timeouts") || value.starts_with("ConnectOptions") => {
            "see there".to_owned()
        }
        _ => format!("`{}`", value.trim_matches('"')),
    }
}

fn bytes(number: u64) -> String {
    let (unit, size) = if number >= 1 << 20 { ("MiB", 1 << 20) } else { ("KiB", 1 << 10) };
    let even = number > 0 && number % size == 0;
    if even { format!("{} {unit}", number / size) } else { grouped(number) }
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let (mut text, len) = (String::new(), digits.len());
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (len - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
