//! The objects behind the handles of one noun.
//!
//! A handle is type (8 bits), generation (40 bits), slot (16 bits). Slots come in blocks that are made when they are
//! first needed and never go away, so that any 64-bit number can be looked up at any time.

use super::objects;
use super::slot::{Departure, GENERATION_MAX, Refusal, SlotWord};
use crate::error::{Error, Result, Status, ensure, fail};
use crate::limits::HANDLES_MAX;
use once_cell::sync::OnceCell;
use std::cell::UnsafeCell;
use std::sync::{Mutex, PoisonError};

const BLOCK_SLOTS: usize = 256;
const BLOCKS: usize = HANDLES_MAX / BLOCK_SLOTS;
const INDEX_BITS: u32 = 16;
const TYPE_SHIFT: u32 = 56;

/// The nouns, by the type in their handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Noun {
    /// `si_engine`
    Engine = 1,
    /// `si_model`
    Model = 2,
    /// `si_context`
    Context = 3,
    /// `si_event`
    Event = 4,
    /// `si_batcher`
    Batcher = 5,
    /// `si_memory`
    Memory = 6,
}

impl Noun {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Noun::Engine => "engine",
            Noun::Model => "model",
            Noun::Context => "context",
            Noun::Event => "event",
            Noun::Batcher => "batcher",
            Noun::Memory => "memory",
        }
    }
}

/// What a slot holds: `shared` for calls that pin, `own` for calls that enter.
struct Object<S, O> {
    shared: S,
    own: UnsafeCell<O>,
}

struct Slot<S, O> {
    word: SlotWord,
    object: UnsafeCell<Option<Object<S, O>>>,
}

// SAFETY: the word gives `own` to one thread at a time and `shared` to any number, and neither while the object is
// put in place or destroyed.
unsafe impl<S: Send + Sync, O: Send> Sync for Slot<S, O> {}

/// Slots that can be given out.
struct Vacancies {
    freed: Vec<u16>,
    unused: usize,
}

/// Slots come into being a block at a time, and stay.
type Block<S, O> = OnceCell<Box<[Slot<S, O>]>>;

/// The table of one noun. `S` is what any thread may use, `O` what one call at a time may.
pub struct Table<S, O = ()> {
    noun: Noun,
    blocks: [Block<S, O>; BLOCKS],
    vacancies: Mutex<Vacancies>,
}

impl<S: Send + Sync, O: Send> Table<S, O> {
    /// An empty table.
    pub const fn new(noun: Noun) -> Self {
        let vacancies = Mutex::new(Vacancies { freed: Vec::new(), unused: 0 });
        Table { noun, blocks: [const { OnceCell::new() }; BLOCKS], vacancies }
    }

    /// Puts an object in a slot and gives its handle to `name` before anyone else can know it.
    pub fn insert(&self, shared: S, mut own: O, name: impl FnOnce(u64, &mut O)) -> Result<u64> {
        let index = self.take_vacancy()?;
        let block = self.blocks[index / BLOCK_SLOTS].get_or_try_init(make_block);
        let slot = &block.inspect_err(|_| self.give_back(index as u16))?[index % BLOCK_SLOTS];
        let handle = (self.noun as u64) << TYPE_SHIFT | slot.word.generation() << INDEX_BITS | index as u64;
        name(handle, &mut own);
        // SAFETY: the slot is vacant, and this thread alone has it from the list of vacancies.
        unsafe { *slot.object.get() = Some(Object { shared, own: UnsafeCell::new(own) }) };
        slot.word.publish();
        Ok(handle)
    }

    fn take_vacancy(&self) -> Result<usize> {
        let mut vacancies = self.vacancies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = vacancies.freed.pop() {
            return Ok(index.into());
        }
        ensure!(
            vacancies.unused < HANDLES_MAX,
            LimitReached,
            "{HANDLES_MAX} handles of {} are alive",
            self.noun.name()
        );
        vacancies.unused += 1;
        Ok(vacancies.unused - 1)
    }

    fn give_back(&self, index: u16) {
        self.vacancies.lock().unwrap_or_else(PoisonError::into_inner).freed.push(index);
    }

