//! `Shaper`: what a group of connections may read and write together.

use super::{Rate, check_rate};
use crate::words::bucket::Bucket;
use crate::words::clock::Time;
use crate::words::error::Error;
use crate::words::sync::{Arc, Mutex};

/// A bucket of which several connections take, on several threads.
pub(crate) type SharedBucket = Arc<Mutex<Bucket>>;

/// What a group of connections may read and write together, in bytes.
///
/// A group is whatever shares one: a clone is the same shaper. It is given to connections through
/// [`Listening::shaper`](crate::config::Listening::shaper) and
/// [`Context::join_shaper`](crate::Context::join_shaper). Those that wait are served in turn, a
/// few milliseconds' worth at a time, so that a greedy connection gets no more than its share when
/// others want theirs.
///
/// ```
/// use switchboard::config::{Rate, Shaper};
/// use switchboard::{Error, Raw, Server, handler_fn};
///
/// // All guests together are sent at most 1 MiB per second.
/// let guests = Shaper::new(None, Some(Rate::per_second(1 << 20)))?;
/// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
/// let server = Server::builder()
///     .listen_with("127.0.0.1:0", Raw::new(), echo, move |listener| {
///         listener.shaper = Some(guests);
///     })
///     .start()?;
/// # server.stop();
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Shaper {
    pub(crate) read: Option<SharedBucket>,
    pub(crate) send: Option<SharedBucket>,
}

impl Shaper {
    /// A shaper of its own; `None` is no bound.
    ///
    /// # Errors
    /// [`Error::Config`] if a rate is outside of its range.
    pub fn new(read: Option<Rate>, send: Option<Rate>) -> Result<Self, Error> {
        check_rate("read", read)?;
        check_rate("send", send)?;
        Ok(Shaper::of(read, send))
    }

    /// The same for rates that have been checked.
    pub(crate) fn of(read: Option<Rate>, send: Option<Rate>) -> Self {
        // Full since the beginning of time.
        let shared = |rate| Arc::new(Mutex::new(Bucket::new(rate, Time::ZERO)));
        Shaper { read: read.map(shared), send: send.map(shared) }
    }
}

// A lock of loom's belongs into a model.
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_the_same_shaper_and_what_is_out_of_range_is_refused() {
        let shaper = Shaper::new(Some(Rate::per_second(9)), None).expect("in range");
        let again = shaper.clone();
        let shared = shaper.read.iter().zip(&again.read).all(|(one, two)| Arc::ptr_eq(one, two));
        assert!(shared && shaper.read.is_some() && shaper.send.is_none());
        let said = Shaper::new(None, Some(Rate::per_second(0))).expect_err("out of range");
        assert!(said.to_string().starts_with("`send` is 0"), "{said}");
    }
}
