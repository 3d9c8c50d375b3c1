//! Keeps the sources in order: who may use whom, what stands in one place only, and the sizes.
//!
//! A rule is a function over one source; it says in which lines the source breaks it and why. The
//! rules are themselves tested, each on a snippet that breaks it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The rooms, lowest first, and the lower rooms that each may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("words", &[]),
    ("parts", &["words"]),
    ("core", &["words", "parts"]),
    // Not the core: the platform takes no decision about a connection.
    ("sys", &["words", "parts"]),
    ("engine", &["words", "parts", "core", "sys"]),
    ("edge", &["words", "parts", "core", "sys", "engine"]),
    ("front", &["words", "parts", "core", "sys", "engine", "edge"]),
];

/// Inside a room a module may use these neighbours and no other: room, user, used, reason. A star
/// stands for every module of the room.
const NEIGHBOURS: &[(&str, &str, &str, &str)] = &[
    ("words", "reason", "error", "a close reason may hold the error of a callback"),
    ("words", "config", "error", "what is out of range is answered with an error"),
    ("words", "config", "id", "there are no more reactors than ids can tell apart"),
    ("words", "bucket", "clock", "tokens come with time"),
    ("words", "bucket", "config", "a rate says how many"),
    ("words", "config", "bucket", "a shaper is a pair of them, shared"),
    ("words", "config", "clock", "its buckets are full from the beginning of time"),
    ("words", "config", "sync", "a shaper is shared between threads"),
    ("core", "codec", "*", "the codecs stand behind one trait"),
    ("core", "hand", "gate", "the gate of the handles travels with it"),
    ("core", "hand", "refusal", "it says that there is no room"),
    ("core", "hand", "session", "a handler may put another session into its place"),
    ("core", "hand", "shaping", "the protocol may change its rates"),
    ("core", "hand", "timers", "timers travel with the session"),
    ("core", "post", "group", "a broadcast is told to the members by it"),
    ("core", "post", "job", "calls that belong to no connection go to the pool"),
    ("core", "gate", "post", "it knows the mailbox of its connection"),
    ("core", "context", "codec", "what is sent is encoded at once"),
    ("core", "context", "hand", "it is what a handler may do with a hand"),
    ("core", "context", "post", "it asks the surroundings for the time, and for the mailbox"),
    ("core", "context", "refusal", "what it answers when it cannot"),
    ("core", "context", "shaping", "the protocol may change its rates"),
    ("core", "context_bytes", "context", "more ways to send on it"),
    ("core", "context_bytes", "codec", "what is sent in parts is encoded at once"),
    ("core", "context_bytes", "*", "its tests need a hand and an office"),
    ("core", "handler", "context", "every call has one"),
    ("core", "handler", "overload", "what it answers for a frame that waited too long"),
    ("core", "visit", "context", "a visitor gets one"),
    ("core", "handle", "context", "it is made there"),
    ("core", "handle", "gate", "it is a way to the gate"),
    ("core", "handle", "hand", "the first handle leaves its gate there"),
    ("core", "handle", "post", "it posts messages"),
    ("core", "handle", "visit", "it sends visitors"),
    ("core", "offload", "*", "a job leaves with a context and comes back as a visitor"),
    ("core", "group", "codec", "what is told is encoded once"),
    ("core", "group", "context", "members join and leave through it"),
    ("core", "group", "handle", "members join and leave through it"),
    ("core", "group", "gate", "the members of its models have one"),
    ("core", "group", "post", "a broadcast is one letter for each reactor"),
    ("core", "session", "hand", "it gets one"),
    ("core", "session", "post", "what other threads sent waits for it"),
    ("core", "framed", "*", "it makes the calls: codec, handler, context and hand meet here"),
    ("core", "session", "framed", "a codec and a handler make a session"),
    ("core", "handler", "group", "a handler of frames alone may join one"),
    ("core", "session", "codec", "a codec and a handler make a session"),
    ("core", "session", "handler", "a codec and a handler make a session"),
    ("core", "job", "*", "it runs sessions, with all that they need by value"),
    ("core", "shaping", "limits", "what it is held to are buckets"),
    ("core", "conn", "*", "a record holds its session, and all that decides about it"),
    ("sys", "*", "*", "one list of items that the platforms supply, with a trait in front of it"),
    ("engine", "common", "desk", "it knows the desks of all reactors"),
    ("engine", "common", "request", "what is asked of the server goes to one of them"),
    ("engine", "reactor", "common", "what it shares with the others"),
    ("engine", "spawn", "common", "how many free jobs may wait stands there"),
    ("engine", "desk", "counters", "a snapshot is asked for by letter"),
    ("engine", "desk", "reactor", "a connection is handed to another reactor by letter"),
    ("engine", "desk", "request", "requests wait there"),
    ("engine", "reactor", "counters", "it counts what it does"),
    ("engine", "reactor", "desk", "it reads its mail and writes to others"),
    ("engine", "reactor", "request", "it does what is asked of it"),
    ("engine", "reactor", "sched", "it is what the scheduler leases out"),
    ("engine", "spawn", "desk", "without a pool a reactor is asked"),
    ("engine", "spawn", "sched", "free jobs go through the slow lane"),
    ("edge", "idle_pool", "connector", "its connections are asked for there"),
    ("edge", "reconnect", "backoff", "how long to wait between attempts"),
    ("edge", "reconnect", "connector", "each attempt is a connection that is asked for"),
    ("front", "builder", "server", "what is built"),
    ("front", "server", "builder", "where it begins"),
    ("front", "client", "server", "its calls on a server at work"),
    ("front", "guide", "builder", "its tables of settings are compared with it"),
    ("front", "testing", "server", "its tests ask whether a server does as the bench does"),
];

