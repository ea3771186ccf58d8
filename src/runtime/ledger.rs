//! What an engine's objects take: every object enters it when it is made and leaves when it is dropped.

use crate::error::{Result, ensure, fail};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Models alive.
    Models,
    /// Contexts whose memory is alive.
    Contexts,
    /// Events alive.
    Events,
    /// Batchers alive.
    Batchers,
    /// Memories alive.
    Memories,
    /// Bytes of memories that the host program has lent, which are not the engine's.
    Registered,
    /// Threads.
    Threads,
    /// Bytes of weights.
    Weights,
    /// Bytes of model files kept.
    Retained,
    /// Bytes of arenas.
    Arenas,
    /// Bytes of inputs and outputs.
    Pinned,
    /// Bytes of memories that the host program has taken.
    Memory,
}

const ACCOUNTS: usize = Account::Memory as usize + 1;
/// Accounts from here on are bytes that the budget bounds.
const FIRST_BYTES: usize = Account::Weights as usize;

/// The accounts of one engine.
#[derive(Debug)]
pub struct Ledger {
    totals: [AtomicU64; ACCOUNTS],
    /// All bounded byte accounts together.
    bytes: AtomicU64,
    bytes_max: u64,
}

/// An amount in an account, taken out when dropped.
#[derive(Debug)]
pub struct Entry {
    ledger: Arc<Ledger>,
    account: Account,
    amount: u64,
}

impl Ledger {
    /// Empty accounts; all bytes together may reach `bytes_max`.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Ledger { totals: Default::default(), bytes: AtomicU64::new(0), bytes_max })
    }

    /// The amount in an account.
    pub fn total(&self, account: Account) -> u64 {
        self.totals[account as usize].load(Relaxed)
    }

    /// Enters an amount; `OutOfMemory` if it goes beyond the engine's budget.
    pub fn enter(self: &Arc<Self>, account: Account, amount: usize) -> Result<Entry> {
        let amount = amount as u64;
        let entry = Entry { ledger: self.clone(), account, amount };
        self.totals[account as usize].fetch_add(amount, Relaxed);
        if account as usize >= FIRST_BYTES {
            let before = self.bytes.fetch_add(amount, Relaxed);
            // On refusal the entry takes itself out again.
            ensure!(
                before.saturating_add(amount) <= self.bytes_max,
                OutOfMemory,
                "{amount} more bytes would exceed the engine's budget of {}, of which {before} are taken",
                self.bytes_max
            );
        }
        Ok(entry)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.totals[self.account as usize].fetch_sub(self.amount, Relaxed);
        if self.account as usize >= FIRST_BYTES {
            self.ledger.bytes.fetch_sub(self.amount, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    #[test]
    fn a_refused_entry_leaves_no_trace() {
        let ledger = Ledger::new(100);
        let kept = ledger.enter(Account::Arenas, 60).unwrap();
        assert_eq!(ledger.enter(Account::Pinned, 41).unwrap_err().status, Status::OutOfMemory);
        assert_eq!((ledger.total(Account::Arenas), ledger.total(Account::Pinned)), (60, 0));
        drop(kept);
        assert_eq!(ledger.total(Account::Arenas), 0);
        ledger.enter(Account::Pinned, 100).unwrap();
    }
}
