//! Completion records in mapped memory: the GPU's last kernel of a request writes them, the host reads them in place.

use super::gpu::Gpu;
use super::memory::HostMemory;
use super::sys::CuAddress;
use crate::device::progress::Record;
use crate::error::Result;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Records that share one allocation.
const SLAB_RECORDS: usize = 256;

/// A place for many records.
struct Slab {
    memory: HostMemory,
    /// Indices that nobody has.
    free: Mutex<Vec<usize>>,
}

/// The records of one engine.
#[derive(Default)]
pub struct Records {
    slabs: Mutex<Vec<Arc<Slab>>>,
}

/// One record, given back when dropped.
pub(in crate::device) struct MappedRecord {
    slab: Arc<Slab>,
    index: usize,
}

impl Records {
    /// A fresh record.
    pub(super) fn take(&self, gpu: &Arc<Gpu>) -> Result<MappedRecord> {
        let mut slabs = self.slabs.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |slab: &Arc<Slab>| slab.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (slab, index) = match slabs.iter().find_map(|slab| Some((slab.clone(), take(slab)?))) {
            Some(found) => found,
            None => {
                let memory = HostMemory::take(gpu, SLAB_RECORDS * size_of::<Record>())?;
                let slab = Arc::new(Slab { memory, free: Mutex::new((1..SLAB_RECORDS).collect()) });
                slabs.push(slab.clone());
                (slab, 0)
            }
        };
        let record = MappedRecord { slab, index };
        record.clear();
        Ok(record)
    }
}

impl MappedRecord {
    /// Where the GPU finds it.
    pub fn device(&self) -> CuAddress {
        self.slab.memory.device(self.index * size_of::<Record>())
    }
}

impl Deref for MappedRecord {
    type Target = Record;

    fn deref(&self) -> &Record {
        let place = self.slab.memory.host(self.index * size_of::<Record>());
        // SAFETY: zeroed memory of that size, aligned to more than a record; a record is atomic numbers, for which every bit
        // pattern is a value, and the GPU writes them whole.
        unsafe { &*place.cast::<Record>() }
    }
}

impl Drop for MappedRecord {
    fn drop(&mut self) {
        self.slab.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}
