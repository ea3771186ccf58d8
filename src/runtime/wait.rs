//! How a thread waits for a request.

use crate::device::Progress;
use crate::device::host::clock;
use crate::device::host::processors::SpinPermit;

/// What a waiting thread does with its CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitPolicy {
    /// Spins within a budget learnt from the last requests, while fewer threads spin than there are idle CPUs; then blocks.
    #[default]
    Hybrid,
    /// Spins while fewer threads spin than there are idle CPUs, without budget; else blocks.
    Spin,
    /// Gives the CPU away between looks.
    Yield,
    /// Sleeps at once.
    Block,
}

/// Looks between two readings of the clock.
const LOOKS: usize = 64;
/// Budgets that would be longer are not given: requests of more than a millisecond are not worth a CPU that spins, and what sleeping and
/// being woken costs is little beside them.
const SPIN_BUDGET_NS_MAX: u64 = 2_000_000;

/// What a context has learnt about the time that its requests take.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinBudget {
    average_ns: u64,
}

impl SpinBudget {
    /// A request has taken so long from submit to end.
    pub fn learn(&mut self, duration_ns: u64) {
        let gap = duration_ns as i64 - self.average_ns as i64;
        self.average_ns = (self.average_ns as i64 + gap / 8).max(0) as u64;
        if self.average_ns == 0 {
            self.average_ns = duration_ns;
        }
    }

    /// How long to spin: twice what is usual, or not at all if that is long.
    fn ns(self) -> u64 {
        let budget = self.average_ns.saturating_mul(2);
        if budget > SPIN_BUDGET_NS_MAX { 0 } else { budget }
    }
}

/// Waits until `is_over`, at most until the monotonic clock passes `until_ns`. Answers whether it is over.
pub fn wait(
    progress: &Progress,
    policy: WaitPolicy,
    budget: SpinBudget,
    until_ns: u64,
    is_over: impl Fn() -> bool,
) -> bool {
    let spin_ns = match policy {
        WaitPolicy::Hybrid => budget.ns(),
        WaitPolicy::Spin | WaitPolicy::Yield => u64::MAX,
        WaitPolicy::Block => 0,
    };
    let permit = if policy == WaitPolicy::Yield || spin_ns == 0 { None } else { SpinPermit::take() };
    if policy == WaitPolicy::Yield || permit.is_some() {
        let spin_until = clock::monotonic_ns().saturating_add(spin_ns).min(until_ns);
        loop {
            for _ in 0..LOOKS {
                if is_over() {
                    return true;
                }
                if policy == WaitPolicy::Yield {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            }
            if clock::monotonic_ns() >= spin_until {
                break;
            }
        }
        drop(permit);
    }
    progress.sleep_until(until_ns, is_over)
}
