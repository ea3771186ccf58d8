//! Events: marks in one context's order of work that others wait for on their streams.

use super::context::Context;
use super::engine::{Engine, EngineCore};
use super::ledger::{Account, Entry};
use crate::device::Mark;
use crate::device::host::process::Lock;
use crate::error::{Result, ensure, fail};
use std::sync::Arc;

/// A mark that can be moved. It may outlive the context that it marks.
pub struct Event {
    engine: Arc<EngineCore>,
    mark: Lock<Option<Mark>>,
    _entry: Entry,
}

impl Event {
    /// An event, not recorded yet.
    ///
    /// # Errors
    /// None today; devices with events of their own may run out of them.
    pub fn new(engine: &Engine) -> Result<Event> {
        let entry = engine.core.ledger.enter(Account::Events, 1)?;
        Ok(Event { engine: engine.core.clone(), mark: Lock::default(), _entry: entry })
    }

    fn ensure_same_engine(&self, context: &Context) -> Result<()> {
        let same = Arc::ptr_eq(&self.engine, context.engine());
        ensure!(same, InvalidArgument, "event and context belong to different engines");
        Ok(())
    }

    /// Moves the mark behind everything submitted to the context so far.
    ///
    /// # Errors
    /// `InvalidArgument` for another engine, `WrongState` before prepare, `WrongThread`.
    pub fn record(&self, context: &Context) -> Result<()> {
        self.ensure_same_engine(context)?;
        let mark = context.mark()?;
        *self.mark.lock()? = Some(mark);
        Ok(())
    }

    /// Lets the context's next request start only after the mark. Returns at once.
    ///
    /// # Errors
    /// `NotRecorded`, `LimitReached`, and those of [`Event::record`].
    pub fn wait(&self, context: &mut Context) -> Result<()> {
        self.ensure_same_engine(context)?;
        let mark = self.mark.lock()?.clone();
        context.wait_for(mark.ok_or_else(|| fail!(NotRecorded, "the event has not been recorded"))?)
    }
}
