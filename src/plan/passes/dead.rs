//! Steps whose results nobody reads -> nothing. Translation leaves some (the mask output of Dropout, the second state of an LSTM),
//! and so does every pass that looks through a step.

use super::Draft;
use crate::error::Result;

/// Removes dead steps, last to first, so that what only they read goes with them.
pub fn run(draft: &mut Draft) -> Result<()> {
    for slot in (0..draft.len()).rev() {
        draft.prune(slot);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ir::DType;
    use crate::kernels::{Map, Unary};
    use crate::plan::passes::trial::Trial;

    #[test]
    fn a_chain_that_nobody_reads_goes_with_its_tensors() {
        let mut trial = Trial::empty();
        let x = trial.input(&[2, 3]);
        let live = trial.emit(Map::unary(Unary::Exp, DType::F32), &[&x]);
        let dead = trial.emit(Map::unary(Unary::Tanh, DType::F32), &[&live]);
        trial.emit(Map::unary(Unary::Neg, DType::F32), &[&dead]);
        trial.deliver(&live);
        let plan = trial.check(super::run);
        assert_eq!((plan.steps.len(), plan.tensors.len()), (1, 2));
    }
}
