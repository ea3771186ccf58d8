//! What one import may still spend.

use crate::error::{Result, ensure, fail};
use crate::limits::{IMPORT_BYTES_BASE, IMPORT_BYTES_PER_FILE_BYTE, NODES_MAX};

/// Counts nodes and bytes against the limits. Bytes are charged before they are allocated, and never given back: a
/// model is read once, and what it makes the importer build is what it keeps.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    bytes_max: usize,
    nodes: usize,
}

impl Budget {
    /// The budget of a model file of `file_bytes`, beside the file itself.
    pub fn new(file_bytes: usize) -> Self {
        let bytes_max = IMPORT_BYTES_BASE.saturating_add(file_bytes.saturating_mul(IMPORT_BYTES_PER_FILE_BYTE));
        Budget { bytes: 0, bytes_max, nodes: 0 }
    }

    /// Announces an allocation that stays.
    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        ensure!(
            self.bytes <= self.bytes_max,
            TooLarge,
            "the model's structure would take more than {} bytes of memory, the limit for a file of its size",
            self.bytes_max
        );
        Ok(())
    }

    /// Counts one node, be it kept, inlined or a call.
    pub fn node(&mut self) -> Result<()> {
        self.nodes += 1;
        ensure!(
            self.nodes <= NODES_MAX,
            TooLarge,
            "the model has more than {NODES_MAX} nodes, inlined functions included"
        );
        Ok(())
    }
}
