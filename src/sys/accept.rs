//! What an error of `accept` means: for the next connection, for this listener, for the process.

use std::io;

use super::backend;

/// What an error of `accept` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptFault {
    /// Nothing waits; there will be an event when something does.
    Again,
    /// The connection at the head of the queue was lost; the next one may be sound.
    Next,
    /// Descriptors or memory are used up: the queue waits, and accepting has to pause.
    Exhausted,
    /// The listener itself is broken and will never accept again.
    Fatal,
}

/// Says what an error of `accept` means.
///
/// `io::ErrorKind` cannot tell these apart (EMFILE and EPROTO have no kind), so the system's code
/// decides. A code that no table names is taken for a fault of one connection: a listener must not
/// die of something nobody foresaw. The caller bounds how many of those it takes in one go.
pub(crate) fn classify_accept(error: &io::Error) -> AcceptFault {
    let Some(code) = error.raw_os_error() else {
        return match error.kind() == io::ErrorKind::WouldBlock {
            true => AcceptFault::Again,
            false => AcceptFault::Next,
        };
    };
    let known = backend::ACCEPT_FAULTS.iter().find(|(known, _)| *known == code);
    known.map_or(AcceptFault::Next, |(_, fault)| *fault)
}

/// The codes that are known to mean `fault` here; for a kernel that makes them up.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn accept_codes(fault: AcceptFault) -> impl Iterator<Item = i32> {
    backend::ACCEPT_FAULTS.iter().filter(move |row| row.1 == fault).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::AcceptFault::{Again, Exhausted, Fatal, Next};
    use super::*;

    #[cfg(unix)]
    const ROWS: &[(&str, i32, AcceptFault)] = &[
        ("EAGAIN", libc::EAGAIN, Again),
        ("EWOULDBLOCK", libc::EWOULDBLOCK, Again),
        ("EINTR", libc::EINTR, Next),
        ("ECONNABORTED", libc::ECONNABORTED, Next),
        ("ECONNRESET", libc::ECONNRESET, Next),
        ("EPROTO", libc::EPROTO, Next),
        ("EPERM", libc::EPERM, Next),
        ("ENETDOWN", libc::ENETDOWN, Next),
        ("ENOPROTOOPT", libc::ENOPROTOOPT, Next),
        ("EHOSTDOWN", libc::EHOSTDOWN, Next),
        ("EHOSTUNREACH", libc::EHOSTUNREACH, Next),
        ("EOPNOTSUPP", libc::EOPNOTSUPP, Next),
        ("ENETUNREACH", libc::ENETUNREACH, Next),
        ("ETIMEDOUT", libc::ETIMEDOUT, Next),
        #[cfg(target_os = "linux")]
        ("ENONET", libc::ENONET, Next),
        ("EMFILE", libc::EMFILE, Exhausted),
        ("ENFILE", libc::ENFILE, Exhausted),
        ("ENOBUFS", libc::ENOBUFS, Exhausted),
        ("ENOMEM", libc::ENOMEM, Exhausted),
        ("EBADF", libc::EBADF, Fatal),
        ("EINVAL", libc::EINVAL, Fatal),
        ("ENOTSOCK", libc::ENOTSOCK, Fatal),
        ("EFAULT", libc::EFAULT, Fatal),
        ("unknown", 4095, Next),
    ];

    #[cfg(windows)]
    const ROWS: &[(&str, i32, AcceptFault)] = &[
        ("WSAEWOULDBLOCK", 10035, Again),
        ("WSAEINTR", 10004, Next),
        ("WSAECONNRESET", 10054, Next),
        ("WSAECONNABORTED", 10053, Next),
        ("WSAENETDOWN", 10050, Next),
        ("WSAENETUNREACH", 10051, Next),
        ("WSAENETRESET", 10052, Next),
        ("WSAETIMEDOUT", 10060, Next),
        ("WSAEHOSTDOWN", 10064, Next),
        ("WSAEHOSTUNREACH", 10065, Next),
        ("WSAEMFILE", 10024, Exhausted),
        ("WSAENOBUFS", 10055, Exhausted),
        ("WSA_NOT_ENOUGH_MEMORY", 8, Exhausted),
        ("WSAEBADF", 10009, Fatal),
        ("WSAEFAULT", 10014, Fatal),
        ("WSAEINVAL", 10022, Fatal),
        ("WSAENOTSOCK", 10038, Fatal),
        ("WSAEOPNOTSUPP", 10045, Fatal),
        ("WSANOTINITIALISED", 10093, Fatal),
        ("unknown", 4095, Next),
    ];

    #[test]
    fn every_code_is_classified() {
        for (name, code, fault) in ROWS {
            let error = io::Error::from_raw_os_error(*code);
            assert_eq!(classify_accept(&error), *fault, "{name}");
        }
    }

    #[test]
    fn errors_without_a_code_never_end_a_listener() {
        assert_eq!(classify_accept(&io::ErrorKind::WouldBlock.into()), Again);
        assert_eq!(classify_accept(&io::ErrorKind::InvalidInput.into()), Next);
    }

    #[test]
    fn the_system_itself_gives_these_codes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let empty = listener.accept().unwrap_err();
        assert_eq!(classify_accept(&empty), Again, "{empty}");

        let kinds = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let deaf = socket2::Socket::new(kinds.0, kinds.1, None).unwrap();
        let deaf = std::net::TcpListener::from(deaf).accept().unwrap_err();
        assert_eq!(classify_accept(&deaf), Fatal, "{deaf}");
    }
}
