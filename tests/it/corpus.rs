//! The fuzz targets, run on their kept inputs and on a few thousand others that are derived from them.

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn the_corpus_and_its_neighbours_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(corpus.join(name))
            .unwrap_or_else(|error| panic!("no corpus for {name}: {error}"))
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        assert!(inputs.len() >= 5, "{name} has too few inputs");
        inputs.sort();
        inputs.iter().for_each(|input| target(input));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for round in 0..2_000 {
            let mut input = inputs[round % inputs.len()].clone();
            for _ in 0..=random.below(4) {
                random.change(&mut input);
            }
            target(&input);
        }
    }
}

/// xorshift64*: enough to spread, and the same at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let byte = self.next() as u8;
        let place = self.below(input.len() + 1);
        match (self.below(4), input.get_mut(place)) {
            (0, Some(old)) => *old = byte,
            (1, Some(old)) => *old ^= 1 << (byte & 7),
            (2, Some(_)) => drop(input.remove(place)),
            _ => input.insert(place, byte),
        }
    }
}
