//! A device's key as four words that two people can compare: the workstation shows them, and so does the page that approves it.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

/// Four words of 8 bits each, from the first bytes of SHA-256 over domain ‖ key.
///
/// 32 bits are enough against a stranger's key slipped in for one's own: the words to be hit belong to one key made a minute ago,
/// codes die after 600 s, and five wrong ones end a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// Of a public key.
    #[must_use]
    pub fn of(key: &VerifyingKey) -> Self {
        let hash = Sha256::new_with_prefix(b"1k4-fingerprint-v1\0").chain_update(key.as_bytes()).finalize();
        Self([hash[0], hash[1], hash[2], hash[3]])
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.into_iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            f.write_str(WORDS[usize::from(byte)])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 256 short, common, distinct English words. Their order is part of the protocol: never change it.
const WORDS: [&str; 256] = [
    "acid", "acorn", "actor", "album", "alien", "amber", "anchor", "angel", "ankle", "apple", "apron", "arch", "arena", "arrow",
    "ash", "atlas", "attic", "autumn", "badge", "bagel", "baker", "bamboo", "banjo", "barn", "basin", "beach", "bean", "bear",
    "bench", "berry", "bike", "birch", "bird", "blade", "blanket", "boat", "bone", "book", "boot", "bottle", "bowl", "brass",
    "bread", "brick", "bridge", "broom", "brush", "bucket", "bugle", "butter", "cabin", "cable", "cactus", "cake", "camel",
    "camera", "canal", "candle", "canoe", "canyon", "carbon", "carpet", "castle", "cedar", "cello", "chain", "chalk", "cherry",
    "chess", "chimney", "cider", "cinema", "circus", "clay", "cliff", "clock", "cloud", "clover", "coal", "cobra", "coffee",
    "comet", "compass", "copper", "coral", "cotton", "crab", "crane", "crayon", "creek", "crown", "crystal", "cup", "curtain",
    "daisy", "dawn", "deer", "denim", "desert", "desk", "diamond", "dinner", "dolphin", "donkey", "door", "dragon", "drum", "duck",
    "eagle", "echo", "elbow", "ember", "engine", "envoy", "fabric", "falcon", "farm", "feather", "fern", "ferry", "fiddle",
    "field", "flame", "flute", "forest", "fossil", "fox", "frost", "galaxy", "garden", "garlic", "giant", "ginger", "glacier",
    "glass", "globe", "glove", "goat", "gold", "granite", "grape", "gravel", "guitar", "hammer", "harbor", "harp", "hawk", "hazel",
    "helmet", "heron", "hill", "honey", "horse", "igloo", "ink", "iris", "island", "ivory", "jacket", "jaguar", "jar", "jelly",
    "jewel", "jungle", "kettle", "kite", "kitten", "koala", "ladder", "lagoon", "lake", "lamp", "lantern", "lava", "lemon",
    "lilac", "lion", "lizard", "llama", "lobster", "lotus", "lunar", "magnet", "mango", "maple", "marble", "market", "meadow",
    "medal", "melon", "metal", "mint", "mirror", "mitten", "monkey", "moon", "moss", "motor", "mural", "needle", "nest", "nickel",
    "noodle", "novel", "oak", "oasis", "ocean", "olive", "onion", "opal", "orbit", "orchid", "otter", "owl", "oyster", "paddle",
    "panda", "paper", "parrot", "peach", "pearl", "pebble", "pencil", "pepper", "piano", "pigeon", "pillow", "pine", "planet",
    "plum", "pocket", "polar", "pond", "poppy", "prism", "pumpkin", "quartz", "quill", "rabbit", "radar", "raven", "ribbon",
    "river", "rocket", "saddle", "salmon", "scarf", "shell", "silver", "sketch", "spruce", "stone", "sugar", "tiger", "velvet",
    "walnut",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_are_distinct_and_a_key_keeps_its_own() {
        assert_eq!(WORDS.iter().collect::<HashSet<_>>().len(), 256);
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        assert_eq!(Fingerprint::of(&key), Fingerprint::of(&key));
        assert_eq!(Fingerprint::of(&key).to_string().split(' ').count(), 4);
    }
}
