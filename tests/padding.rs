//! Requests smaller than their bucket give what a bucket of exactly their shapes gives, and what cannot be padded is refused
//! when it is loaded.

mod models;
mod native;

use streaminfer::error::{Result, Status};
use streaminfer::runtime::{
    Bucket, Context, ContextOptions, Engine, EngineOptions, Model, ModelOptions, Padding, PaddingKind,
};

const BATCH: u32 = 7;
const LENGTH: u32 = 9;

fn padding(kind: PaddingKind, dimension: u32, input: usize, axis: usize, value: f64) -> Padding {
    Padding { kind, dimension, input, axis, value }
}

fn batch(input: usize, axis: usize) -> Padding {
    padding(PaddingKind::Batch, BATCH, input, axis, 0.0)
}

fn masked(input: usize, axis: usize, value: f64) -> Padding {
    padding(PaddingKind::Masked, LENGTH, input, axis, value)
}

fn load(bytes: bytes::Bytes, buckets: Vec<Bucket>, paddings: &[Padding]) -> Result<Model> {
    let options = ModelOptions { buckets, paddings: paddings.to_vec(), ..ModelOptions::default() };
    Engine::open(&EngineOptions::default())?.load_bytes(bytes, &options)
}

fn prepared(model: &Model) -> Context {
    let mut context = model.context(&ContextOptions::default()).unwrap();
    context.prepare().unwrap();
    context
}

fn refusal(bytes: bytes::Bytes, bucket: Bucket, paddings: &[Padding]) -> String {
    let error = load(bytes, vec![bucket], paddings).err().expect("the load is refused");
    assert!(matches!(error.status, Status::Unsupported | Status::InvalidArgument | Status::ShapeMismatch), "{error}");
    error.message
}

/// Runs the leading corner of row-major rows, and answers the request's corner of the output.
fn run(context: &mut Context, rows: &[&[f32]]) -> Vec<f32> {
    for (input, at) in [0, 1].into_iter().enumerate() {
        let Ok(view) = context.input_view(input) else { break };
        let stride = view.strides_bytes().next().unwrap() / 4;
        assert_eq!(view.shape, [rows.len(), rows[0].len()]);
        let place = context.input_mut::<f32>(input).unwrap();
        for (index, row) in rows.iter().enumerate() {
            let values = row.iter().map(|value| if at == 0 { *value } else { 1.0 });
            values.zip(&mut place[index * stride..]).for_each(|(value, place)| *place = value);
        }
    }
    context.run().unwrap();
    let view = context.output_view(0).unwrap();
    let (shape, stride) = (view.shape.to_vec(), view.strides_bytes().next().unwrap() / 4);
    let output = context.output::<f32>(0).unwrap();
    let columns = shape.get(1).copied().unwrap_or(1);
    (0..shape[0]).flat_map(|row| output[row * stride..][..columns].to_vec()).collect()
}

#[test]
fn a_smaller_batch_runs_in_the_bucket_that_wastes_least() {
    let buckets = vec![Bucket::new([vec![8, 2]]), Bucket::new([vec![3, 2]])];
    let model = load(models::dense(), buckets, &[batch(0, 0)]).unwrap();
    let mut context = prepared(&model);
    for rows in [1, 2, 3, 5, 8, 2] {
        context.select(&Bucket::new([vec![rows, 2]])).unwrap();
        let expected_bucket = if rows <= 3 { 3 } else { 8 };
        assert_eq!(context.output_view(0).unwrap().bucket_shape, [expected_bucket, 3]);
        assert_eq!(context.output_view(0).unwrap().shape, [rows, 3]);
        let inputs: Vec<[f32; 2]> = (0..rows).map(|row| [row as f32, 1.0]).collect();
        let expected: Vec<f32> =
            inputs.iter().flat_map(|[x, y]| [x + 4.0 * y, 2.0 * x + 5.0 * y, 3.0 * x + 6.0 * y - 100.0]).collect();
        let expected: Vec<f32> = expected.into_iter().map(|value| value.max(0.0)).collect();
        let rows: Vec<&[f32]> = inputs.iter().map(<[f32; 2]>::as_slice).collect();
        assert_eq!(run(&mut context, &rows), expected);
    }
    for unfit in [vec![9, 2], vec![0, 2], vec![2, 1]] {
        assert_eq!(context.select(&Bucket::new([unfit])).unwrap_err().status, Status::NoBucket);
    }
}

#[test]
fn what_the_model_masks_may_be_padded_with_what_the_mask_says() {
    let shapes = |batch: usize, length: usize| Bucket::new([vec![batch, length], vec![batch, length]]);
    let paddings = [batch(0, 0), batch(1, 0), masked(0, 1, 1000.0), masked(1, 1, 0.0)];
    let model = load(models::masked_mean(), vec![shapes(4, 8)], &paddings).unwrap();
    let exact = load(models::masked_mean(), vec![shapes(2, 3)], &[]).unwrap();
    let (mut context, mut exact) = (prepared(&model), prepared(&exact));
    let rows: [&[f32]; 2] = [&[1.0, 2.0, 6.0], &[-4.0, 0.5, 0.5]];
    // A larger request before it leaves its traces in the memory.
    run(&mut context, &[[77.0; 8].as_slice(); 4]);
    context.select(&shapes(2, 3)).unwrap();
    assert_eq!(run(&mut context, &rows), [3.0, -1.0]);
    assert_eq!(run(&mut exact, &rows), [3.0, -1.0]);
    // The two inputs have the same extents, or it is no request.
    let uneven = Bucket::new([vec![2, 3], vec![2, 4]]);
    assert_eq!(context.select(&uneven).unwrap_err().status, Status::NoBucket);
    // Rows that would be divided by a mask without a mark, 0 / 0, are nobody's rows.
    context.select(&shapes(1, 8)).unwrap();
    assert_eq!(run(&mut context, &[&[2.0; 8]]), [2.0]);
    // With a mask that does not mask, padding shows.
    let wrong = [masked(0, 1, 1000.0), masked(1, 1, 1.0)];
    assert!(refusal(models::masked_mean(), shapes(4, 8), &wrong).contains("padding changes output 0"));
}

