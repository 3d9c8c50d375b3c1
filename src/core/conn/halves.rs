//! The two directions of a connection; each has a life of its own.

/// What may still come from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvHalf {
    /// More input may come.
    Open,
    /// The peer has finished.
    Finished,
}

/// What may still go to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendHalf {
    /// More output may be queued.
    Open,
    /// Nothing more may be queued; FIN follows what is.
    Finishing,
    /// FIN is sent.
    Closed,
}
