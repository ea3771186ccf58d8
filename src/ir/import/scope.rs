//! Names to values: one scope per graph, subgraph or function call.

use super::budget::Budget;
use crate::error::{Result, ensure, fail};
use crate::ir::ValueId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A scope that is open, by its depth in the stack of scopes.
pub type ScopeIndex = usize;

#[derive(Debug)]
struct Scope {
    /// The scope whose names are seen through this one; a function sees nothing of its caller.
    parent: Option<ScopeIndex>,
    /// Put in front of the names of values, so that those of inlined functions can be told apart.
    prefix: String,
    names: HashMap<String, Binding>,
}

#[derive(Clone, Copy, Debug)]
struct Binding {
    /// `None` is an optional argument left out.
    value: Option<ValueId>,
    /// A function's output is bound to the caller's value before its own node defines it.
    defined: bool,
}

/// All values of a model, and the scopes that are open while it is walked.
#[derive(Debug, Default)]
pub struct Scopes {
    /// The name of every value.
    pub values: Vec<String>,
    open: Vec<Scope>,
}

/// What a name costs: two strings, a slot of a hash map that may have just doubled, a slot of `values` that, too.
const NAME_BYTES: usize = 256;

impl Scopes {
    /// Opens a scope.
    pub fn push(&mut self, parent: Option<ScopeIndex>, prefix: String) -> ScopeIndex {
        self.open.push(Scope { parent, prefix, names: HashMap::new() });
        self.open.len() - 1
    }

    /// How many scopes are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Closes `scope` and all that were opened after it.
    pub fn close(&mut self, scope: ScopeIndex) {
        self.open.truncate(scope);
    }

    /// The prefix of a scope's names.
    pub fn prefix(&self, scope: ScopeIndex) -> &str {
        &self.open[scope].prefix
    }

    /// A new value without an entry in any scope.
    pub fn fresh(&mut self, scope: ScopeIndex, name: &str, budget: &mut Budget) -> Result<ValueId> {
        let prefix = &self.open[scope].prefix;
        budget.charge(NAME_BYTES + prefix.len() + 2 * name.len())?;
        let id = u32::try_from(self.values.len()).expect("the budget ends long before");
        self.values.push(format!("{prefix}{name}"));
        Ok(ValueId(id))
    }

    /// Gives a name its value, the value that it was bound to if there is one. A second definition is malformed.
    pub fn define(&mut self, scope: ScopeIndex, name: &str, budget: &mut Budget) -> Result<ValueId> {
        if let Some(binding) = self.open[scope].names.get_mut(name) {
            ensure!(!binding.defined, Malformed, "value '{name}' is defined twice");
            if let Some(value) = binding.value {
                binding.defined = true;
                return Ok(value);
            }
        }
        let value = self.fresh(scope, name, budget)?;
        self.open[scope].names.insert(name.to_owned(), Binding { value: Some(value), defined: true });
        Ok(value)
    }

    /// Binds a function's formal input to the caller's argument.
    pub fn bind_input(&mut self, scope: ScopeIndex, name: &str, value: Option<ValueId>) -> Result<()> {
        let old = self.open[scope].names.insert(name.to_owned(), Binding { value, defined: true });
        ensure!(old.is_none(), Malformed, "input '{name}' is declared twice");
        Ok(())
    }

    /// Binds a function's formal output to the caller's value, to be defined later. An output that is also an input is
    /// not bound: gives what the input is bound to.
    pub fn bind_output(&mut self, scope: ScopeIndex, name: &str, value: ValueId) -> Result<Option<Option<ValueId>>> {
        match self.open[scope].names.entry(name.to_owned()) {
            Entry::Vacant(slot) => {
                slot.insert(Binding { value: Some(value), defined: false });
                Ok(None)
            }
            Entry::Occupied(slot) => {
                ensure!(slot.get().defined, Malformed, "output '{name}' is declared twice");
                Ok(Some(slot.get().value))
            }
        }
    }

    /// Whether a bound output has been defined.
    pub fn is_defined(&self, scope: ScopeIndex, name: &str) -> bool {
        self.open[scope].names.get(name).is_some_and(|binding| binding.defined)
    }

    /// The value of a name, seen from a scope; the outer `None` is an unknown name.
    pub fn lookup(&self, scope: ScopeIndex, name: &str) -> Option<Option<ValueId>> {
        let mut at = Some(scope);
        while let Some(index) = at {
            if let Some(binding) = self.open[index].names.get(name) {
                return Some(binding.value);
            }
            at = self.open[index].parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    #[test]
    fn names_are_seen_from_inside_and_shadowed_but_not_from_a_function() {
        let (mut scopes, mut budget) = (Scopes::default(), Budget::new(0));
        let main = scopes.push(None, String::new());
        let x = scopes.define(main, "x", &mut budget).unwrap();
        let body = scopes.push(Some(main), String::new());
        assert_eq!(scopes.lookup(body, "x"), Some(Some(x)));
        let inner = scopes.define(body, "x", &mut budget).unwrap();
        assert_ne!(inner, x);
        assert_eq!(scopes.lookup(body, "x"), Some(Some(inner)));
        let function = scopes.push(None, "call/".into());
        assert_eq!(scopes.lookup(function, "x"), None);
        assert_eq!(scopes.define(main, "x", &mut budget).unwrap_err().status, Status::Malformed);
    }

    #[test]
    fn a_bound_output_is_defined_once() {
        let (mut scopes, mut budget) = (Scopes::default(), Budget::new(0));
        let main = scopes.push(None, String::new());
        let result = scopes.define(main, "result", &mut budget).unwrap();
        let call = scopes.push(None, "call/".into());
        assert_eq!(scopes.bind_output(call, "y", result), Ok(None));
        assert!(!scopes.is_defined(call, "y"));
        assert_eq!(scopes.define(call, "y", &mut budget), Ok(result));
        assert!(scopes.is_defined(call, "y") && scopes.define(call, "y", &mut budget).is_err());
        scopes.bind_input(call, "x", None).unwrap();
        assert_eq!(scopes.bind_output(call, "x", result), Ok(Some(None)));
    }
}
