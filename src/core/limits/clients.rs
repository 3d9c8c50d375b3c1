//! `Clients`: how many connections each client has, where a client is a network of addresses.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
#[cfg(any(test, feature = "sim"))]
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::words::sync::atomic::{AtomicUsize, Ordering};
use crate::words::sync::{Mutex, lock};

/// The counts of all clients that have a connection, and the most that each may have.
///
/// There is an entry for a client while it has a counted connection and no longer: never more
/// entries than connections. The hash is SipHash under a key that nobody outside knows, so that no
/// choice of addresses makes the table slow.
#[derive(Debug)]
pub(crate) struct Clients {
    prefixes: Prefixes,
    /// 0: there is no maximum, and nobody is counted. Relaxed: it guards nothing, and a change of
    /// it holds from some accept on.
    max: AtomicUsize,
    keys: Keys,
    /// By the client's hash, so that reactors seldom meet in one.
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<IpAddr, u32, Keys>;

/// How many leading bits of an address make a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefixes {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

/// Where the keys of the hash come from.
#[derive(Clone, Debug)]
enum Keys {
    Random(RandomState),
    #[cfg(any(test, feature = "sim"))]
    Fixed(BuildHasherDefault<DefaultHasher>),
}

const SHARDS: usize = 16;
/// A shard that has room for fewer keeps it.
const SHRINK_ABOVE: usize = 64;

impl Clients {
    /// Nobody yet.
    pub(crate) fn new(prefixes: Prefixes, max: Option<usize>) -> Self {
        Self::with_keys(prefixes, max, Keys::Random(RandomState::new()))
    }

    /// The same with keys that are the same every time, for a world that a number describes.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn predictable(prefixes: Prefixes, max: Option<usize>) -> Self {
        Self::with_keys(prefixes, max, Keys::Fixed(BuildHasherDefault::default()))
    }

    fn with_keys(prefixes: Prefixes, max: Option<usize>, keys: Keys) -> Self {
        let shard = |_| Mutex::new(HashMap::with_hasher(keys.clone()));
        let shards = (0..SHARDS).map(shard).collect();
        Clients { prefixes, max: AtomicUsize::new(max.unwrap_or(0)), keys, shards }
    }

    /// Changes the maximum. Connections that are there stay; those that came while there was none
    /// are not counted.
    pub(super) fn set_max(&self, max: Option<usize>) {
        self.max.store(max.unwrap_or(0), Ordering::Relaxed);
    }

    /// How many each may have; 0 if that does not matter, and nobody is counted.
    pub(super) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// One more connection from `ip`; false if its client has as many as it may.
    pub(super) fn try_add(&self, ip: IpAddr) -> bool {
        let max = self.max();
        let client = self.client(ip);
        let mut shard = lock(self.shard(client));
        let count = shard.get(&client).copied().unwrap_or(0);
        let has_room = usize::try_from(count).is_ok_and(|count| count < max);
        if has_room {
            shard.insert(client, count + 1);
        }
        has_room
    }

    /// One less; the last one takes the entry with it.
    pub(super) fn sub(&self, ip: IpAddr) {
        let client = self.client(ip);
        let mut shard = lock(self.shard(client));
        match shard.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                if !cfg!(switchboard_sim_mutant = "client_kept") {
                    shard.remove(&client);
                }
                if shard.capacity() > SHRINK_ABOVE && shard.len() < shard.capacity() / 8 {
                    shard.shrink_to_fit();
                }
            }
            None => debug_assert!(false, "what was counted is taken off once"),
        }
    }

    /// The network that stands for the client with this address.
    pub(super) fn client(&self, ip: IpAddr) -> IpAddr {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefixes.v4)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefixes.v6)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
        }
    }

    /// Clients that have a counted connection, and how many they have together.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn totals(&self) -> (usize, usize) {
        let each = self.shards.iter().map(lock);
        each.fold((0, 0), |(clients, connections), shard| {
            let here: u32 = shard.values().sum();
            (clients + shard.len(), connections + here as usize)
        })
    }

    fn shard(&self, client: IpAddr) -> &Mutex<Shard> {
        // Other bits than those by which the map tells its entries apart.
        let hash = self.keys.hash_one(client).rotate_left(32) % SHARDS as u64;
        &self.shards[usize::try_from(hash).unwrap_or(0)]
    }
}

impl BuildHasher for Keys {
    type Hasher = <RandomState as BuildHasher>::Hasher;