#[test]
fn rows_that_the_model_flattens_shrink_in_proportion() {
    let model = load(models::flattened(), vec![Bucket::new([vec![4, 3]])], &[batch(0, 0)]).unwrap();
    let mut context = prepared(&model);
    context.select(&Bucket::new([vec![2, 3]])).unwrap();
    assert_eq!(context.output_view(0).unwrap().shape, [6]);
    assert_eq!(run(&mut context, &[&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn what_padding_would_change_is_refused_at_load() {
    let four_by_six = || Bucket::new([vec![4, 6]]);
    let message = refusal(models::plain_mean(0), four_by_six(), &[batch(0, 0)]);
    assert!(message.contains("mixes the rows") && message.contains("Reduce"), "{message}");
    let message = refusal(models::plain_mean(1), four_by_six(), &[masked(0, 1, 0.0)]);
    assert!(message.contains("padding changes output 0"), "{message}");
    let message = refusal(models::times_batch(), four_by_six(), &[batch(0, 0)]);
    assert!(message.contains("padding changes output 0"), "the rows are independent, but know their number: {message}");
    let message = refusal(models::flattened(), four_by_six(), &[masked(0, 1, 0.0)]);
    assert!(message.contains("in proportion"), "{message}");
    let message = refusal(models::in_pairs(), Bucket::new([vec![6]]), &[masked(0, 0, 0.0)]);
    assert!(message.contains("in proportion"), "6 and 4 are even, 5 is not: {message}");
    load(models::plain_mean(1), vec![four_by_six()], &[batch(0, 0)]).unwrap();
}

#[test]
fn a_refused_bucket_leaves_nothing_behind() {
    let engine = Engine::open(&EngineOptions::default()).unwrap();
    let options = ModelOptions { paddings: vec![batch(0, 0)], ..ModelOptions::default() };
    let model = engine.load_bytes(models::times_batch(), &options).unwrap();
    assert_eq!(model.add_bucket(&Bucket::new([vec![4, 6]])).unwrap_err().status, Status::Unsupported);
    let stats = engine.stats();
    assert_eq!((stats.weights_bytes, stats.threads, stats.contexts, stats.in_flight), (0, 0, 0, 0));
    // With a single row there is nothing to pad.
    model.add_bucket(&Bucket::new([vec![1, 6]])).unwrap();
    assert_eq!(engine.stats().weights_bytes, model.info().weights_bytes as u64);
}

#[test]
fn contradictory_declarations_are_refused() {
    let bucket = || Bucket::new([vec![4, 2]]);
    let refused = |paddings: &[Padding]| refusal(models::dense(), bucket(), paddings);
    assert!(refused(&[batch(1, 0)]).contains("no input 1"));
    assert!(refused(&[batch(0, 1)]).contains("no open axis 1"));
    assert!(refused(&[batch(0, 7)]).contains("no open axis 7"));
    assert!(refused(&[batch(0, 0), batch(0, 0)]).contains("declared twice"));
    let square = [batch(0, 0), batch(0, 1)];
    assert!(refusal(models::flattened(), Bucket::new([vec![4, 4]]), &square).contains("along two axes"));
    let two_kinds = [batch(0, 0), padding(PaddingKind::Masked, BATCH, 0, 1, 0.0)];
    assert!(refusal(models::flattened(), Bucket::new([vec![4, 4]]), &two_kinds).contains("two kinds"));
    let uneven = [masked(0, 1, 0.0), masked(1, 1, 0.0)];
    let bucket = Bucket::new([vec![2, 3], vec![2, 4]]);
    assert!(refusal(models::masked_mean(), bucket, &uneven).contains("no common extent"));
}

#[test]
fn a_linked_input_cannot_be_padded() {
    let engine = Engine::open(&EngineOptions::default()).unwrap();
    let options = ModelOptions {
        buckets: vec![Bucket::new([vec![4, 6]])],
        paddings: vec![batch(0, 0)],
        ..ModelOptions::default()
    };
    let identity = ModelOptions { buckets: options.buckets.clone(), ..ModelOptions::default() };
    let source = prepared(&engine.load_bytes(models::times_batch(), &identity).unwrap());
    let mut target =
        engine.load_bytes(models::plain_mean(1), &options).unwrap().context(&ContextOptions::default()).unwrap();
    target.link(0, &source, 0).unwrap();
    target.prepare().unwrap();
    target.select(&Bucket::new([vec![4, 6]])).unwrap();
    let error = target.select(&Bucket::new([vec![3, 6]])).unwrap_err();
    assert!(error.status == Status::NoBucket && error.message.contains("'x' is linked"), "{error}");
}

#[test]
fn the_c_options_declare_paddings() {
    let folder = native::folder("padding");
    let model = folder.join("dense.onnx");
    std::fs::write(&model, models::dense()).unwrap();
    let program = native::program(&folder, "padding", include_str!("abi/padding.c"));
    let report = native::run(std::process::Command::new(program).arg(&model));
    assert_eq!(report.trim(), "3 rows of 4: 5 7 0 5 7 0 5 7 0");
}
