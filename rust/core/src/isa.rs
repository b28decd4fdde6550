//! The vector instructions of the machine, found at run time.

/// An instruction set that this machine can run: only this module makes one, after looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Kind);

/// The instruction sets that the kernels know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// AVX-512F with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

impl Isa {
    /// All that this machine can run, best first.
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if !cfg!(miri) && std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            if std::is_x86_feature_detected!("avx512f") {
                found.push(Self(Kind::Avx512));
            }
            found.push(Self(Kind::Avx2));
        }
        found.push(Self(Kind::Portable));
        found
    }

    /// The best that this machine can run.
    pub fn best() -> Self {
        Self::available()[0]
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

/// Run `body`, whose loops the compiler may vectorise with the instructions of `isa` when they are inlined here.
#[inline]
pub(crate) fn dispatch(isa: Isa, body: impl FnOnce()) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx2,fma")]
        fn with_avx512(body: impl FnOnce()) {
            body();
        }
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2(body: impl FnOnce()) {
            body();
        }
        #[allow(unsafe_code)]
        match isa.kind() {
            // SAFETY: `available` found the features before it made this `Isa`.
            Kind::Avx512 => unsafe { with_avx512(body) },
            // SAFETY: as above.
            Kind::Avx2 => unsafe { with_avx2(body) },
            Kind::Portable => body(),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        body();
    }
}
