//! `run`: a model once.

use crate::args::Run;
use crate::arrays::{self, Arrays};
use crate::feed::{Feed, read_output};
use crate::target::{Loaded, Share, note, open};
use streaminfer::error::Result;

pub fn run(args: &Run) -> Result<()> {
    let mut arrays = Arrays::open(&args.inputs)?;
    let engine = open(&args.target, 0)?;
    let feed = |inputs: &_| Feed::from_arrays(&mut arrays, inputs);
    let loaded = Loaded::new(&engine, &args.model, &args.target, Share::default(), feed)?;
    note(&engine);
    let mut context = loaded.context()?;
    context.run()?;
    let outputs = loaded.model.outputs().into_iter().enumerate();
    let outputs = outputs.map(|(index, output)| Ok((output.name, read_output(&context, index)?)));
    arrays::write(&args.outputs, &outputs.collect::<Result<Vec<_>>>()?)
}
