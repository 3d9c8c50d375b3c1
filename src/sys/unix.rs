//! What Unix systems supply, with the differences between them.
#![expect(unsafe_code, reason = "calls that neither std nor socket2 has")]

mod termination;

use std::io;
use std::time::Duration;

use libc::c_int;
use mio::Interest;
use socket2::{Socket, TcpKeepalive};

pub(crate) use self::termination::Termination;
use super::accept::AcceptFault::{self, Again, Exhausted, Fatal, Next};
use super::listen::Keepalive;

/// The codes of accept(2). Linux hands errors of the waiting connection through it ("detect the
/// network errors defined for the protocol after accept() and treat them like EAGAIN by
/// retrying"), and its firewall says EPERM.
pub(super) const ACCEPT_FAULTS: &[(i32, AcceptFault)] = &[
    (libc::EAGAIN, Again),
    (libc::EWOULDBLOCK, Again),
    (libc::EINTR, Next),
    (libc::ECONNABORTED, Next),
    (libc::ECONNRESET, Next),
    (libc::EPROTO, Next),
    (libc::EPERM, Next),
    (libc::ENETDOWN, Next),
    (libc::ENOPROTOOPT, Next),
    (libc::EHOSTDOWN, Next),
    (libc::EHOSTUNREACH, Next),
    (libc::EOPNOTSUPP, Next),
    (libc::ENETUNREACH, Next),
    (libc::ETIMEDOUT, Next),
    #[cfg(target_os = "linux")]
    (libc::ENONET, Next),
    (libc::EMFILE, Exhausted),
    (libc::ENFILE, Exhausted),
    (libc::ENOBUFS, Exhausted),
    (libc::ENOMEM, Exhausted),
    (libc::EBADF, Fatal),
    (libc::EINVAL, Fatal),
    (libc::ENOTSOCK, Fatal),
    (libc::EFAULT, Fatal),
];

/// Whether mio stands on epoll here.
const EPOLL: bool = cfg!(all(
    any(target_os = "linux", target_os = "android"),
    not(mio_unsupported_force_poll_poll)
));

/// True on epoll: it tells of fresh bytes after a short read as well as after `WouldBlock`.
pub(super) const SHORT_READ_DRAINS: bool = EPOLL;

/// Input, and on epoll urgent input too: recv(2) stops short before the urgent mark, and then a
/// short read proves nothing. poll(2) needs no such hint (there every read goes on to
/// `WouldBlock`), and would tell of one urgent byte without end.
pub(super) fn input_interest() -> Interest {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if EPOLL {
        return Interest::READABLE | Interest::PRIORITY;
    }
    Interest::READABLE
}

/// A peer that is gone must not raise SIGPIPE; Apple has an option of the socket for it.
#[cfg(not(target_vendor = "apple"))]
pub(super) const SEND_FLAGS: c_int = libc::MSG_NOSIGNAL;
/// See [`set_no_sigpipe`].
#[cfg(target_vendor = "apple")]
pub(super) const SEND_FLAGS: c_int = 0;

/// True on Linux (tested below). The BSDs and Apple hand down most options, but which ones differs
/// between versions.
pub(super) const ACCEPTED_INHERIT: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether sockets that share a port share its connections too. On the BSDs and Apple the last one
/// to listen gets all of them.
pub(crate) const REUSE_PORT_BALANCES: bool = cfg!(target_os = "linux");

/// Lets a new server listen while connections of the old one are in TIME_WAIT.
pub(super) fn set_reuse_address(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

#[cfg(not(any(target_os = "solaris", target_os = "illumos")))]
pub(super) fn set_reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(any(target_os = "solaris", target_os = "illumos"))]
pub(super) fn set_reuse_port(_: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn set_user_timeout(socket: &Socket, timeout: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(timeout))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn set_user_timeout(_: &Socket, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Turns keep-alive on, with those of its numbers that the system lets us choose.
pub(super) fn set_keepalive(socket: &Socket, keepalive: &Keepalive) -> io::Result<()> {
    let params = TcpKeepalive::new().with_time(keepalive.idle);
    #[cfg(not(any(
        target_os = "openbsd",
        target_os = "redox",
        target_os = "solaris",
        target_os = "nto",
        target_os = "haiku",
        target_os = "aix",
        target_os = "hurd"
    )))]
    let params = params.with_interval(keepalive.interval).with_retries(keepalive.count);
    socket.set_tcp_keepalive(&params)
}

