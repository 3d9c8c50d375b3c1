//! `Pressure`: how short the server is of what its connections use, in four levels.

/// How short the server is of descriptors or memory. A higher level gives up more to stay up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Pressure {
    /// Nothing is short.
    #[default]
    Calm,
    /// The first signs: what is held for comfort goes.
    Raised,
    /// Short: only what is needed is held.
    High,
    /// Nearly out: what may be given up is given up.
    Critical,
}

impl Pressure {
    /// Every level, the lowest first.
    pub(crate) const ALL: [Pressure; 4] =
        [Pressure::Calm, Pressure::Raised, Pressure::High, Pressure::Critical];

    /// The level as a number, from 0 to 3.
    pub(crate) const fn level(self) -> u32 {
        match self {
            Pressure::Calm => 0,
            Pressure::Raised => 1,
            Pressure::High => 2,
            Pressure::Critical => 3,
        }
    }
}
