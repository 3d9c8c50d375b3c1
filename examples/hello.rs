//! The README's echo server, word for word: `cargo run --example hello`, then `nc 127.0.0.1 7007`.

use switchboard::{Error, Raw, Server, handler_fn};

fn main() -> Result<(), Error> {
    let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    Server::builder().listen("127.0.0.1:7007", Raw::new(), echo).run().map(drop)
}
