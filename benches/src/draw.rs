//! Which key is asked for next: the same sequence in every run.

/// Skew of the usual key-value benchmarks (YCSB): the hottest key of a million gets a fifteenth of the requests.
const SKEW: f64 = 0.99;

/// A small generator of numbers that look random: SplitMix64.
#[derive(Clone, Debug)]
pub struct Draw(u64);

// === impl Draw ===

impl Draw {
    /// The sequence of this number.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// One of `0..below`.
    pub fn below(&mut self, below: usize) -> usize {
        (self.unit() * below as f64) as usize
    }

    /// Between 0 and 1.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `many` of `0..keys`, each as likely as any other.
    pub fn uniform(&mut self, keys: usize, many: usize) -> Vec<usize> {
        (0..many).map(|_| self.below(keys)).collect()
    }

    /// `many` of `0..keys` after Zipf's law; which keys are the hot ones is drawn too.
    pub fn zipf(&mut self, keys: usize, many: usize) -> Vec<usize> {
        let mut up_to = Vec::with_capacity(keys);
        let mut sum = 0.0;
        for rank in 1..=keys {
            sum += (rank as f64).powf(-SKEW);
            up_to.push(sum);
        }
        let mut names: Vec<usize> = (0..keys).collect();
        for at in (1..keys).rev() {
            names.swap(at, self.below(at + 1));
        }
        let rank = |at: f64| up_to.partition_point(|&end| end < at).min(keys - 1);
        (0..many).map(|_| names[rank(self.unit() * sum)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_asks_for_few_keys_often_and_for_all_within_bounds() {
        let drawn = Draw::new(1).zipf(1_000, 20_000);
        let mut counts = vec![0; 1_000];
        drawn.iter().for_each(|&key| counts[key] += 1);
        counts.sort_unstable();
        let hottest: i32 = counts[990..].iter().sum();
        assert!((6_000..10_000).contains(&hottest), "{hottest}");
    }
}
