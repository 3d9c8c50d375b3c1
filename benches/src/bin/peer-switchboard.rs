//! The peer on this crate, in three variants.
//!
//! - `take-over`: as it comes. A handler that is slow loses its reactor to another thread.
//! - `hand-off`: every job goes to the pool, the classic reactor with workers.
//! - `inline`: handlers run on the reactor and nobody takes over.

use std::error::Error;

use switchboard::config::Scheduling;
use switchboard::{Raw, Server, handler_fn};
use switchboard_bench::peer::{self, Options};
use switchboard_bench::sys;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(lexopt::Parser::from_env())?;
    let scheduling = match options.variant.as_deref() {
        None | Some("take-over") => Scheduling::TakeOver,
        Some("hand-off") => Scheduling::HandOff,
        Some("inline") => Scheduling::Inline,
        Some(other) => {
            return Err(format!("unknown variant {other}: take-over, hand-off or inline").into());
        }
    };
    sys::raise_file_limit()?;
    let work = options.work;
    Server::builder()
        .reactors(options.threads)
        .workers(options.workers)
        .scheduling(scheduling)
        .listen(options.addr, Raw::new(), move |_peer| {
            handler_fn(move |cx, chunk| {
                work.perform(&chunk);
                cx.send(chunk)
            })
        })
        .on_start(|addrs| {
            if let Some(&addr) = addrs.first() {
                // A closed stdout is nobody listening for this line.
                let _unheard = peer::announce(addr).is_err();
            }
        })
        .run()?;
    Ok(())
}
