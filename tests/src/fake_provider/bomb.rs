//! A body of 1 GiB that is 1 MiB on its way: it tells whether somebody unpacks what they only pass on.

use std::sync::OnceLock;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

/// Zeros in one block.
const BLOCK: usize = 16 << 20;
/// Blocks in the body.
const BLOCKS: u32 = 64;
/// A gzip header without a name or a time.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The pieces that are still to come.
#[derive(Debug)]
pub(super) struct Bomb {
    next: u32,
}

impl Bomb {
    pub(super) const fn new() -> Self {
        Self { next: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Bytes> {
        let now = self.next;
        self.next += 1;
        match now {
            0 => Some(Bytes::from_static(&HEADER)),
            1..=BLOCKS => Some(block()),
            now if now == BLOCKS + 1 => Some(tail()),
            _ => None,
        }
    }
}

/// One packed block. It ends with a full flush, so that it can be repeated.
fn block() -> Bytes {
    static BLOCK_PACKED: OnceLock<Bytes> = OnceLock::new();
    let pack = || {
        // Four times of what it takes.
        let mut packed = Vec::with_capacity(BLOCK / 64);
        let mut packing = Compress::new(Compression::best(), false);
        packing.compress_vec(&vec![0; BLOCK], &mut packed, FlushCompress::Full).expect("room for the packed block");
        assert!(packed.len() < packed.capacity() && packing.total_in() == BLOCK as u64, "the whole block is packed");
        packed.into()
    };
    BLOCK_PACKED.get_or_init(pack).clone()
}

/// The empty last block, the checksum and the length.
fn tail() -> Bytes {
    let mut one = crc32fast::Hasher::new();
    one.update(&vec![0; BLOCK]);
    let mut all = crc32fast::Hasher::new();
    for _ in 0..BLOCKS {
        all.combine(&one);
    }
    let mut tail = vec![3, 0];
    tail.extend_from_slice(&all.finalize().to_le_bytes());
    tail.extend_from_slice(&(BLOCK as u32 * BLOCKS).to_le_bytes());
    tail.into()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn it_is_small_and_unpacks_to_a_gibibyte() {
        let mut bomb = Bomb::new();
        let packed: Vec<u8> = std::iter::from_fn(|| bomb.next()).flatten().collect();
        assert!(packed.len() < 6 << 20, "{}", packed.len());
        // What follows the last byte is the checksum, which the reader compares.
        let mut reader = GzDecoder::new(packed.as_slice());
        let mut buffer = vec![1; 1 << 20];
        let mut total = 0_u64;
        loop {
            let read = reader.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            total += read as u64;
        }
        assert_eq!(total, 1 << 30);
    }
}
