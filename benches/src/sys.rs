//! Every libc call and every `unsafe` block of this package: epoll, non-blocking socket calls,
//! the thread CPU clock, limits and signals.
#![expect(unsafe_code, reason = "the one module that calls libc")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

pub use libc::epoll_event as Event;

/// Readable, or the peer has sent its FIN; an edge per arrival.
pub const READ_EDGE: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// Writable, in addition to another interest.
pub const WRITE: u32 = libc::EPOLLOUT as u32;
/// Urgent data: a short read may have stopped at the mark.
pub const URGENT: u32 = libc::EPOLLPRI as u32;
/// Bits after which a short read does not mean "drained": there is an end or a mark to be read.
pub const ENDING: u32 =
    (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI) as u32;

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// A new instance, closed on exec.
    ///
    /// # Errors
    /// What `epoll_create1` reports.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` is a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Registers a descriptor. It leaves the instance when its last duplicate is closed.
    ///
    /// # Errors
    /// What `epoll_ctl` reports.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd().as_raw_fd(), token, interest)
    }

    /// Changes the interest of a registered descriptor, which also re-arms its edge.
    ///
    /// # Errors
    /// What `epoll_ctl` reports.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd().as_raw_fd(), token, interest)
    }

    /// Waits without a deadline. An interrupted wait reports no events.
    ///
    /// # Errors
    /// What `epoll_wait` reports, save `EINTR`.
    pub fn wait(&self, events: &mut [Event]) -> io::Result<usize> {
        // SAFETY: the pointer and the length describe one live, exclusively borrowed slice.
        let count = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), event_max(events), -1)
        };
        event_count(count)
    }

    /// Waits for at most so many nanoseconds (`epoll_pwait2`, Linux 5.11: a millisecond is far
    /// too coarse for a schedule of 20,000 messages a second).
    ///
    /// # Errors
    /// What `epoll_pwait2` reports, save `EINTR`.
    pub fn wait_for(&self, events: &mut [Event], nanoseconds: u64) -> io::Result<usize> {
        let timeout = libc::timespec {
            tv_sec: (nanoseconds / 1_000_000_000) as i64,
            tv_nsec: (nanoseconds % 1_000_000_000) as i64,
        };
        // SAFETY: the slice is live and exclusively borrowed, the timeout lives through the call,
        // a null signal mask means "leave the mask alone".
        let count = unsafe {
            libc::epoll_pwait2(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                event_max(events),
                &raw const timeout,
                ptr::null(),
            )
        };
        event_count(count)
    }

    fn control(&self, operation: i32, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        let mut event = Event { events: interest, u64: token };
        // SAFETY: `event` lives through the call; bad descriptors are answered with an error.
        let result = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) };
        check(result).map(drop)
    }
}

/// A zeroed event, to fill arrays with.
#[must_use]
pub fn no_event() -> Event {
    Event { events: 0, u64: 0 }
}

/// Receives what is there, without blocking even on a blocking socket.
///
/// # Errors
/// What `recv` reports, save `EINTR`, which is retried.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and the length describe one live, exclusively borrowed slice.
        let count = unsafe {
            libc::recv(
                fd.as_fd().as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        if let Some(result) = finished(count) {
            return result;
        }
    }
}

/// Sends what fits, without blocking even on a blocking socket and without SIGPIPE.
///
/// # Errors
/// What `send` reports, save `EINTR`, which is retried.
pub fn send(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and the length describe one live slice.
        let count = unsafe {
            libc::send(
                fd.as_fd().as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if let Some(result) = finished(count) {
            return result;
        }
    }
}

/// Accepts one connection: non-blocking, closed on exec, its address not asked for.
///
/// # Errors
/// What `accept4` reports.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null pointers mean that the address is not wanted.
    let result = unsafe {
        libc::accept4(listener.as_fd().as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags)
    };
    let fd = check(result)?;
    // SAFETY: `fd` is a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Disables Nagle's algorithm on a bare descriptor.
///
/// # Errors
/// What `setsockopt` reports.
pub fn set_nodelay(fd: impl AsFd) -> io::Result<()> {
    set_flag(fd.as_fd().as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY)
}

/// Lets `bind` fix the source address only; the port is chosen at `connect`, where the whole
/// quadruple counts, so that each source address has the full port range.
///
/// # Errors
/// What `setsockopt` reports.
pub fn set_bind_address_no_port(fd: impl AsFd) -> io::Result<()> {
    set_flag(fd.as_fd().as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// Sends our FIN and keeps reading.
///
/// # Errors
/// What `shutdown` reports.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers; the borrow keeps the descriptor open.
    check(unsafe { libc::shutdown(fd.as_fd().as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

/// CPU time this thread has used, in nanoseconds.
#[must_use]
pub fn thread_cpu() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live out-parameter. The clock exists on every Linux, so the call cannot
    // fail; if it did, time would stand at 0.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The unit of the CPU times in `/proc/PID/stat`, per second.
#[must_use]
pub fn ticks_per_second() -> u64 {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}

/// Raises the soft limit of open files to the hard one; children inherit it.
///
/// # Errors
/// What `getrlimit` or `setrlimit` report.
pub fn raise_file_limit() -> io::Result<()> {
    // SAFETY: a C struct of integers; all zeroes are a valid value.
    let mut limit: libc::rlimit = unsafe { mem::zeroed() };
    // SAFETY: `limit` is a live out-parameter.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Asks for timers of this thread that are not rounded up by the default 50 µs of slack.
pub fn sharpen_timers() {
    let one_nanosecond: libc::c_ulong = 1;
    // SAFETY: no pointers. A refusal leaves the default slack, which is only less precise.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, one_nanosecond) };
}

/// Makes the kernel end the child when the thread that starts it ends, however it ends.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and calls prctl only, which is
    // async-signal-safe; it touches no memory of the parent.
    unsafe {
        command.pre_exec(|| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)).map(drop))
    };
}

/// Sends SIGINT to a process that the caller has started and not yet waited for.
///
/// # Errors
/// What `kill` reports.
pub fn interrupt(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, libc::SIGINT) }).map(drop)
}

fn set_flag(fd: RawFd, level: i32, name: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a live `c_int` and 4 is its size.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const on).cast(), 4) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn event_max(events: &[Event]) -> i32 {
    i32::try_from(events.len()).unwrap_or(i32::MAX)
}

fn event_count(count: i32) -> io::Result<usize> {
    match check(count) {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// The outcome of a call that moved bytes; `None` when a signal interrupted it.
fn finished(count: isize) -> Option<io::Result<usize>> {
    if let Ok(count) = usize::try_from(count) {
        return Some(Ok(count));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { None } else { Some(Err(error)) }
}