    /// Whether the number was ever a handle of this noun.
    pub fn has_issued(&self, handle: u64) -> bool {
        self.find(handle).is_ok_and(|(slot, generation)| slot.word.has_issued(generation))
    }

    #[inline]
    fn find(&self, handle: u64) -> std::result::Result<(&Slot<S, O>, u64), Refusal> {
        let (index, generation) = (handle as usize % HANDLES_MAX, handle >> INDEX_BITS & GENERATION_MAX);
        let is_ours = handle >> TYPE_SHIFT == self.noun as u64;
        let block = self.blocks[index / BLOCK_SLOTS].get().filter(|_| is_ours).ok_or(Refusal::Forged)?;
        Ok((&block[index % BLOCK_SLOTS], generation))
    }

    /// The slot of a handle, once `take` has let the caller in.
    #[inline]
    fn reach(
        &self,
        handle: u64,
        take: impl FnOnce(&SlotWord, u64) -> std::result::Result<(), Refusal>,
    ) -> Result<&Slot<S, O>> {
        let taken = self.find(handle).and_then(|(slot, generation)| take(&slot.word, generation).map(|()| slot));
        taken.map_err(|refusal| self.explain(handle, refusal))
    }

    /// Runs a call that excludes nobody.
    pub fn pin<T>(&self, handle: u64, call: impl FnOnce(&S) -> Result<T>) -> Result<T> {
        let slot = self.reach(handle, SlotWord::pin)?;
        let _pinned = Pinned { table: self, slot, handle };
        // SAFETY: pinned, so the object is in place, and only shared references to `shared` exist.
        let object = unsafe { (*slot.object.get()).as_ref() };
        call(&object.ok_or_else(empty)?.shared)
    }

    /// Runs a call that excludes every other such call. If it panics, the object is poisoned.
    #[inline]
    pub fn enter<T>(&self, handle: u64, call: impl FnOnce(&mut O) -> Result<T>) -> Result<T> {
        let slot = self.reach(handle, SlotWord::enter)?;
        let mut entered = Entered { table: self, slot, handle, is_complete: false };
        // SAFETY: entered, so the object is in place, and this is the only reference to `own`.
        let own = unsafe { (*slot.object.get()).as_ref().map(|object| &mut *object.own.get()) };
        let result = own.ok_or_else(empty).and_then(call);
        entered.is_complete = true;
        result
    }

    /// Frees the object: now, or when its last user leaves. `on_close` runs first if there are users.
    pub fn remove(&self, handle: u64, on_close: impl FnOnce(&S)) -> Result<()> {
        if handle == 0 {
            return Ok(());
        }
        // Pinned for `on_close`, since another user may leave at any time; so whoever unpins last destroys the object.
        let slot = self.reach(handle, SlotWord::pin)?;
        let _pinned = Pinned { table: self, slot, handle };
        let generation = handle >> INDEX_BITS & GENERATION_MAX;
        slot.word.close(generation).map_err(|refusal| self.explain(handle, refusal))?;
        // SAFETY: pinned, as in `pin`.
        if let Some(object) = unsafe { (*slot.object.get()).as_ref() } {
            on_close(&object.shared);
        }
        Ok(())
    }

    #[inline]
    fn depart(&self, slot: &Slot<S, O>, handle: u64, departure: Departure) {
        if departure == Departure::Last {
            self.destroy(slot, handle);
        }
    }

    /// Only [`Table::depart`] calls it, for the last user of a slot that is closing.
    #[cold]
    #[inline(never)]
    fn destroy(&self, slot: &Slot<S, O>, handle: u64) {
        // SAFETY: the word has let the last user out and lets nobody in.
        let object = unsafe { (*slot.object.get()).take() };
        drop(object);
        if slot.word.retire() {
            self.give_back(handle as u16);
        }
    }

