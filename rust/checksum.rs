//! CRC32C (Castagnoli) of fixed-size blocks, so that a large file can be verified piece by piece when it is first read.

/// CRC32C of `data`.
pub fn crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
}

/// CRC32C of each block of `block_bytes` bytes of `data`; the last block may be shorter. Empty data has no blocks.
///
/// # Panics
/// If `block_bytes` is 0.
pub fn block_checksums(data: &[u8], block_bytes: usize) -> Vec<u32> {
    assert!(block_bytes > 0, "block_bytes must be positive");
    data.chunks(block_bytes).map(crc32c::crc32c).collect()
}

/// The first of `blocks` (block numbers) whose bytes are not those of its checksum, or None if all are sound.
///
/// `checksums` are those of every block of `data`, as [`block_checksums`] gives them.
///
/// # Panics
/// If `block_bytes` is 0 or a block number is not one of the data's.
pub fn damaged_block(
    data: &[u8],
    block_bytes: usize,
    checksums: &[u32],
    blocks: impl IntoIterator<Item = usize>,
) -> Option<usize> {
    assert!(block_bytes > 0, "block_bytes must be positive");
    blocks.into_iter().find(|&block| {
        let start = block * block_bytes;
        crc32c::crc32c(&data[start..data.len().min(start + block_bytes)]) != checksums[block]
    })
}

#[cfg(test)]
mod tests {
    use super::{block_checksums, damaged_block};
    use proptest::prelude::*;

    /// CRC32C one bit at a time, from the definition (reflected polynomial 0x82F63B78).
    fn naive(data: &[u8]) -> u32 {
        !data.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 })
        })
    }

    proptest! {
        #[test]
        fn every_block_has_its_own_crc(data in prop::collection::vec(any::<u8>(), 0..500), block in 1usize..200) {
            let expected: Vec<u32> = data.chunks(block).map(naive).collect();
            prop_assert_eq!(block_checksums(&data, block), expected);
        }

        #[test]
        fn a_flipped_bit_is_found_in_its_block(mut data in prop::collection::vec(any::<u8>(), 1..500), block in 1usize..200, bit: usize) {
            let checksums = block_checksums(&data, block);
            prop_assert_eq!(damaged_block(&data, block, &checksums, 0..checksums.len()), None);
            let bit = bit % (data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(damaged_block(&data, block, &checksums, 0..checksums.len()), Some(bit / 8 / block));
            let others = (0..checksums.len()).filter(|&other| other != bit / 8 / block);
            prop_assert_eq!(damaged_block(&data, block, &checksums, others), None);
        }
    }
}
