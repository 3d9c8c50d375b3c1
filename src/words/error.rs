//! What a set-up call answers when it fails: what was tried, on which address, and why.
