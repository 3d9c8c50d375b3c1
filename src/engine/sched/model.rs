//! Loom models of the lease, the deep sleep, the pool and the mailbox.
