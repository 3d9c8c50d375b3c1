//! Codecs: how bytes become frames, which there are, and how an own one is written.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/framing.md")]