/// Names that stand in one file or folder of `src` only, and why.
const PLACES: &[(&str, &str, &str)] = &[
    ("unsafe", "src/sys/", "whoever audits it has one folder to read"),
    ("libc", "src/sys/", "every system call beyond mio's is made in one folder"),
    ("crossbeam_deque", "src/engine/sched/queue.rs", "a model checker has to replace it"),
    ("Instant::now", "src/words/clock.rs", "time is an argument everywhere else"),
];

/// What a `cfg` asks the platform; only `src/sys/` may, so that all else is the same everywhere,
/// and the root, which leaves out whole rooms.
const PLATFORM_WORDS: &[&str] = &[
    "target_os",
    "target_family",
    "target_env",
    "target_vendor",
    "unix",
    "windows",
    "mio_unsupported_force_poll_poll",
    "mio_unsupported_force_waker_pipe",
];

const FILE_LINES_MAX: usize = 600;
const LINE_COLUMNS_MAX: usize = 100;
const ROOT_NAMES_MAX: usize = 15;

type Rule = fn(&Source, &Modules) -> Vec<(usize, String)>;

const RULES: &[(&str, Rule)] = &[
    ("rooms", rooms),
    ("places", places),
    ("platform", platform),
    ("header", header),
    ("sizes", sizes),
    ("unfinished", unfinished),
    ("sleep", sleeps),
    ("root", root),
];

#[test]
fn the_sources_are_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(root, root, &mut sources);
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "nothing was read");
    let modules = modules(&sources);
    let mut complaints = Vec::new();
    for source in &sources {
        for (name, rule) in RULES {
            for (line, why) in rule(source, &modules) {
                complaints.push(format!("{}:{line}: {why} [{name}]", source.path));
            }
        }
    }
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
}

/// A file uses lower rooms, its own module, and the listed neighbours.
fn rooms(source: &Source, modules: &Modules) -> Vec<(usize, String)> {
    let Some(here) = source.module_path().filter(|path| !path.is_empty()) else {
        return Vec::new();
    };
    let Some((room, lower)) = ROOMS.iter().find(|(room, _)| *room == here[0]) else {
        return vec![(1, format!("`{}` is no room", here[0]))];
    };
    let mut complaints = Vec::new();
    for (line, path) in source.paths(&here) {
        let Some(there) = path.first() else { continue };
        if there != room {
            if !lower.contains(&there.as_str()) {
                complaints.push((line, format!("`{room}` may not use `{}`", path.join("::"))));
            }
            continue;
        }
        let (Some(user), Some(used)) = (here.get(1), path.get(1)) else { continue };
        let is_module = modules.contains(&(there.clone(), used.clone()));
        let is_listed = NEIGHBOURS.iter().any(|(in_room, by, of, _)| {
            in_room == room && [user, "*"].contains(by) && [used, "*"].contains(of)
        });
        if user != used && is_module && !is_listed {
            complaints.push((line, format!("`{used}` is no listed neighbour of `{user}`")));
        }
    }
    complaints
}

