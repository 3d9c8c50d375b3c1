//! `Needle`: a search that sees each byte once, however the bytes come.

use std::sync::Arc;

/// A string of bytes that is searched for (Knuth, Morris and Pratt, "Fast Pattern Matching in
/// Strings", 1977). Clones share their memory.
#[derive(Clone)]
pub(super) struct Needle {
    bytes: Arc<[u8]>,
    /// By a count of bytes that match: how many do still if the next one does not.
    fallback: Arc<[usize]>,
}

impl Needle {
    /// `None` if `bytes` are none.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let mut fallback = vec![0; bytes.len() + 1];
        let mut matched = 0;
        for end in 1..bytes.len() {
            matched = step(bytes, &fallback, matched, bytes[end]);
            fallback[end + 1] = matched;
        }
        Some(Needle { bytes: bytes.into(), fallback: fallback.into() })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Goes on in `haystack`, before which the first `matched` bytes of the needle stood. Answers
    /// where the first occurrence ends, if it does; `matched` is what stands at the end then.
    pub(super) fn search(&self, haystack: &[u8], matched: &mut usize) -> Option<usize> {
        let first = self.bytes[0];
        let mut at = 0;
        while at < haystack.len() {
            if *matched == 0 {
                // Most bytes are no beginning.
                at += haystack[at..].iter().position(|&byte| byte == first)?;
            }
            *matched = step(&self.bytes, &self.fallback, *matched, haystack[at]);
            at += 1;
            if *matched == self.bytes.len() {
                return Some(at);
            }
        }
        None
    }
}

/// How many bytes of the needle match with `next` behind those that did.
fn step(needle: &[u8], fallback: &[usize], mut matched: usize, next: u8) -> usize {
    while matched > 0 && needle[matched] != next {
        matched = fallback[matched];
    }
    matched + usize::from(needle[matched] == next)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 2048 }))]
        #[test]
        fn finds_what_a_plain_search_finds_however_the_bytes_come(
            needle in vec(0u8..2, 1..7),
            haystack in vec(0u8..2, 0..40),
            step in 1usize..9,
        ) {
            let expected = haystack.windows(needle.len()).position(|window| window == needle);
            let needle = Needle::new(&needle).expect("it has bytes");
            let (mut matched, mut before, mut found) = (0, 0, None);
            for piece in haystack.chunks(step) {
                if let Some(end) = needle.search(piece, &mut matched) {
                    found = Some(before + end - needle.bytes().len());
                    break;
                }
                before += piece.len();
            }
            prop_assert_eq!(found, expected);
        }
    }
}
