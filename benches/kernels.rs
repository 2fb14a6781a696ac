//! Benches of the kernels, one for each kernel and tier.

fn main() {}
