//! CRC32C (Castagnoli) of fixed-size blocks, so that a large file can be verified piece by piece when it is first read.

/// CRC32C of each block of `block_bytes` bytes of `data`; the last block may be shorter. Empty data has no blocks.
///
/// # Panics
/// If `block_bytes` is 0.
pub fn block_checksums(data: &[u8], block_bytes: usize) -> Vec<u32> {
    assert!(block_bytes > 0, "block_bytes must be positive");
    data.chunks(block_bytes).map(crc32c::crc32c).collect()
}

#[cfg(test)]
mod tests {
    use super::block_checksums;
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
    }
}
