//! The objects that C holds handles of. This is the library's only state outside of its objects.

use super::model::ModelEntry;
use super::table::{Noun, Table};
use crate::runtime::{Batcher, Context, Controller, Engine, Event, Memory};

/// Engines by handle.
pub static ENGINES: Table<Engine> = Table::new(Noun::Engine);
/// Models by handle.
pub static MODELS: Table<ModelEntry> = Table::new(Noun::Model);
/// Contexts by handle: any thread may cancel, one at a time do all else.
pub static CONTEXTS: Table<Controller, Context> = Table::new(Noun::Context);
/// Events by handle.
pub static EVENTS: Table<Event> = Table::new(Noun::Event);
/// Batchers by handle. Their slots are named within them.
pub static BATCHERS: Table<Batcher> = Table::new(Noun::Batcher);
/// Memories by handle.
pub static MEMORIES: Table<Memory> = Table::new(Noun::Memory);

/// The noun that has issued a handle.
pub fn noun_of(handle: u64) -> Option<Noun> {
    let issued = [
        (Noun::Engine, ENGINES.has_issued(handle)),
        (Noun::Model, MODELS.has_issued(handle)),
        (Noun::Context, CONTEXTS.has_issued(handle)),
        (Noun::Event, EVENTS.has_issued(handle)),
        (Noun::Batcher, BATCHERS.has_issued(handle)),
        (Noun::Memory, MEMORIES.has_issued(handle)),
    ];
    issued.into_iter().find_map(|(noun, issued)| issued.then_some(noun))
}
