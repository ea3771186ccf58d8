//! What is known of a GPU's health: one number that any thread reads.

use super::sys::CuResult;
use crate::device::DeviceState;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// 0: nothing is wrong; below: minus the error that the watchdog was last answered with; above: the result with which the GPU was lost.
#[derive(Default)]
pub struct Fault(AtomicI32);

impl Fault {
    /// One atomic read.
    #[inline]
    pub fn state(&self) -> DeviceState {
        match self.0.load(Relaxed) {
            0 => DeviceState::Ok,
            ..0 => DeviceState::Suspect,
            _ => DeviceState::Dead,
        }
    }

    /// With which result the GPU was lost.
    #[inline]
    pub fn fatal(&self) -> Option<CuResult> {
        Some(self.0.load(Relaxed)).filter(|code| *code > 0)
    }

    /// What the watchdog was answered: an error makes the GPU suspect, success clears it. Neither matters to one that is lost.
    pub fn suspect(&self, code: CuResult) {
        let _ = self.0.fetch_update(SeqCst, SeqCst, |fault| (fault <= 0).then_some(-code));
    }

    /// The GPU is lost; the first result that said so is kept.
    pub fn lose(&self, code: CuResult) {
        let _ = self.0.fetch_update(SeqCst, SeqCst, |fault| (fault <= 0).then_some(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicion_passes_and_a_loss_does_not() {
        let fault = Fault::default();
        assert_eq!(fault.state(), DeviceState::Ok);
        fault.suspect(999);
        assert_eq!((fault.state(), fault.fatal()), (DeviceState::Suspect, None));
        fault.suspect(0);
        assert_eq!(fault.state(), DeviceState::Ok);
        fault.suspect(999);
        fault.lose(700);
        fault.lose(719);
        fault.suspect(0);
        assert_eq!((fault.state(), fault.fatal()), (DeviceState::Dead, Some(700)));
    }
}