/// Some names stand in one place only.
fn places(source: &Source, _: &Modules) -> Vec<(usize, String)> {
    let mut complaints = Vec::new();
    for (name, place, reason) in PLACES {
        if source.path.starts_with("src/") && !source.path.starts_with(place) {
            let why = format!("`{name}` stands only in {place}: {reason}");
            complaints.extend(source.find(name).map(|at| (source.line(at), why.clone())));
        }
    }
    complaints
}

/// Only `sys` asks which platform it is built for.
fn platform(source: &Source, _: &Modules) -> Vec<(usize, String)> {
    let may_ask = source.path.starts_with("src/sys/") || source.path == "src/lib.rs";
    if !source.path.starts_with("src/") || may_ask {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (at, asked) in source.cfgs() {
        let word = PLATFORM_WORDS.iter().find(|word| find(asked, word).next().is_some());
        complaints
            .extend(word.map(|word| (source.line(at), format!("only sys asks for `{word}`"))));
    }
    complaints
}

/// A file says first what it is for.
fn header(source: &Source, _: &Modules) -> Vec<(usize, String)> {
    let says = source.text.starts_with("//! ");
    (!says)
        .then(|| (1, "the first line says in a `//!` sentence what the file is for".into()))
        .into_iter()
        .collect()
}

/// Files and lines have an end.
fn sizes(source: &Source, _: &Modules) -> Vec<(usize, String)> {
    let mut complaints = Vec::new();
    for (line, text) in (1..).zip(source.text.lines()) {
        let columns = text.chars().count();
        if columns > LINE_COLUMNS_MAX {
            complaints.push((line, format!("{columns} columns, of {LINE_COLUMNS_MAX} allowed")));
        }
        if line == FILE_LINES_MAX + 1 {
            complaints.push((line, format!("a file has at most {FILE_LINES_MAX} lines")));
        }
    }
    complaints
}

/// What is committed is finished, and every test runs.
fn unfinished(source: &Source, _: &Modules) -> Vec<(usize, String)> {
    let mut complaints = Vec::new();
    for mark in ["todo!", "unimplemented!"] {
        let found = source.find(mark);
        complaints.extend(found.map(|at| (source.line(at), format!("`{mark}` is unfinished"))));
    }
    let ignored = source.find("ignore").filter(|&at| source.code[..at].trim_end().ends_with('['));
    complaints.extend(ignored.map(|at| (source.line(at), "a test that nobody runs".into())));
    complaints
}

/// A test waits for the event with a deadline; how long a sleep has to be, nobody knows.
fn sleeps(source: &Source, _: &Modules) -> Vec<(usize, String)> {
    let path = &source.path;
    let is_test = path.starts_with("tests/") || path.ends_with("/tests.rs");
    let tests_from = if is_test {
        Some(0)
    } else if path.starts_with("src/") {
        source.cfgs().find(|(_, asked)| find(asked, "test").next().is_some()).map(|(at, _)| at)
    } else {
        None
    };
    let Some(from) = tests_from else { return Vec::new() };
    let why = "a test does not sleep: it waits for the event";
    // Neither a method nor a definition of ours, which may well bear that name.
    let called = |&at: &usize| {
        let (before, after) = (source.code[..at].trim_end(), &source.code[at + "sleep".len()..]);
        after.starts_with('(') && !before.ends_with('.') && !before.ends_with("fn")
    };
    let found = source.find("sleep").filter(called).filter(|&at| at >= from);
    found.map(|at| (source.line(at), why.into())).collect()
}

/// The crate root shows few names, each on its own.
fn root(source: &Source, _: &Modules) -> Vec<(usize, String)> {
    if source.path != "src/lib.rs" {
        return Vec::new();
    }
    let mut names = Vec::new();
    // Those in a `pub mod` are indented, and not at the root.
    let at_root = |at: &usize| source.code[..*at].ends_with('\n') || *at == 0;
    for at in source.find("pub use").filter(at_root) {
        parse_tree(&source.code, at + "pub use".len(), &[], &mut names);
    }
    for item in ["fn", "struct", "enum", "trait", "type", "const", "static", "union"] {
        names.extend(source.find(&format!("pub {item}")).map(|at| (at, vec![item.to_owned()])));
    }
    let globs = names.iter().filter(|(_, path)| path.last().is_some_and(|name| name == "*"));
    let why = "names are exported one by one";
    let mut complaints: Vec<_> = globs.map(|(at, _)| (source.line(*at), why.to_owned())).collect();
    if let Some((at, _)) = names.get(ROOT_NAMES_MAX) {
        let why = format!("{} names at the root, of {ROOT_NAMES_MAX} allowed", names.len());
        complaints.push((source.line(*at), why));
    }
    complaints
}

/// Room and module of everything that stands two levels deep in `src`.
type Modules = BTreeSet<(String, String)>;

fn modules(sources: &[Source]) -> Modules {
    let paths = sources.iter().filter_map(Source::module_path);
    paths.filter_map(|path| Some((path.first()?.clone(), path.get(1)?.clone()))).collect()
}

struct Source {
    /// From the root of the package, with `/` between the names.
    path: String,
    text: String,
    /// The text with blanks for comments and for what stands in quotes; the same length.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Source { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// `src/parts/buf/pool.rs` is `parts::buf::pool`; `None` outside of `src`.
    fn module_path(&self) -> Option<Vec<String>> {
        let path = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let mut names: Vec<_> = path.split('/').map(str::to_owned).collect();
        if matches!(names.last().map(String::as_str), Some("mod" | "lib")) {
            names.pop();
        }
        Some(names)
    }

    /// Where `name` stands in the code as a word of its own.
    fn find<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> {
        find(&self.code, name)
    }

    fn line(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }

    /// What each `cfg(…)`, `cfg!(…)` and `cfg_attr(…)` asks, and where.
    fn cfgs(&self) -> impl Iterator<Item = (usize, &str)> {
        ["cfg(", "cfg!(", "cfg_attr("].into_iter().flat_map(move |open| {
            find(&self.code, open).map(move |at| {
                let rest = &self.code[at + open.len()..];
                let mut depth = 1;
                let end = rest.find(|sign: char| {
                    depth += i32::from(sign == '(') - i32::from(sign == ')');
                    depth == 0
                });
                (at, &rest[..end.unwrap_or(rest.len())])
            })
        })
    }

    /// All paths within this crate, in `use` or elsewhere, from the root; `here` is our own.
    ///
    /// A `super` in an inline module leads to this file in truth, but to its parent here: that is
    /// the same room, and what it names there is a module only if it is one of the file's, too.
    fn paths(&self, here: &[String]) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        for at in self.find("crate::") {
            parse_tree(&self.code, at + "crate::".len(), &[], &mut found);
        }
        for at in self.find("super::") {
            if self.code[..at].ends_with("::") {
                continue;
            }
            let (mut at, mut up) = (at, here);
            while self.code[at..].starts_with("super::") {
                at += "super::".len();
                up = &up[..up.len().saturating_sub(1)];
            }
            parse_tree(&self.code, at, up, &mut found);
        }
        found.into_iter().map(|(at, path)| (self.line(at), path)).collect()
    }
}

