//! Why a connection ended: whose doing it was, in which phase, and what was lost.
