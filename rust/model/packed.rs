//! Weights in the order in which a product reads them, and other memory that starts on a cache line.

/// How a [`super::product::Unit`] wants its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Outputs of a panel: the lanes of two vectors.
    pub width: usize,
    /// What is multiplied.
    pub factors: Factors,
}

/// The types of the inputs and the weights of products. Sums, norms, attention and the residual stream are float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factors {
    /// Both float32.
    Float32,
    /// Weights in bfloat16, which are widened when they are read: half the memory, on processors that cannot multiply it.
    WidenedBfloat16,
    /// Both bfloat16. Pairs of neighboring inputs are multiplied at once: their weights lie side by side.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no tier of this architecture multiplies it"))]
    Bfloat16,
}

impl Factors {
    /// Bytes of an input.
    pub fn input_bytes(self) -> usize {
        if self == Self::Bfloat16 { 2 } else { 4 }
    }

    fn weight_bytes(self) -> usize {
        if self == Self::Float32 { 4 } else { 2 }
    }

    /// Columns to a multiple of which inputs are padded.
    fn depth(self) -> usize {
        if self == Self::Bfloat16 { 32 } else { 1 }
    }
}

/// Memory that starts on a cache line.
pub(crate) struct Memory(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Memory {
    /// So many bytes, zero.
    pub fn zeroed(bytes: usize) -> Self {
        Self(vec![Line([0; 64]); bytes.div_ceil(64)])
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    /// Make it at least so many bytes; what it held is lost, what it holds is zero where it grew.
    pub fn grow(&mut self, bytes: usize) {
        if self.0.len() * 64 < bytes {
            *self = Self::zeroed(bytes);
        }
    }
}

/// The weights of a linear layer, `outputs × depth`, in panels.
///
/// A panel holds `width` outputs: for each input, or each pair of them in bfloat16, the weights of all outputs of the
/// panel. Missing outputs and inputs are zeros.
pub(crate) struct Packed {
    memory: Memory,
    layout: Layout,
    pub outputs: usize,
    /// Inputs, padded.
    pub depth: usize,
    /// One value an output, padded to whole panels.
    pub bias: Option<Vec<f32>>,
}

impl Packed {
    /// Pack `outputs` rows of `inputs` weights; `read` copies row `output` to its second argument.
    pub fn new(layout: Layout, outputs: usize, inputs: usize, mut read: impl FnMut(usize, &mut [f32])) -> Self {
        let depth = inputs.next_multiple_of(layout.factors.depth());
        let panels = outputs.div_ceil(layout.width);
        let mut memory = Memory::zeroed(panels * layout.width * depth * layout.factors.weight_bytes());
        let mut rows = vec![0.0f32; layout.width * inputs];
        let panel_values = layout.width * depth;
        for panel in 0..panels {
            let first = panel * layout.width;
            let count = (outputs - first).min(layout.width);
            for (i, row) in rows.chunks_exact_mut(inputs).take(count).enumerate() {
                read(first + i, row);
            }
            rows[count * inputs..].fill(0.0);
            // SAFETY: a panel of the memory made above.
            unsafe {
                let out = memory.as_mut_ptr().add(panel * panel_values * layout.factors.weight_bytes());
                match layout.factors {
                    Factors::Float32 => {
                        let out = std::slice::from_raw_parts_mut(out.cast::<f32>(), panel_values);
                        interleave(&rows, inputs, out, |k, i| k * layout.width + i, |value| value);
                    }
                    Factors::WidenedBfloat16 => {
                        let out = std::slice::from_raw_parts_mut(out.cast::<u16>(), panel_values);
                        interleave(&rows, inputs, out, |k, i| k * layout.width + i, bfloat16);
                    }
                    Factors::Bfloat16 => {
                        let out = std::slice::from_raw_parts_mut(out.cast::<u16>(), panel_values);
                        interleave(&rows, inputs, out, |k, i| (k / 2 * layout.width + i) * 2 + k % 2, bfloat16);
                    }
                }
            }
        }
        Self { memory, layout, outputs, depth, bias: None }
    }

    /// The same with a bias for each output.
    pub fn with_bias(mut self, mut bias: Vec<f32>) -> Self {
        bias.resize(self.panels() * self.layout.width, 0.0);
        self.bias = Some(bias);
        self
    }

    #[inline(always)]
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(self.layout.width)
    }

    #[inline(always)]
    pub fn panel(&self, panel: usize) -> *const u8 {
        let bytes = self.layout.width * self.depth * self.layout.factors.weight_bytes();
        // SAFETY: callers ask for panels that there are.
        unsafe { self.memory.as_ptr().add(panel * bytes) }
    }
}

/// Put value k of each row i where `place` says, in blocks of as many values as a cache line has.
#[inline(always)]
fn interleave<T>(
    rows: &[f32],
    inputs: usize,
    out: &mut [T],
    place: impl Fn(usize, usize) -> usize,
    convert: impl Fn(f32) -> T,
) {
    const BLOCK: usize = 16;
    for start in (0..inputs).step_by(BLOCK) {
        let end = (start + BLOCK).min(inputs);
        for (i, row) in rows.chunks_exact(inputs).enumerate() {
            for (k, &value) in (start..end).zip(&row[start..end]) {
                out[place(k, i)] = convert(value);
            }
        }
    }
}

/// The nearest bfloat16, ties to even; NaN stays NaN.
pub(crate) fn bfloat16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}
