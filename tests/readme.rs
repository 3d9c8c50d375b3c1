//! The README keeps its word: its programs are as short as it says and are the examples, and what
//! it tells the reader to run is there.

use std::fs;
use std::path::{Path, PathBuf};

/// What an echo server may take, and a server that answers and pushes.
const LINES_MAX: [usize; 2] = [7, 18];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}")).replace("\r\n", "\n")
}

/// The contents of the blocks that are fenced with this word.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}");
    let rest = text.split(open.as_str()).skip(1);
    rest.map(|block| {
        let body = block.split_once('\n').expect("a line after the fence").1;
        body.split_once("```").expect("the block ends").0
    })
    .collect()
}

/// An example without its first comment and the lints that it asks for.
fn program(path: &str) -> String {
    let text = read(path);
    let begin = text.find("use ").expect("it uses something");
    assert!(
        text[..begin]
            .lines()
            .all(|line| line.starts_with("//!") || line.starts_with("#![") || line.is_empty())
    );
    text[begin..].to_owned()
}

#[test]
fn the_two_programs_are_as_short_as_promised_and_need_no_generics() {
    let readme = read("README.md");
    let programs = blocks(&readme, "rust");
    for (program, max) in programs.iter().zip(LINES_MAX) {
        let count = program.lines().count();
        assert!(count <= max, "{count} lines, of {max} allowed:\n{program}");
        for mark in ["Box<", "::<", "dyn ", "impl ", "Arc<", ".unwrap()"] {
            assert!(!program.contains(mark), "`{mark}` written by hand:\n{program}");
        }
    }
    assert!(programs.len() >= 2, "the programs are there");
}

#[test]
fn the_two_programs_are_examples() {
    let readme = read("README.md");
    let programs = blocks(&readme, "rust");
    for (shown, path) in programs.iter().zip(["examples/hello.rs", "examples/push.rs"]) {
        assert_eq!(*shown, program(path), "{path} is what the README shows");
    }
}

/// Names after `flag` in the README, without what follows.
fn named(text: &str, flag: &str) -> Vec<String> {
    let is_name = |sign: &char| sign.is_alphanumeric() || "-_".contains(*sign);
    text.split(flag).skip(1).map(|rest| rest.chars().take_while(is_name).collect()).collect()
}

fn example_exists(name: &str) -> bool {
    let paths = [format!("examples/{name}.rs"), format!("examples/{name}/main.rs")];
    paths.iter().any(|path| root().join(path).is_file())
}

#[test]
fn what_it_tells_to_run_is_there() {
    let readme = read("README.md");
    let commands = blocks(&readme, "sh").join("\n");
    let first = commands.lines().next().expect("there are commands");
    assert!(first.starts_with("cargo run --release --example gateway"), "{first}");
    assert!(commands.lines().nth(1).is_some_and(|line| line.starts_with("cargo test")));

    let examples = named(&readme, "--example ");
    assert!(!examples.is_empty(), "it names examples");
    for name in examples {
        assert!(example_exists(&name), "there is no example `{name}`");
    }
    for name in named(&readme, "--bin ") {
        let path = format!("benches/src/bin/{name}.rs");
        assert!(root().join(&path).is_file(), "there is no {path}");
    }
    for name in named(&readme, "--test ") {
        let paths = [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")];
        assert!(paths.iter().any(|path| root().join(path).is_file()), "no test `{name}`");
    }
}

#[test]
fn the_files_that_it_names_are_there_and_every_example_is_named() {
    let readme = read("README.md");
    let ticked = readme.split('`').skip(1).step_by(2);
    for name in ticked.filter(|name| !name.contains([' ', '\n'])) {
        let is_path = [".md", ".rs", ".sh"].iter().any(|end| name.ends_with(end));
        assert!(!is_path || root().join(name).is_file(), "there is no {name}");
    }
    for entry in fs::read_dir(root().join("examples")).expect("the examples") {
        let path = entry.expect("an example").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        if stem != "common" {
            let is_told = readme.contains(&format!("`{stem}`"));
            assert!(is_told, "`{stem}` is not in the table of examples");
        }
    }
}

#[test]
fn the_rules_see_what_breaks_them() {
    assert_eq!(blocks("a\n```rust,no_run\none\ntwo\n```\nb", "rust"), ["one\ntwo\n"]);
    assert_eq!(
        named("cargo run --example two --example no-more.", "--example "),
        ["two", "no-more"]
    );
    assert!(!example_exists("none-such"));
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md").is_file());
}
