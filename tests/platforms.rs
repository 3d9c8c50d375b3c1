//! Compares `docs/platforms.md` with what was run on each platform, and that with the tests there
//! are: the page shows no behaviour that is gone, and lacks none that has come.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Every platform and the head of its column; the first is the one where all is run.
const PLATFORMS: &[(&str, &str)] = &[
    ("epoll", "epoll"),
    ("poll", "poll(2)"),
    ("pipe", "pipe waker"),
    ("i686", "i686"),
    ("musl", "musl"),
    ("aarch64", "aarch64"),
    ("s390x", "s390x"),
    ("windows", "Windows, in Wine"),
];
/// What runs the suite on one platform, and what makes the page of what is stored.
const RUN: &str = ".ci/platforms.sh epoll";
const UPDATE: &str = "SWITCHBOARD_UPDATE_DOCS=1 cargo test --test platforms";
/// The rooms, whose unit tests are counted.
const ROOMS: &[&str] = &["words", "parts", "core", "sys", "engine", "edge", "front"];

const HEAD: &str = "\
# Behaviour × platform

What was run on each platform, and what came of it. `.ci/platforms.sh` runs the suite and stores the
outcome in `docs/platforms`; `tests/platforms.rs` makes this page of that.
";
const SUMMARY: &str = "
The commit is that of the latest run; parts of the suite may have been run at an earlier one. A
number is that of the tests that passed; \"of\" says how many there are, where those are more: the
lists below say what is missing, and why. A dash is an area that was not run, or is left out.
";

/// What is written in `docs/platforms/suite.txt`.
#[derive(Default)]
struct Suite {
    /// Files of `tests`, and their titles.
    areas: Vec<(String, String)>,
    /// Platform and test, or area; and why it is left out.
    without: BTreeMap<(String, String), String>,
    elsewhere: BTreeSet<String>,
}

/// What `.ci/platforms.sh` stored about a platform.
#[derive(Default)]
struct Column {
    /// `target`, `how`, `date`, `commit`.
    facts: BTreeMap<String, String>,
    /// Of each test whether it is `ok`, `FAILED`, or `unfinished`; or why it left itself out.
    tests: BTreeMap<String, String>,
    /// Unit tests of each room: how many passed, and how many there are.
    rooms: BTreeMap<String, (usize, usize)>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    // A checkout may have changed how lines end.
    text.replace("\r\n", "\n")
}

impl Suite {
    fn read() -> Self {
        let mut suite = Suite::default();
        for line in read("docs/platforms/suite.txt").lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or_default();
            let cells: Vec<_> = rest.split(" | ").map(str::trim).collect();
            match (kind, &cells[..]) {
                ("area", [file, title]) => {
                    suite.areas.push(((*file).to_owned(), (*title).to_owned()));
                }
                ("without", [platforms, test, reason]) => {
                    for platform in platforms.split(' ') {
                        assert!(PLATFORMS.iter().any(|(name, _)| name == &platform), "{line}");
                        let key = (platform.to_owned(), (*test).to_owned());
                        suite.without.insert(key, (*reason).to_owned());
                    }
                }
                ("elsewhere", [file, _]) => _ = suite.elsewhere.insert((*file).to_owned()),
                _ => assert!(line.is_empty() || kind == "#" || line == "#", "suite.txt: {line}"),
            }
        }
        suite
    }

    /// Why a platform leaves out a test, or the whole area of it.
    fn reason(&self, platform: &str, test: &str) -> Option<&str> {
        let area = test.split("::").next().unwrap_or_default();
        let mut keys = [test, area].into_iter().map(|what| (platform.to_owned(), what.to_owned()));
        keys.find_map(|key| self.without.get(&key)).map(String::as_str)
    }
}

impl Column {
    fn read(platform: &str) -> Self {
        let mut column = Column::default();
        for line in read(&format!("docs/platforms/{platform}.txt")).lines() {
            let (word, rest) = line.split_once(' ').expect("two words");
            match word {
                "ok" | "FAILED" | "unfinished" => {
                    column.tests.insert(rest.to_owned(), word.to_owned());
                }
                "left-out" => {
                    let (test, reason) = rest.split_once(": ").expect("a test and a reason");
                    column.tests.insert(test.to_owned(), reason.to_owned());
                }
                "passed" => {
                    let words: Vec<_> = rest.split(' ').collect();
                    let number = |at: usize| words[at].parse().expect("a number");
                    let room = words[0].trim_start_matches("unit::").to_owned();
                    column.rooms.insert(room, (number(1), number(2)));
                }
                _ => column.facts.extend([(word.to_owned(), rest.to_owned())]),
            }
        }
        column
    }

