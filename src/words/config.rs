//! What a server can be told: options with their defaults, units and allowed ranges.