    #[cold]
    #[inline(never)]
    fn explain(&self, handle: u64, refusal: Refusal) -> Error {
        let name = self.noun.name();
        match refusal {
            Refusal::Forged if handle == 0 => fail!(InvalidHandle, "the {name} handle is zero"),
            Refusal::Forged => match objects::noun_of(handle) {
                Some(noun) => fail!(WrongType, "{handle:#018x} is a handle of {}, not of {name}", noun.name()),
                None => fail!(InvalidHandle, "{handle:#018x} was never a handle of the library"),
            },
            Refusal::Stale => fail!(StaleHandle, "the {name} {handle:#018x} has been freed"),
            Refusal::Busy => fail!(Busy, "another thread is inside a call on the {name}"),
            Refusal::Poisoned => Error::new(Status::Poisoned, format!("a panic left the {name} unusable: free it")),
        }
    }
}

#[cold]
#[inline(never)]
fn empty() -> Error {
    fail!(Internal, "an empty slot is live")
}

/// The slots of one block; fails rather than aborts where there is no memory.
fn make_block<S, O>() -> Result<Box<[Slot<S, O>]>> {
    let mut slots = Vec::new();
    slots.try_reserve_exact(BLOCK_SLOTS).map_err(|_| fail!(OutOfMemory, "no memory for {BLOCK_SLOTS} handles"))?;
    slots.resize_with(BLOCK_SLOTS, || Slot { word: SlotWord::new(), object: UnsafeCell::new(None) });
    Ok(slots.into_boxed_slice())
}

/// Unpins however the call ends.
struct Pinned<'a, S: Send + Sync, O: Send> {
    table: &'a Table<S, O>,
    slot: &'a Slot<S, O>,
    handle: u64,
}

impl<S: Send + Sync, O: Send> Drop for Pinned<'_, S, O> {
    #[inline]
    fn drop(&mut self) {
        self.table.depart(self.slot, self.handle, self.slot.word.unpin());
    }
}

/// Leaves however the call ends, and poisons the object if a panic ended it.
struct Entered<'a, S: Send + Sync, O: Send> {
    table: &'a Table<S, O>,
    slot: &'a Slot<S, O>,
    handle: u64,
    is_complete: bool,
}

impl<S: Send + Sync, O: Send> Drop for Entered<'_, S, O> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_complete {
            self.slot.word.poison();
        }
        self.table.depart(self.slot, self.handle, self.slot.word.leave());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_with_another_generation() {
        static TABLE: Table<u32> = Table::new(Noun::Event);
        let first = TABLE.insert(1, (), |_, ()| ()).unwrap();
        TABLE.remove(first, |_| ()).unwrap();
        let second = TABLE.insert(2, (), |_, ()| ()).unwrap();
        assert_eq!(first as u16, second as u16);
        assert_ne!(first, second);
        assert_eq!(TABLE.pin(first, |_| Ok(())).unwrap_err().status, Status::StaleHandle);
        assert_eq!(TABLE.pin(second, |&object| Ok(object)).unwrap(), 2);
        let next = second + (1 << INDEX_BITS);
        assert_eq!(TABLE.pin(next, |_| Ok(())).unwrap_err().status, Status::InvalidHandle);
        assert_eq!(TABLE.remove(first, |_| ()).unwrap_err().status, Status::StaleHandle);
        assert!(TABLE.remove(0, |_| ()).is_ok());
    }

    /// `STREAMINFER_FORGED=1000000000` runs the full number.
    #[test]
    fn no_forged_handle_is_accepted() {
        static TABLE: Table<u32> = Table::new(Noun::Model);
        let live: Vec<u64> = (0..1000).map(|value| TABLE.insert(value, (), |_, ()| ()).unwrap()).collect();
        let count =
            std::env::var("STREAMINFER_FORGED").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000u64);
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut accepted = 0;
        for round in 0..count {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Every second one has the right type, so that generation and index alone decide.
            let own_type = state >> 8 | (Noun::Model as u64) << TYPE_SHIFT;
            let forged = if round % 2 == 0 { state } else { own_type };
            let admitted = TABLE.find(forged).is_ok_and(|(slot, generation)| slot.word.pin(generation).is_ok());
            accepted += u64::from(admitted && !live.contains(&forged));
        }
        assert_eq!(accepted, 0);
    }
}
