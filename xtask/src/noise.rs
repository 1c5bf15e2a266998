//! Numbers that look random and are the same on every machine.

/// xorshift64*: good enough to defeat compression, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    /// The numbers of `seed`, which is not 0.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 .. limit.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit.max(1)
    }
}