/// What [`SEND_FLAGS`] does elsewhere.
#[cfg(target_vendor = "apple")]
pub(super) fn set_no_sigpipe(socket: &Socket) -> io::Result<()> {
    socket.set_nosigpipe(true)
}

#[cfg(not(target_vendor = "apple"))]
pub(super) fn set_no_sigpipe(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// For a listening socket, TCP_INFO tells the length of its queue and the limit of that.
#[cfg(target_os = "linux")]
pub(super) fn tcp_queue(listener: &Socket) -> io::Result<(u32, u32)> {
    use std::os::fd::AsRawFd;

    // The head of `struct tcp_info`: eight bytes, then words of 32 bits: rto, ato, snd_mss,
    // rcv_mss, unacked (here: the queue), sacked (here: its limit). The kernel cuts at our length.
    let mut info = [0u32; 8];
    #[expect(clippy::cast_possible_truncation, reason = "32 bytes")]
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the pointers are to live locals, and `length` is the size of the first.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(result)?;
    // qemu-user (7.2) tells four bytes.
    if length as usize != size_of_val(&info) {
        let message = "TCP_INFO is too short to tell of a queue";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    Ok((info[6], info[7]))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn tcp_queue(_: &Socket) -> io::Result<(u32, u32)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How many descriptors this process may have open (the soft RLIMIT_NOFILE).
pub(crate) fn descriptor_limit() -> Option<u64> {
    limits().ok().map(|limits| to_u64(limits.rlim_cur))
}

/// Lets this process have as many descriptors as its owner may allow it, and says how many.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    let limits = limits().ok()?;
    if limits.rlim_cur != limits.rlim_max {
        // Apple's kernel refuses more than OPEN_MAX if the hard limit is infinite.
        let raised = set_soft_limit(&limits, limits.rlim_max);
        if raised.is_err() && cfg!(target_vendor = "apple") && to_u64(limits.rlim_cur) < 10_240 {
            // What cannot be raised stays as it is; the limit in force is the answer below.
            let _kept = set_soft_limit(&limits, 10_240).is_err();
        }
    }
    descriptor_limit()
}

/// How much memory the machine has, in bytes. A container may be given less.
pub(crate) fn memory_total() -> Option<u64> {
    // SAFETY: both calls take a number and answer with one; an unknown name answers -1.
    let (pages, size) =
        unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    let pages = u64::try_from(pages).ok().filter(|&pages| pages > 0)?;
    pages.checked_mul(u64::try_from(size).ok()?)
}

fn limits() -> io::Result<libc::rlimit> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live local.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) })?;
    Ok(limits)
}

fn set_soft_limit(limits: &libc::rlimit, soft: libc::rlim_t) -> io::Result<()> {
    let limits = libc::rlimit { rlim_cur: soft, rlim_max: limits.rlim_max };
    // SAFETY: the pointer is to a live local.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) })
}

/// What stands for no limit is `i64::MAX` on some systems, and `u32::MAX` on those of 32 bits.
fn to_u64(limit: libc::rlim_t) -> u64 {
    if limit == libc::RLIM_INFINITY { u64::MAX } else { widened(limit) }
}

/// `rlim_t` is signed on some systems and has 32 bits on others.
fn widened(limit: impl TryInto<u64>) -> u64 {
    limit.try_into().unwrap_or(u64::MAX)
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_some_memory() {
        assert!(memory_total().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn the_descriptor_limit_goes_up_to_the_hard_one() {
        let before = descriptor_limit().unwrap();
        let raised = raise_descriptor_limit().unwrap();
        assert!(raised >= before && before > 0);
        assert_eq!(descriptor_limit(), Some(raised));
        if !cfg!(target_vendor = "apple") {
            assert_eq!(raised, to_u64(limits().unwrap().rlim_max));
        }
    }

    #[test]
    fn endless_limits_are_the_greatest_number() {
        assert_eq!(to_u64(libc::RLIM_INFINITY), u64::MAX);
        assert_eq!(widened(-1i64), u64::MAX);
    }
}
