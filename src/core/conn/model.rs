//! Loom models of handles.
