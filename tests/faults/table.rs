//! The table in `tests/README.md`: what it names is there, and no number is missing.

use std::fs;
use std::path::Path;

/// Rows of the list of faults that the table goes through.
const NUMBER_MAX: usize = 52;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What stands between backquotes in a line.
fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Whether there is such a test, file or folder.
fn exists(root: &Path, name: &str) -> bool {
    let Some((module, test)) = name.split_once("::") else {
        let path = name.split_whitespace().next().unwrap_or(name);
        return ["", "tests", "src/core/conn/tests"]
            .iter()
            .any(|at| root.join(at).join(path).exists());
    };
    let files = ["tests/faults", "tests"].map(|at| root.join(at).join(format!("{module}.rs")));
    files.iter().any(|file| read(file).contains(&format!("#[test]\nfn {test}() {{")))
}

#[test]
fn the_table_misses_no_number_and_names_nothing_that_is_not_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = read(&root.join("tests/README.md"));
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let mut seen = [false; NUMBER_MAX + 1];
    for row in &rows {
        let numbers: Vec<usize> = row[1].split(" to ").filter_map(|n| n.parse().ok()).collect();
        if let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) {
            seen[first..=last].fill(true);
        }
        if let Some(missing) = names(row[3]).find(|name| !is_told(name) && !exists(root, name)) {
            panic!("there is no {missing}, which the table names");
        }
    }
    let missing: Vec<_> = (1..=NUMBER_MAX).filter(|&number| !seen[number]).collect();
    assert!(missing.is_empty(), "the table does not say what becomes of {missing:?}");
}

/// What is a word of the text and no place: `WouldBlock`, or a program of the measuring kit.
fn is_told(name: &str) -> bool {
    ["WouldBlock", "overload"].contains(&name)
}
