//! Names the type of files: load, bind, write in place, run, read in place.
//!
//! ```text
//! cargo run --release --example classify -- MODELS FILE...
//! ```
//!
//! MODELS is the folder with magika.onnx and magika.config.json (`make models`). The model sees the first and the last
//! 1024 bytes of a file without the white space around them, one number per byte, 256 where there is none.

use std::error::Error;
use std::fs;
use std::path::Path;
use streaminfer::runtime::{Bucket, ContextOptions, Engine, EngineOptions, ModelOptions};

const PART: usize = 1024;
const BLOCK: usize = 4096;
const PADDING: i32 = 256;

/// The strings of the array that stands behind `key`.
fn labels<'a>(json: &'a str, key: &str) -> Option<Vec<&'a str>> {
    let (_, rest) = json.split_once(key)?;
    let (list, _) = rest.split_once('[')?.1.split_once(']')?;
    Some(list.split('"').skip(1).step_by(2).collect())
}

/// Writes a file's features where the model reads them. `false` if the file is too short to tell.
fn write_features(content: &[u8], features: &mut [i32]) -> bool {
    features.fill(PADDING);
    let head = content[..content.len().min(BLOCK)].trim_ascii_start();
    let tail = content[content.len().saturating_sub(BLOCK)..].trim_ascii_end();
    if head.len() < 8 {
        return false;
    }
    for (feature, &byte) in features[..PART].iter_mut().zip(head) {
        *feature = byte.into();
    }
    for (feature, &byte) in features[PART..].iter_mut().rev().zip(tail.iter().rev()) {
        *feature = byte.into();
    }
    true
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let models = arguments.next().ok_or("usage: classify MODELS FILE...")?;
    let models = Path::new(&models);
    let config = fs::read_to_string(models.join("magika.config.json"))?;
    let labels = labels(&config, "\"target_labels_space\"").ok_or("magika.config.json has no labels")?;

    // Load: one request has the features of one file.
    let engine = Engine::open(&EngineOptions::default())?;
    let buckets = vec![Bucket::new([vec![1, 2 * PART]])];
    let model = engine.load(models.join("magika.onnx"), &ModelOptions { buckets, ..ModelOptions::default() })?;
    let mut context = model.context(&ContextOptions::default())?;
    context.prepare()?;

    // Bind: this thread is the context's.
    context.bind()?;
    for path in arguments {
        // Write in place, run, read in place.
        if !write_features(&fs::read(&path)?, context.input_mut::<i32>(0)?) {
            println!("{path}: too short to tell");
            continue;
        }
        context.run()?;
        let scores = context.output::<f32>(0)?.iter().enumerate();
        let (best, score) = scores.max_by(|a, b| a.1.total_cmp(b.1)).ok_or("the model has no output")?;
        println!("{path}: {} ({:.1} %)", labels.get(best).unwrap_or(&"unknown"), 100.0 * f64::from(*score));
    }
    context.unbind()?;
    Ok(())
}