    fn fact(&self, name: &str) -> &str {
        self.facts.get(name).unwrap_or_else(|| panic!("no `{name}` is stored"))
    }
}

/// The sources of an area: its file, or those in its folder with their modules.
fn sources(area: &str) -> Vec<(String, String)> {
    if root().join(format!("tests/{area}.rs")).exists() {
        return vec![(format!("{area}::"), read(&format!("tests/{area}.rs")))];
    }
    let entries = fs::read_dir(root().join("tests").join(area)).expect("a folder of tests");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("a file").file_name()).collect();
    names.sort();
    let names = names.into_iter().map(|name| name.into_string().expect("a plain name"));
    names
        .map(|name| {
            let module = name.trim_end_matches(".rs").trim_end_matches("main");
            let colons = if module.is_empty() { "" } else { "::" };
            let prefix = format!("{area}::{module}{colons}");
            (prefix, read(&format!("tests/{area}/{name}")))
        })
        .collect()
}

/// The tests of an area, as they are written; with the area before the name.
fn tests_of(area: &str) -> Vec<String> {
    let mut tests = Vec::new();
    for (prefix, source) in sources(area) {
        for rest in source.split("#[test]\n").skip(1) {
            let name = rest.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
            tests.push(format!("{prefix}{}", name.expect("a test is a function")));
        }
    }
    assert!(!tests.is_empty(), "tests/{area}: no tests were found");
    tests
}

/// What an area is for: the first paragraph of the head of its source.
fn purpose(area: &str) -> String {
    let file = format!("tests/{area}.rs");
    let is_file = root().join(&file).exists();
    let source = read(&if is_file { file } else { format!("tests/{area}/main.rs") });
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<_> = lines.map(str::trim).take_while(|line| !line.is_empty()).collect();
    paragraph.join("\n")
}

/// The page, of what is stored and of the sources.
fn page(suite: &Suite, columns: &[(&str, &str, Column)]) -> String {
    let mut page = HEAD.to_owned();
    page += "\n| column | target | how it was run | when | commit |\n|---|---|---|---|---|\n";
    for (_, title, column) in columns {
        let facts = ["target", "how", "date", "commit"].map(|name| column.fact(name));
        let _ = writeln!(page, "| {title} | {} |", facts.join(" | "));
    }
    page += SUMMARY;
    let titles: Vec<_> = columns.iter().map(|(_, title, _)| *title).collect();
    let _ = write!(page, "\n| area | {} |\n|---|", titles.join(" | "));
    let _ = writeln!(page, "{}", "---:|".repeat(columns.len()));
    let (mut rows, mut lists) = (String::new(), String::new());
    for (area, title) in &suite.areas {
        let tests = tests_of(area);
        let cells = columns.iter().map(|(.., column)| {
            let passed = tests.iter().filter(|test| passed(column, test)).count();
            if was_run(column, area) { cell(passed, tests.len()) } else { "–".to_owned() }
        });
        let _ = writeln!(rows, "| {title} | {} |", cells.collect::<Vec<_>>().join(" | "));
        let _ = writeln!(lists, "\n## {title}\n\n{}", purpose(area));
        for (platform, title, _) in columns.iter().filter(|(.., column)| !was_run(column, area)) {
            let _ = match suite.reason(platform, area) {
                Some(reason) => writeln!(lists, "\nNot on {title}: {reason}."),
                None => writeln!(lists, "\nNot yet run on {title}."),
            };
        }
        lists.push('\n');
        for test in &tests {
            let words = test[area.len() + 2..].replace("::", ": ").replace('_', " ");
            let _ = writeln!(lists, "- {words}{}", deviations(suite, columns, area, test));
        }
    }
    for room in ROOMS {
        let counts = columns.iter().map(|(.., column)| column.rooms.get(*room));
        let cells = counts.map(|count| count.map_or("–".to_owned(), |(p, n)| cell(*p, *n)));
        let cells: Vec<_> = cells.collect();
        let _ = writeln!(rows, "| unit tests: {room} | {} |", cells.join(" | "));
    }
    page + &rows + &lists + &units(columns)
}

/// Whether anything of an area was run.
fn was_run(column: &Column, area: &str) -> bool {
    let prefix = format!("{area}::");
    column.tests.keys().any(|test| test.starts_with(&prefix))
}

fn passed(column: &Column, test: &str) -> bool {
    column.tests.get(test).is_some_and(|outcome| outcome == "ok")
}

