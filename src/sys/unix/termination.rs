//! Waiting for SIGINT and SIGTERM, by the self-pipe trick.
#![expect(unsafe_code, reason = "sigaction(2) and a signal handler")]

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
// Not `words::sync`: a signal handler may touch real atomics only.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::{fmt, mem, ptr, thread};

use libc::c_int;

use super::check;
use crate::sys::Awoken;

/// Holds SIGINT and SIGTERM for as long as it lives; there is one in a process at a time.
pub(crate) struct Termination {
    // The order of the fields is the order in which they are given back.
    _handlers: [Handler; 2],
    _claim: Claim,
    channel: Arc<Channel>,
}

impl Termination {
    /// Takes the two signals over.
    ///
    /// # Errors
    /// `AlreadyExists` while another one lives; else what the system says.
    pub(crate) fn install() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        let channel = Arc::new(Channel { reader, writer });
        let claim = Claim::take(&channel)?;
        let handlers = [Handler::install(libc::SIGINT)?, Handler::install(libc::SIGTERM)?];
        Ok(Termination { _handlers: handlers, _claim: claim, channel })
    }

    /// Waits for a signal or an interruption, one at a time: a second signal ends a second wait,
    /// and what came before the call ends it at once.
    ///
    /// # Errors
    /// What the system says to reading the pipe; not to be expected.
    pub(crate) fn wait(&self) -> io::Result<Awoken> {
        let mut byte = [0];
        // read_exact() tries again after EINTR, which is what a signal on this thread causes.
        (&self.channel.reader).read_exact(&mut byte)?;
        Ok(match byte[0] == INTERRUPT {
            true => Awoken::Interrupt,
            false => Awoken::Signal,
        })
    }

    /// What ends a wait from another thread; may outlive `self`.
    pub(crate) fn interrupter(&self) -> Interrupter {
        Interrupter { channel: Arc::clone(&self.channel) }
    }
}

impl fmt::Debug for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Termination").finish_non_exhaustive()
    }
}

/// Ends one [`Termination::wait`].
#[derive(Clone, Debug)]
pub(crate) struct Interrupter {
    channel: Arc<Channel>,
}

impl Interrupter {
    /// Ends the wait that runs, or else the next one.
    pub(crate) fn interrupt(&self) {
        // It can fail only if the pipe is full of reasons to wake up, or if nobody waits any more.
        while let Err(error) = (&self.channel.writer).write(&[INTERRUPT]) {
            if error.kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
    }
}

/// The self-pipe: a pair of sockets, because std makes those close-on-exec on every Unix.
#[derive(Debug)]
struct Channel {
    reader: UnixStream,
    writer: UnixStream,
}

/// The right to be the one [`Termination`] of this process.
struct Claim {
    /// Kept until the handler has let go of the descriptor.
    _channel: Arc<Channel>,
}

impl Claim {
    fn take(channel: &Arc<Channel>) -> io::Result<Self> {
        // Acquire, pairs with the Release in `drop`: what the last one gave back is given back.
        if CLAIMED.swap(true, Ordering::Acquire) {
            let message = "another server of this process waits for its signals";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        // SAFETY: a function without conditions.
        let process = unsafe { libc::getpid() };
        // Relaxed: the store to WRITER below publishes it.
        OWNER.store(process, Ordering::Relaxed);
        // SeqCst, pairs with the load in `on_signal`.
        WRITER.store(channel.writer.as_raw_fd(), Ordering::SeqCst);
        Ok(Claim { _channel: Arc::clone(channel) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // SeqCst, both, against `HANDLING += 1; load WRITER` in `on_signal`: either the handler
        // sees that there is no writer, or we see the handler. So it never writes to a number that
        // has become another descriptor. It runs for one write(2) that does not block.
        WRITER.store(NO_WRITER, Ordering::SeqCst);
        while HANDLING.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
        // Release, pairs with the Acquire in `take`.
        CLAIMED.store(false, Ordering::Release);
    }
}

/// One signal that is ours until this is dropped.
struct Handler {
    signal: c_int,
    previous: libc::sigaction,
}

impl Handler {
    fn install(signal: c_int) -> io::Result<Self> {
        let ours: extern "C" fn(c_int) = on_signal;
        // SAFETY: `sigaction` is plain integers and pointers, for which zero is a value.
        let (mut action, mut previous): (libc::sigaction, libc::sigaction) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        action.sa_sigaction = ours as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the pointers are to live locals, and `on_signal` does only what is allowed in a
        // signal handler.
        check(unsafe {
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, &raw mut previous)
        })?;
        Ok(Handler { signal, previous })
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // SAFETY: `previous` is what sigaction(2) itself gave us.
        let result =
            unsafe { libc::sigaction(self.signal, &raw const self.previous, ptr::null_mut()) };
        debug_assert_eq!(result, 0, "what was valid before is valid again");
    }
}

/// Runs in signal context, on any thread, anywhere in its code: atomics, getpid(2) and write(2) are
/// all it may use, and errno must be as before.
extern "C" fn on_signal(_: c_int) {
    let errno = errno_location();
    // SAFETY: the address of this thread's errno, if there is one.
    let saved = (!errno.is_null()).then(|| unsafe { *errno });
    // SeqCst, both: see the drop of `Claim`.
    HANDLING.fetch_add(1, Ordering::SeqCst);
    let writer = WRITER.load(Ordering::SeqCst);
    // A child between fork and exec has our handler and our pipe, but its signals are its own.
    // Relaxed: published by the store to WRITER.
    // SAFETY: getpid() and write() are async-signal-safe; `writer` stays open while HANDLING counts
    // us; a full pipe answers EAGAIN and has signals enough to tell.
    unsafe {
        if writer != NO_WRITER && libc::getpid() == OWNER.load(Ordering::Relaxed) {
            let byte = [SIGNAL];
            libc::write(writer, byte.as_ptr().cast(), byte.len());
        }
    }
    // Release, pairs with the load in the drop of `Claim`: the write is over.
    HANDLING.fetch_sub(1, Ordering::Release);
    if let Some(saved) = saved {
        // SAFETY: as above.
        unsafe { *errno = saved };
    }
}

/// Where this thread's errno is; null where we do not know.
fn errno_location() -> *mut c_int {
    // SAFETY: a function without conditions, which only computes an address.
    #[cfg(any(target_os = "linux", target_os = "dragonfly"))]
    return unsafe { libc::__errno_location() };
    // SAFETY: the same.
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    return unsafe { libc::__error() };
    // SAFETY: the same.
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    return unsafe { libc::__errno() };
    #[cfg(not(any(
        target_os = "linux",
        target_os = "dragonfly",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "android",
        target_os = "netbsd",
        target_os = "openbsd"
    )))]
    return ptr::null_mut();
}