/// Reads a path or a `use` tree from `at` on, and appends every path in it, behind `prefix`, with
/// its place. Answers where it stopped.
fn parse_tree(
    code: &str,
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let skip = |at: usize| at + code[at..].len() - code[at..].trim_start().len();
    at = skip(at);
    if code[at..].starts_with('{') {
        at = skip(at + 1);
        while !code[at..].starts_with('}') {
            at = parse_tree(code, at, prefix, found);
            // Past an `as name`, if there is one.
            let Some(end) = code[at..].find([',', '}']) else { return code.len() };
            at = skip((at + end) + usize::from(code[at + end..].starts_with(',')));
        }
        return at + 1;
    }
    let end = code[at..].find(|sign| !is_word(sign)).map_or(code.len(), |end| at + end);
    let name = if code[at..].starts_with('*') { "*" } else { &code[at..end] };
    if name.is_empty() {
        found.push((at, prefix.to_vec()));
        return at;
    }
    let path = [prefix, &[name.to_owned()]].concat();
    if code[end..].starts_with("::") {
        return parse_tree(code, end + 2, &path, found);
    }
    found.push((at, path));
    end
}

fn find<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(name).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let grows_left = name.starts_with(is_word) && before.is_some_and(is_word);
        let grows_right = name.ends_with(is_word) && after.is_some_and(is_word);
        !grows_left && !grows_right
    })
}