fn cell(passed: usize, all: usize) -> String {
    if passed == all { all.to_string() } else { format!("{passed} of {all}") }
}

/// Where a test did not pass or was not run, and why. Not of areas that are left out as a whole.
fn deviations(suite: &Suite, columns: &[(&str, &str, Column)], area: &str, test: &str) -> String {
    let mut text = String::new();
    for (platform, title, column) in columns {
        let outcome = column.tests.get(test).map(String::as_str);
        let _ = match (outcome, suite.reason(platform, test)) {
            (Some("ok"), _) => Ok(()),
            (Some("FAILED"), _) => write!(text, "; **fails on {title}**"),
            (Some("unfinished"), _) => write!(text, "; **does not end on {title}**"),
            (None, _) if !was_run(column, area) => Ok(()),
            (Some(reason), _) | (None, Some(reason)) => write!(text, "; not on {title}: {reason}"),
            (None, None) => write!(text, "; not yet run on {title}"),
        };
    }
    text
}

/// The unit tests that did not pass, if there are any.
fn units(columns: &[(&str, &str, Column)]) -> String {
    let mut list = String::new();
    for (_, title, column) in columns {
        for (test, outcome) in &column.tests {
            if let Some(name) = test.strip_prefix("unit::") {
                let _ = match outcome.as_str() {
                    "FAILED" => writeln!(list, "- `{name}` **fails on {title}**"),
                    "unfinished" => writeln!(list, "- `{name}` **does not end on {title}**"),
                    reason => writeln!(list, "- `{name}` not on {title}: {reason}"),
                };
            }
        }
    }
    if list.is_empty() { list } else { format!("\n## Unit tests\n\n{list}") }
}

/// The platforms of which something is stored.
fn columns() -> Vec<(&'static str, &'static str, Column)> {
    let is_stored = |name| root().join(format!("docs/platforms/{name}.txt")).exists();
    let stored = PLATFORMS.iter().filter(|(name, _)| is_stored(name));
    stored.map(|(name, title)| (*name, *title, Column::read(name))).collect()
}

#[test]
fn the_page_shows_what_was_run() {
    let page = page(&Suite::read(), &columns());
    if std::env::var_os("SWITCHBOARD_UPDATE_DOCS").is_some() {
        fs::write(root().join("docs/platforms.md"), &page).expect("the page is written");
    }
    let kept = read("docs/platforms.md");
    assert!(kept == page, "docs/platforms.md is not what is stored; run\n    {UPDATE}\n{page}");
}

#[test]
fn every_behaviour_was_run_on_linux() {
    let column = Column::read(PLATFORMS[0].0);
    let written: Vec<_> = Suite::read().areas.iter().flat_map(|(area, _)| tests_of(area)).collect();
    let missing: Vec<_> = written.iter().filter(|test| !column.tests.contains_key(*test)).collect();
    assert!(missing.is_empty(), "not run yet: {missing:#?}; run\n    {RUN}");
    let gone: Vec<_> = column.tests.keys().filter(|test| !written.contains(test)).collect();
    assert!(gone.is_empty(), "gone, or failing unit tests: {gone:#?}; run\n    {RUN}");
}

#[test]
fn what_is_left_out_is_known_and_not_run() {
    let (suite, columns) = (Suite::read(), columns());
    for ((platform, test), reason) in &suite.without {
        let area = test.split("::").next().unwrap_or_default();
        assert!(suite.areas.iter().any(|(known, _)| known == area), "{test}: no such area");
        let is_area = area == test;
        assert!(is_area || tests_of(area).contains(test), "{test}: there is no such test");
        let column = columns.iter().find(|(known, ..)| known == platform);
        let was_run = column.is_some_and(|(.., column)| column.tests.contains_key(test));
        assert!(!was_run, "{test} is run on {platform}, though: {reason}");
    }
}

#[test]
fn every_file_of_tests_is_a_part_of_the_suite_or_not_for_a_reason() {
    let suite = Suite::read();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests")).expect("the tests") {
        let path = entry.expect("a file").path();
        let is_target = path.join("main.rs").exists() || path.extension() == Some("rs".as_ref());
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a plain name");
        found.extend(is_target.then(|| name.to_owned()));
    }
    let areas = suite.areas.iter().map(|(area, _)| area.clone());
    let named: BTreeSet<_> = areas.chain(suite.elsewhere.iter().cloned()).collect();
    assert_eq!(named, found, "docs/platforms/suite.txt names the files of tests");
}