    fn build_hasher(&self) -> Self::Hasher {
        match self {
            Keys::Random(keys) => keys.build_hasher(),
            #[cfg(any(test, feature = "sim"))]
            Keys::Fixed(keys) => keys.build_hasher(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const USUAL: Prefixes = Prefixes { v4: 32, v6: 64 };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_is_an_address_of_version_four_or_a_network_of_version_six() {
        let clients = Clients::new(USUAL, Some(1));
        let same = |one, other| clients.client(ip(one)) == clients.client(ip(other));
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!same("127.0.0.1", "127.0.0.2"));
        assert!(same("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(!same("::ffff:127.0.0.1", "::ffff:127.0.0.2"));
        let broad = Clients::new(Prefixes { v4: 24, v6: 0 }, Some(1));
        assert_eq!(broad.client(ip("10.1.2.3")), ip("10.1.2.0"));
        assert_eq!(broad.client(ip("fe80::1")), ip("::"));
        let one = Clients::new(Prefixes { v4: 0, v6: 128 }, Some(1));
        assert_eq!(one.client(ip("10.1.2.3")), ip("0.0.0.0"));
        assert_eq!(one.client(ip("fe80::1")), ip("fe80::1"));
    }

    #[test]
    fn a_thousand_addresses_of_one_network_are_one_client() {
        let clients = Clients::new(USUAL, Some(7));
        let addr = |n: u128| IpAddr::V6(Ipv6Addr::from_bits((0xfd00 << 112) | n));
        assert_eq!((0..1_000).filter(|&n| clients.try_add(addr(n))).count(), 7);
        assert_eq!(clients.totals(), (1, 7));
        assert!(clients.try_add(addr(1 << 64)));
        clients.sub(addr(999));
        assert!(clients.try_add(addr(5_000)) && !clients.try_add(addr(0)));
    }

    #[test]
    fn a_table_that_was_large_gives_its_memory_back() {
        let clients = Clients::predictable(USUAL, Some(1));
        let addr = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
        assert!((0..50_000).all(|n| clients.try_add(addr(n))));
        (0..50_000).for_each(|n| clients.sub(addr(n)));
        assert_eq!(clients.totals(), (0, 0));
        let kept: usize = clients.shards.iter().map(|shard| lock(shard).capacity()).sum();
        assert!(kept <= SHARDS * SHRINK_ABOVE, "{kept}");
    }

    /// An address of few networks, of all kinds.
    fn some_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0..4_u32, 0..3_u32).prop_map(|(a, b)| Ipv4Addr::from_bits((a << 8) | b).into()),
            (0..4_u32, 0..3_u32)
                .prop_map(|(a, b)| Ipv4Addr::from_bits((a << 8) | b).to_ipv6_mapped().into()),
            (0..4_u128, 0..3_u128)
                .prop_map(|(a, b)| Ipv6Addr::from_bits((0xfd << 120) | (a << 64) | b).into()),
        ]
    }

    /// What `client` is to compute, bit by bit.
    fn network(ip: IpAddr, prefixes: Prefixes) -> (bool, Vec<bool>) {
        let (bits, width, kept) = match ip.to_canonical() {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32, prefixes.v4),
            IpAddr::V6(ip) => (ip.to_bits(), 128, prefixes.v6),
        };
        let bit = |at: u8| (bits >> (width - 1 - at)) & 1 == 1;
        (width == 32, (0..kept).map(bit).collect())
    }

    proptest! {
        #[test]
        fn it_counts_as_a_map_does(
            v4 in 0..=32_u8,
            v6 in 0..=128_u8,
            max in 1..4_usize,
            steps in vec((some_ip(), any::<bool>()), 0..200),
        ) {
            let prefixes = Prefixes { v4, v6 };
            let clients = Clients::new(prefixes, Some(max));
            let mut oracle = BTreeMap::<_, Vec<IpAddr>>::new();
            for (ip, comes) in steps {
                let held = oracle.entry(network(ip, prefixes)).or_default();
                if comes {
                    let expected = held.len() < max;
                    prop_assert_eq!(clients.try_add(ip), expected);
                    if expected {
                        held.push(ip);
                    }
                } else if let Some(ip) = held.pop() {
                    clients.sub(ip);
                }
                let there = oracle.values().filter(|held| !held.is_empty()).count();
                let all = oracle.values().map(Vec::len).sum();
                prop_assert_eq!(clients.totals(), (there, all));
            }
        }
    }
}
