//! Bytes for ids, the same in every run.

use noray::core::id::Random;

pub(crate) struct Repeatable(u8);

impl Repeatable {
    pub(crate) fn new() -> Self {
        Self(1)
    }
}

impl Random for Repeatable {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            // A generator of full period, whose higher bits repeat last.
            self.0 = self.0.wrapping_mul(5).wrapping_add(71);
            *byte = self.0 ^ (self.0 >> 3);
        }
    }
}