fn is_word(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// Writes blanks over comments and over what stands in quotes, so that code alone is searched.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let after_word = code.ends_with(is_word);
        let hidden = match sign {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, '"'),
            'r' | 'b' if !after_word => raw_string(rest).unwrap_or(0),
            '\'' if is_char_literal(rest) => quoted(rest, '\''),
            _ => 0,
        };
        let (cut, shown) = if hidden == 0 { (sign.len_utf8(), true) } else { (hidden, false) };
        let (now, later) = rest.split_at(cut);
        if shown {
            code.push_str(now);
        } else {
            code.extend(now.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        }
        rest = later;
    }
    code
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a literal that begins with `quote` and ends with the next one not escaped.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let close = text[1..].find(|sign| {
        let closes = sign == quote && !escaped;
        escaped = sign == '\\' && !escaped;
        closes
    });
    close.map_or(text.len(), |close| close + 2)
}

/// The length of a literal like `r"…"`, `r#"…"#` or `br"…"`.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let inner = rest.trim_start_matches('#').strip_prefix('"')?;
    let hashes = rest.len() - inner.len() - 1;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inner.find(&close).map_or(inner.len(), |end| end + close.len());
    Some(text.len() - inner.len() + end)
}

/// Whether the quote begins a character, not a lifetime.
fn is_char_literal(text: &str) -> bool {
    let mut signs = text.chars().skip(1);
    let first = signs.next();
    first == Some('\\') || signs.next() == Some('\'')
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(root, &path, sources);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("a text in UTF-8");
            let names = path.strip_prefix(root).expect("it is below the root").components();
            let names: Vec<_> = names.map(|name| name.as_os_str().to_string_lossy()).collect();
            sources.push(Source::new(&names.join("/"), &text));
        }
    }
}

/// Rule, file, text, and the line it is to complain of.
const VIOLATIONS: &[(&str, &str, &str, usize)] = &[
    ("rooms", "src/parts/a.rs", "//! A.\nuse crate::engine::lane::Lane;", 2),
    ("rooms", "src/parts/a.rs", "//! A.\nuse crate::{words::id, engine};", 2),
    ("rooms", "src/parts/a.rs", "//! A.\nuse crate::{\n  words::{id, x as y,},\n  sys::z};", 4),
    ("rooms", "src/parts/a.rs", "//! A.\nfn f() { super::super::core::g() }", 2),
    ("rooms", "src/parts/mod.rs", "//! A.\nuse super::core::g;", 2),
    ("rooms", "src/parts/a.rs", "//! A.\nuse crate::Server;", 2),
    ("rooms", "src/sys/a.rs", "//! A.\nuse crate::core::g;", 2),
    ("rooms", "src/parts/a.rs", "//! A.\nuse crate::parts::b::B;", 2),
    ("rooms", "src/parts/a.rs", "//! A.\nuse super::{a, b::B};", 2),
    ("rooms", "src/attic/a.rs", "//! A.\n", 1),
    ("places", "src/engine/a.rs", "//! A.\nfn f() { unsafe { g() } }", 2),
    ("places", "src/engine/a.rs", "//! A.\n\nfn f() { libc::close(1) }", 3),
    ("places", "src/engine/sched/a.rs", "//! A.\nuse crossbeam_deque as deque;", 2),
    ("places", "src/front/a.rs", "//! A.\nfn f() { std::time::Instant::now() }", 2),
    ("platform", "src/edge/a.rs", "//! A.\n#[cfg(all(test, target_os = \"linux\"))]", 2),
    ("platform", "src/edge/a.rs", "//! A.\nconst A: bool = cfg!(not(any(windows)));", 2),
    ("platform", "src/words/a.rs", "//! A.\n#![cfg_attr(unix, deny(x))]", 2),
    ("header", "src/words/a.rs", "use std::fmt;", 1),
    ("header", "examples/a.rs", "// A.\n//! B.", 1),
    ("unfinished", "src/words/a.rs", "//! A.\nfn f() { todo!() }", 2),
    ("unfinished", "tests/a.rs", "//! A.\n#[test]\n#[ignore = \"slow\"]\nfn f() {}", 3),
    ("sleep", "tests/a.rs", "//! A.\nfn f() { thread::sleep(LONG) }", 2),
    ("sleep", "src/core/a/tests.rs", "//! A.\nfn f() { sleep(LONG) }", 2),
    ("sleep", "src/core/a.rs", "//! A.\n#[cfg(test)]\nmod tests { fn f() { sleep(LONG) } }", 3),
    ("root", "src/lib.rs", "//! A.\npub use front::*;", 2),
];

