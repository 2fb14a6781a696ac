//! Vectors of float32, and the functions of them that a forward pass needs: written once over a small trait.

/// A vector of float32.
///
/// # Safety
/// The methods may run only where the processor has the instructions of the implementing type.
pub(crate) unsafe trait Floats: Copy {
    /// Values in a vector.
    const LANES: usize;
    unsafe fn splat(value: f32) -> Self;
    /// `LANES` values, at any address.
    unsafe fn load(values: *const f32) -> Self;
    unsafe fn store(self, values: *mut f32);
    /// `LANES` values in bfloat16, at any address.
    unsafe fn load_bfloat16(values: *const u16) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self × factor + summand`, rounded once where the tier has the instruction, everywhere in the same way.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// To the nearest whole number.
    unsafe fn round(self) -> Self;
    /// 2 to the power of whole numbers from -127 (which gives 0) to 127.
    unsafe fn exp2_whole(self) -> Self;

    /// The first `count` values, then zeros.
    #[inline(always)]
    unsafe fn load_part(values: *const f32, count: usize) -> Self {
        let mut lanes = [0.0f32; 16];
        // SAFETY: the caller vouches for `count` values, at most LANES.
        unsafe {
            values.copy_to_nonoverlapping(lanes.as_mut_ptr(), count);
            Self::load(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn lanes(self) -> [f32; 16] {
        let mut lanes = [0.0f32; 16];
        // SAFETY: no vector has more than 16 lanes.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }

    /// The sum of the lanes, neighboring halves first.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see the trait.
        let mut lanes = unsafe { self.lanes() };
        let mut width = Self::LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: see the trait.
        let lanes = unsafe { self.lanes() };
        lanes[..Self::LANES].iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
    }
}

/// e to the power of `x`: relative error below 2e-7 from -87 to 87, and no more above, so that what is divided by it is
/// not denormal; 0 below -87.7, also of -infinity.
///
/// `x = n ln 2 + r` with |r| ≤ ln 2 / 2, and the Taylor series of e^r to the seventh power.
#[inline(always)]
pub(crate) unsafe fn exp<V: Floats>(x: V) -> V {
    // SAFETY: see the trait; here and below.
    unsafe {
        let x = x.max(V::splat(-88.0)).min(V::splat(87.0));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts, the first with zeros at its end, so that n × the first is exact.
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let mut series = V::splat(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            series = series.mul_add(r, V::splat(coefficient));
        }
        series.mul(n.exp2_whole())
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) unsafe fn sigmoid<V: Floats>(x: V) -> V {
    // SAFETY: see the trait.
    unsafe {
        let one = V::splat(1.0);
        one.div(one.add(exp(V::splat(0.0).sub(x))))
    }
}

/// The normal distribution function, `Φ(x) = (1 + erf(x / √2)) / 2`: absolute error below 2e-7, smaller where Φ is.
///
/// `1 / (1 + e^(x p(x²)))`, the polynomial fitted so that the largest error of `x Φ(x)` is as small as can be: 2.5e-8
/// before rounding.
#[inline(always)]
pub(crate) unsafe fn normal<V: Floats>(x: V) -> V {
    // SAFETY: see the trait.
    unsafe {
        let (one, square) = (V::splat(1.0), x.mul(x));
        let pair = |high: f32, low: f32| square.mul_add(V::splat(high), V::splat(low));
        // Pairs do not wait for each other, as each step of Horner's scheme does for the one before.
        let fourth = square.mul(square);
        let series = fourth.mul_add(V::splat(-3.624_473_4e-9), pair(2.688_64e-7, -7.989_95e-6));
        let series = series.mul_add(fourth, pair(1.109_92e-4, 6.409_724e-5));
        let series = series.mul_add(fourth, pair(-0.072_664_89, -1.595_770_4));
        one.div(one.add(exp(x.mul(series))))
    }
}

/// What follows the first linear layer of a feed-forward block, as `hidden_act` in a model's `config.json` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, by the error function.
    Gelu,
    /// GELU with the hyperbolic tangent in place of the error function: Hendrycks and Gimpel, arXiv 1606.08415.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x sigmoid(x)`, also called swish.
    Silu,
}

impl Activation {
    /// The activation of that name in transformers.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            "silu" | "swish" => Some(Self::Silu),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn of<V: Floats>(self, x: V) -> V {
        // SAFETY: see the trait.
        unsafe {
            match self {
                Self::Gelu => x.mul(normal(x)),
                // 0.5 (1 + tanh u) = sigmoid(2 u)
                Self::GeluTanh => {
                    let cube = x.mul(x).mul(x);
                    let u = cube.mul_add(V::splat(0.044_715), x).mul(V::splat(1.595_769));
                    x.mul(sigmoid(u))
                }
                Self::Relu => x.max(V::splat(0.0)),
                Self::Silu => x.mul(sigmoid(x)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Activation, exp, normal, sigmoid};
    use crate::model::floats::Floats;
    use crate::model::naive;
    use crate::model::simd::portable::Lanes;

    fn each(f: impl Fn(f32) -> f32, expected: impl Fn(f64) -> f64, from: f32, to: f32, error: impl Fn(f64) -> f64) {
        for step in 0..=20_000 {
            let x = from + (to - from) * step as f32 / 20_000.0;
            let (found, expected) = (f64::from(f(x)), expected(f64::from(x)));
            assert!((found - expected).abs() <= error(expected), "{x}: {found} instead of {expected}");
        }
    }

    fn first(f: impl Fn(Lanes<4>) -> Lanes<4>) -> impl Fn(f32) -> f32 {
        // SAFETY: plain operations.
        move |x| unsafe { f(Lanes::splat(x)).lanes()[0] }
    }

    #[test]
    fn functions_are_within_their_bounds() {
        // SAFETY: plain operations; here and below.
        unsafe {
            each(first(|x| exp(x)), f64::exp, -87.0, 87.0, |y| y * 2e-7);
            assert_eq!(exp(Lanes::<4>::splat(f32::NEG_INFINITY)).lanes()[0], 0.0);
            assert_eq!(exp(Lanes::<4>::splat(-90.0)).lanes()[0], 0.0);
            assert_eq!(exp(Lanes::<4>::splat(0.0)).lanes()[0], 1.0);
            each(first(|x| sigmoid(x)), |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0, |_| 2e-7);
            let phi = |x: f64| 0.5 * (1.0 + naive::erf(x / 2f64.sqrt()));
            each(first(|x| normal(x)), phi, -10.0, 10.0, |_| 2e-7);
            let of = |activation: Activation| first(move |x| activation.of(x));
            let bound = |y: f64| 5e-7 * y.abs().max(1.0);
            each(of(Activation::Gelu), |x| x * phi(x), -10.0, 10.0, |y| 2e-7 * y.abs().max(1.0));
            assert!((-1e-30..=0.0).contains(&of(Activation::Gelu)(-1e4)));
            let tanh =
                |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
            each(of(Activation::GeluTanh), tanh, -10.0, 10.0, bound);
            each(of(Activation::Silu), |x| x / (1.0 + (-x).exp()), -50.0, 50.0, bound);
            each(of(Activation::Relu), |x| x.max(0.0), -50.0, 50.0, bound);
        }
    }
}
