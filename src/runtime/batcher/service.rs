//! How long a bucket's requests take.

/// Requests that the average looks back on.
const WINDOW: u64 = 8;
/// Refusals after which a bad average is forgotten: each takes this part of what it is above the fastest.
const DOUBT: u64 = 16;

/// The time from launch to end of one bucket's requests: measured when the batcher is made, learnt from then on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service {
    fastest_ns: u64,
    usual_ns: u64,
}

impl Service {
    /// As measured.
    pub fn measured(ns: u64) -> Self {
        Service { fastest_ns: ns, usual_ns: ns }
    }

    /// A request has taken so long.
    pub fn learn(&mut self, ns: u64) {
        self.fastest_ns = self.fastest_ns.min(ns);
        self.usual_ns = (self.usual_ns * (WINDOW - 1) + ns) / WINDOW;
    }

    /// A request was refused because of the average. Without this, one bad spell could refuse all requests for good, since
    /// what never runs is never measured.
    pub fn doubt(&mut self) {
        self.usual_ns -= self.usual_ns.saturating_sub(self.fastest_ns).div_ceil(DOUBT);
    }

    /// How long before a deadline a batch is closed: what is usual and a quarter of it, for what is not.
    pub fn allowance_ns(self) -> u64 {
        self.usual_ns + self.usual_ns / 4
    }

    /// What is usual.
    pub fn usual_ns(self) -> u64 {
        self.usual_ns
    }

    /// What no request has gone below.
    pub fn fastest_ns(self) -> u64 {
        self.fastest_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_average_and_forgets_a_bad_spell_when_it_refuses() {
        let mut service = Service::measured(1_000);
        assert_eq!((service.allowance_ns(), service.fastest_ns()), (1_250, 1_000));
        (0..100).for_each(|_| service.learn(9_000));
        assert!(service.allowance_ns() > 11_000 && service.fastest_ns() == 1_000);
        (0..200).for_each(|_| service.doubt());
        assert_eq!(service.allowance_ns(), 1_250);
        service.learn(200);
        assert_eq!(service.fastest_ns(), 200);
    }
}
