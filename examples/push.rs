//! The README's second program, word for word: answers requests, and tells all clients the same.
#![expect(clippy::disallowed_methods, clippy::print_stderr, reason = "a program, not the crate")]

use std::{thread, time::Duration};
use switchboard::{Error, LengthPrefixed, Server, group::Group, handler_fn};

fn main() -> Result<(), Error> {
    let codec = LengthPrefixed::u32();
    let everybody = Group::new(codec);
    let members = everybody.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            everybody.broadcast("tick").unwrap_or_else(|error| eprintln!("{error}"));
        }
    });
    let upper = move |_peer| {
        handler_fn(|cx, request| cx.send(request.to_ascii_uppercase())).joining(&members)
    };
    Server::builder().listen("127.0.0.1:7008", codec, upper).run().map(drop)
}