/// What no rule complains of.
const CLEAN: &[(&str, &str)] = &[
    (
        "src/parts/a.rs",
        "//! A.\nuse crate::words::{id::{ConnId, Token as T}, clock};\nuse super::a;",
    ),
    ("src/parts/mod.rs", "//! A.\nmod a;\npub(crate) use a::A;\nuse super::words::id;"),
    ("src/parts/a.rs", "//! A: no `unsafe`, todo!\n/* use crate::front; /* unsafe */ libc:: */"),
    ("src/parts/a.rs", "//! A.\nconst A: &str = \"unsafe \\\" todo!\";\nconst B: char = '\"';"),
    (
        "src/parts/a.rs",
        "//! A.\nfn f<'a>(a: &'a str) { r#\"crate::front \"# }\n#![deny(unsafe_code)]",
    ),
    ("src/sys/a.rs", "//! A.\n#[cfg(unix)]\nuse super::b;\nfn f() { unsafe { libc::g() } }"),
    (
        "src/engine/a.rs",
        "//! A.\nfn f() { sleep() }\nfn sleep_until_ready() {}\n#[cfg(loom)] mod l;",
    ),
    ("src/engine/a.rs", "//! A.\n#[cfg(test)]\nmod tests { fn f() { sleep_now(); a.sleep(b) } }"),
    ("benches/a.rs", "//! A.\nfn f() { unsafe { sleep(1) } }"),
    ("src/lib.rs", "//! A.\nmod words;\npub use words::{id::ConnId, clock::{Time as T}};"),
];

#[test]
fn each_rule_complains_of_what_breaks_it() {
    let modules = ["a", "b"].map(|name| ("parts".to_owned(), name.to_owned())).into();
    for (name, path, text, line) in VIOLATIONS {
        let (_, rule) = RULES.iter().find(|(known, _)| known == name).expect("a rule");
        let lines: Vec<_> =
            rule(&Source::new(path, text), &modules).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [*line], "{name} on {path}: {text}");
    }
    for (name, _) in RULES.iter().filter(|(name, _)| *name != "sizes") {
        assert!(VIOLATIONS.iter().any(|(tested, ..)| tested == name), "{name} is not tested");
    }
}

#[test]
fn no_rule_complains_of_what_is_in_order() {
    let modules = ["a", "b"].map(|name| ("parts".to_owned(), name.to_owned())).into();
    for (path, text) in CLEAN {
        for (name, rule) in RULES {
            assert_eq!(rule(&Source::new(path, text), &modules), [], "{name} on {path}: {text}");
        }
    }
}

#[test]
fn long_files_long_lines_and_wide_roots_are_complained_of() {
    let modules = Modules::new();
    let wide = format!("//! A.\n{}\n", "é".repeat(LINE_COLUMNS_MAX));
    assert_eq!(sizes(&Source::new("src/a.rs", &wide), &modules), []);
    let wider = sizes(&Source::new("src/a.rs", &wide.replace("éé", "éé ")), &modules);
    assert_eq!(wider[0].0, 2);
    let long = "//! A.\n".repeat(FILE_LINES_MAX);
    assert_eq!(sizes(&Source::new("src/a.rs", &long), &modules), []);
    let longer = sizes(&Source::new("src/a.rs", &(long + "//\n")), &modules);
    assert_eq!(longer[0].0, FILE_LINES_MAX + 1);
    let names: Vec<_> = (0..ROOT_NAMES_MAX).map(|number| format!("Name{number}")).collect();
    let text = format!("//! A.\npub use front::{{{}}};", names.join(", "));
    assert_eq!(root(&Source::new("src/lib.rs", &text), &modules), []);
    let text = text + "\npub struct OneMore;";
    assert_eq!(root(&Source::new("src/lib.rs", &text), &modules)[0].0, 3);
}
