//! Keeps what is written about the crate in step with it: the promises and the tests that hold
//! them, the chapters of the guide, and the list of the public API.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    // A checkout may have changed how lines end.
    text.replace("\r\n", "\n")
}

#[test]
fn every_promise_is_held_by_tests_that_exist() {
    let (rows, complaints) = broken_promises(&read("docs/guide/promises.md"));
    assert!(rows > 30, "{rows} promises were found");
    assert!(complaints.is_empty(), "docs/guide/promises.md\n{}", complaints.join("\n"));
}

#[test]
fn a_promise_without_a_test_is_complained_of() {
    let complaint = |row: &str| broken_promises(&format!("{HEAD}\n|---|---|\n{row}\n")).1;
    assert_eq!(
        complaint("| A. | `tests/guide.rs::a_promise_without_a_test_is_complained_of` |").len(),
        0
    );
    assert_eq!(complaint("| A. | – |"), ["no test holds: A."]);
    assert_eq!(complaint("| A. | `tests/guide.rs::root` |"), ["no test: tests/guide.rs::root"]);
    assert_eq!(complaint("| A. | `tests/none.rs::a` |"), ["no test: tests/none.rs::a"]);
    let later = "| A. | `tests/guide.rs::every_promise_is_held` |";
    assert_eq!(complaint(later), ["no test: tests/guide.rs::every_promise_is_held"]);
}

/// The head of every table of promises.
const HEAD: &str = "| promise | held by |";

/// How many promises there are, and which have no test.
fn broken_promises(page: &str) -> (usize, Vec<String>) {
    let (mut rows, mut complaints, mut in_table) = (0, Vec::new(), false);
    for line in page.lines() {
        in_table = line == HEAD || (in_table && line.starts_with('|'));
        if !in_table || line == HEAD || line.starts_with("|---") {
            continue;
        }
        rows += 1;
        let (promise, tests) = line.trim_matches(['|', ' ']).rsplit_once(" | ").expect("two cells");
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            complaints.push(format!("no test holds: {promise}"));
        }
        let missing = tests.into_iter().filter(|test| !is_test(test));
        complaints.extend(missing.map(|test| format!("no test: {test}")));
    }
    (rows, complaints)
}

/// Whether `path::name` is a test: a function without arguments, with the attribute above it, or a
/// property.
fn is_test(test: &str) -> bool {
    let Some((path, name)) = test.split_once("::") else { return false };
    let Ok(source) = fs::read_to_string(root().join(path)) else { return false };
    let Some(at) = source.find(&format!("fn {name}(")) else { return false };
    // Between the attribute and the function there are other attributes and comments at most.
    source[..at].rfind("#[test]").is_some_and(|from| !source[from..at].contains('}'))
}

#[test]
fn every_chapter_is_in_the_guide() {
    let list = read("src/front/guide/mod.rs");
    let front = read("src/lib.rs");
    let mut count = 0;
    for entry in fs::read_dir(root().join("docs/guide")).expect("the chapters") {
        let path = entry.expect("a chapter").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert_eq!(path.extension().and_then(|end| end.to_str()), Some("md"), "{name}");
        assert!(list.contains(&format!("pub mod {name};")), "{name} is no module");
        assert!(front.contains(&format!("(guide::{name})")), "{name} is not in the contents");
        let module = read(&format!("src/front/guide/{name}.rs"));
        assert!(module.contains(&format!("docs/guide/{name}.md")), "{name} is not shown");
        count += 1;
    }
    assert!(count >= 12, "{count} chapters were found");
}

#[test]
fn the_list_of_the_public_api_has_what_the_root_shows() {
    let list = read("tests/api.txt");
    let front = read("src/lib.rs");
    let names = exported(&front);
    assert!(names.len() > 50, "{names:?}");
    let is_listed = |name: &&String| {
        let path = format!("::{name}");
        let mut ends = list.match_indices(&path).map(|(at, _)| at + path.len());
        ends.any(|end| !list[end..].starts_with(is_word))
    };
    let missing: Vec<_> = names.iter().filter(|name| !is_listed(name)).collect();
    assert!(missing.is_empty(), "tests/api.txt lacks {missing:?}: run .ci/api.sh --update");
    let rooms = ["words", "parts", "core", "sys", "engine", "edge", "front"];
    for room in rooms.map(|room| format!("switchboard::{room}::")) {
        let hidden = list.lines().find(|line| line.contains(&room));
        assert_eq!(hidden, None, "a public item shows a type that nobody can name");
    }
    // And what was taken away is gone from it: the types and modules, at least.
    let kinds = ["struct", "enum", "trait", "mod"].map(|kind| format!("pub {kind} switchboard::"));
    let listed = list.lines().filter_map(|line| {
        let line = line.trim_start_matches("#[non_exhaustive] ");
        let path = kinds.iter().find_map(|kind| line.strip_prefix(kind.as_str()))?;
        path.split(['<', '(', ' ']).next()?.trim_end_matches(':').rsplit("::").next()
    });
    for name in listed {
        let known = front.split(|sign| !is_word(sign)).any(|word| word == name);
        assert!(known, "tests/api.txt has `{name}`, the root does not: run .ci/api.sh --update");
    }
}

/// The names that `pub use` shows, but for what needs the feature `sim`, which is not listed.
fn exported(front: &str) -> Vec<String> {
    let code: String = front.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let uses = code.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let words = uses.flat_map(|tree| tree.split([',', '{', '}']));
    let last = words.filter_map(|path| path.trim().rsplit("::").next());
    let names = last.filter(|name| !name.is_empty() && *name != "sim");
    names.map(str::to_owned).collect()
}

fn is_word(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

#[test]
fn the_pages_have_no_link_to_nowhere() {
    for folder in ["docs", "docs/guide"] {
        for entry in fs::read_dir(root().join(folder)).expect("the pages") {
            let path = entry.expect("a page").path();
            if path.extension().is_some_and(|end| end == "md") {
                check_files(&path);
            }
        }
    }
}

/// Files of the project that a page names in backquotes exist.
fn check_files(page: &Path) {
    let text = fs::read_to_string(page).expect("a page");
    for quoted in text.split('`').skip(1).step_by(2) {
        let path = quoted.split("::").next().unwrap_or_default();
        let names_a_file = ["src/", "tests/", "docs/", ".ci/", "benches/", "fuzz/"];
        if names_a_file.iter().any(|start| path.starts_with(start)) {
            assert!(root().join(path).exists(), "{}: there is no {path}", page.display());
        }
    }
}
