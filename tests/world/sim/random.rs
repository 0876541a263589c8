//! Random numbers from a seed, the same on every machine and in every version of every package: a kept case must play
//! as it did when it was found.

use noray::core::id::Random;

/// A generator (wyrand). Each part of the world has its own, so that removing one part changes no other's numbers.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of the part `number` of the world with that seed.
    pub fn of(seed: u64, part: &str, number: u64) -> Self {
        let start = part.bytes().map(u64::from).chain([number]).fold(seed, mix);
        Self(mix(start, 1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `in_thousand` of a thousand times.
    pub fn is_hit(&mut self, in_thousand: u16) -> bool {
        in_thousand > 0 && self.below(1000) < u64::from(in_thousand)
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

impl Random for Rng {
    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}

/// Adds a number to a running hash.
pub fn mix(hash: u64, number: u64) -> u64 {
    let product = u128::from(hash ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product >> 64) as u64 ^ product as u64
}