/// Whether a [`Termination`] lives.
static CLAIMED: AtomicBool = AtomicBool::new(false);
/// The process that it belongs to.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// The descriptor that the handler writes to.
static WRITER: AtomicI32 = AtomicI32::new(NO_WRITER);
/// How many threads are inside the handler.
static HANDLING: AtomicUsize = AtomicUsize::new(0);

const NO_WRITER: c_int = -1;
const SIGNAL: u8 = b's';
const INTERRUPT: u8 = b'i';

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::sync::{Mutex, lock};

    /// Signals belong to the whole process, so their tests take turns.
    static TURN: Mutex<()> = Mutex::new(());

    fn raise(signal: c_int) {
        // SAFETY: a handler is installed, so this does not end the process.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    fn handler_of(signal: c_int) -> usize {
        // SAFETY: zero is a value of the struct, and the pointer is to a live local.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            assert_eq!(libc::sigaction(signal, ptr::null(), &raw mut action), 0);
            action.sa_sigaction
        }
    }

    #[test]
    fn each_signal_ends_one_wait() {
        let _turn = lock(&TURN);
        let termination = Termination::install().unwrap();
        raise(libc::SIGTERM);
        assert_eq!(termination.wait().unwrap(), Awoken::Signal);
        raise(libc::SIGINT);
        raise(libc::SIGTERM);
        assert_eq!(termination.wait().unwrap(), Awoken::Signal);
        assert_eq!(termination.wait().unwrap(), Awoken::Signal);
        termination.interrupter().interrupt();
        assert_eq!(termination.wait().unwrap(), Awoken::Interrupt, "and no signal is left over");
    }

    #[test]
    fn a_signal_is_taken_on_the_waiting_thread_too() {
        let _turn = lock(&TURN);
        let termination = Termination::install().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| termination.wait());
            // SAFETY: getpid() cannot fail; the signal goes to any thread of ours, and is handled.
            assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGTERM) }, 0);
            assert_eq!(waiting.join().unwrap().unwrap(), Awoken::Signal);
        });
    }

    #[test]
    fn an_interruption_is_sticky_and_may_come_late() {
        let _turn = lock(&TURN);
        let termination = Termination::install().unwrap();
        let interrupter = termination.interrupter();
        interrupter.interrupt();
        assert_eq!(termination.wait().unwrap(), Awoken::Interrupt);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| termination.wait());
            interrupter.interrupt();
            assert_eq!(waiting.join().unwrap().unwrap(), Awoken::Interrupt);
        });
        drop(termination);
        interrupter.interrupt();
    }

    #[test]
    fn there_is_one_at_a_time_and_handlers_come_back() {
        let _turn = lock(&TURN);
        let before = (handler_of(libc::SIGINT), handler_of(libc::SIGTERM));
        let first = Termination::install().unwrap();
        assert_ne!(before.0, handler_of(libc::SIGINT));
        assert_ne!(before.1, handler_of(libc::SIGTERM));
        let second = Termination::install().unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        drop(first);
        assert_eq!(before, (handler_of(libc::SIGINT), handler_of(libc::SIGTERM)));
        drop(Termination::install().unwrap());
    }

    #[test]
    fn a_full_pipe_neither_blocks_a_signal_nor_changes_errno() {
        let _turn = lock(&TURN);
        let termination = Termination::install().unwrap();
        let interrupter = termination.interrupter();
        while (&interrupter.channel.writer).write(&[INTERRUPT; 4096]).is_ok() {}
        // SAFETY: errno of this thread, read and written by nobody else.
        unsafe {
            *errno_location() = libc::EDOM;
            libc::raise(libc::SIGTERM);
            assert_eq!(*errno_location(), libc::EDOM);
        }
        interrupter.interrupt();
        assert_eq!(termination.wait().unwrap(), Awoken::Interrupt);
    }
}
