//! What was run on which platform, and what came of it.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/platforms.md")]
#![doc = ""]
#![doc = include_str!("../../../docs/platforms.md")]
