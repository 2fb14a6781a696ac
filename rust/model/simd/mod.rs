//! The kernels of the forward pass, compiled for each tier from the shared algorithms.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512bf16;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

use super::attention::{KeysValues, Queries, Scratch};
use super::packed::Layout;
use super::product::{Inputs, Product, Rows};
use super::rows::{Heads, Norm};

/// What matrices are multiplied in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 24 significant bits.
    Float32,
    /// 8 significant bits, sums in float32.
    Bfloat16,
}

/// The kernels of a tier by type.
pub(crate) struct KernelsByType {
    pub float32: &'static Kernels,
    pub bfloat16: &'static Kernels,
    /// Half the memory to read makes bfloat16 the faster one also where it is only widened.
    pub fastest: DType,
}

impl KernelsByType {
    pub fn of(&self, dtype: DType) -> &'static Kernels {
        match dtype {
            DType::Float32 => self.float32,
            DType::Bfloat16 => self.bfloat16,
        }
    }
}

/// The functions of a tier; they may be called only where it is available.
pub(crate) struct Kernels {
    /// How they want their weights.
    pub layout: Layout,
    /// See [`super::product::product`].
    pub product: unsafe fn(&Product),
    /// See [`super::rows::normalize`].
    pub normalize: unsafe fn(Rows, usize, &Norm),
    /// See [`super::rows::prepare`].
    pub prepare: unsafe fn(Rows, usize, Option<&Norm>, Inputs, Rows),
    /// See [`super::rows::finish_heads`].
    pub finish_heads: unsafe fn(*mut f32, usize, Heads),
    /// See [`super::attention::attend`].
    pub attend: unsafe fn(Queries, KeysValues, Inputs, usize, Scratch),
}

/// The kernels of a unit, compiled with target features.
macro_rules! kernels {
    ($name:ident, $unit:ty, $factors:expr, $(#[$features:meta])?) => {
        pub(crate) static $name: $crate::model::simd::Kernels = {
            use $crate::model::attention::{self, KeysValues, Queries, Scratch};
            use $crate::model::floats::Floats;
            use $crate::model::packed::Layout;
            use $crate::model::product::{self, Inputs, Product, Rows, Unit};
            use $crate::model::rows::{self, Heads, Norm};

            type Vector = <$unit as Unit>::Vector;

            $(#[$features])?
            unsafe fn product(product: &Product) {
                // SAFETY: the caller vouches for the memory, and that the instructions were detected; here and below.
                unsafe { product::product::<$unit>(product) }
            }

            $(#[$features])?
            unsafe fn normalize(rows: Rows, count: usize, norm: &Norm) {
                // SAFETY: see above.
                unsafe { rows::normalize::<Vector>(rows, count, norm) }
            }

            $(#[$features])?
            unsafe fn prepare(rows: Rows, count: usize, norm: Option<&Norm>, inputs: Inputs, row: Rows) {
                // SAFETY: see above.
                unsafe { rows::prepare::<$unit>(rows, count, norm, inputs, row) }
            }

            $(#[$features])?
            unsafe fn finish_heads(row: *mut f32, position: usize, heads: Heads) {
                // SAFETY: see above.
                unsafe { rows::finish_heads::<Vector>(row, position, heads) }
            }

            $(#[$features])?
            unsafe fn attend(queries: Queries, keys_values: KeysValues, inputs: Inputs, first: usize, scratch: Scratch) {
                // SAFETY: see above.
                unsafe { attention::attend::<$unit>(queries, keys_values, inputs, first, scratch) }
            }

            $crate::model::simd::Kernels {
                layout: Layout { width: 2 * Vector::LANES, factors: $factors },
                product,
                normalize,
                prepare,
                finish_heads,
                attend,
            }
        };
    };
}
pub(crate) use kernels;
