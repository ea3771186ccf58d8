//! `bench-memory --requests`: one request whose input, or output, is moved by kernels over mapped memory, and by the GPU's copy engines. From which
//! size on the engines are faster is what the device's thresholds should be.

use crate::args::BenchMemory;
use crate::memory::{median, micros, timed};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use streaminfer::error::{Error, Result, Status};
use streaminfer::runtime::{Context, ContextOptions, CopyEngines, DeviceKind, Engine, EngineOptions, ModelOptions};

/// Requests that are not counted.
const WARM_UP: u32 = 20;
/// Elements that both ends of a request have at least.
const FEW: usize = 4;
/// Requests for each copy of rows that the options ask for.
const REQUESTS: u32 = 10;

/// Which tensor is large.
#[derive(Clone, Copy)]
enum Large {
    Input,
    Output,
}

pub fn requests(args: &BenchMemory) -> Result<Value> {
    let start = Instant::now();
    // Both ways are open at once and take turns, so that whatever else changes meanwhile changes both.
    let open = |engines: CopyEngines| {
        let copy_engines = Some(engines);
        Engine::open(&EngineOptions { device: args.device.clone(), copy_engines, ..EngineOptions::default() })
    };
    let (all, none) = (0, usize::MAX);
    let kernels = open(CopyEngines { inputs_from: none, outputs_from: none })?;
    let is_gpu = kernels.device().kind == DeviceKind::Cuda;
    if !is_gpu {
        let reason = kernels.passed_over().map_or(String::new(), |error| format!(": {error}"));
        return Err(Error::new(Status::NoDevice, format!("only a GPU has copy engines{reason}")));
    }
    let mut found = Vec::new();
    for (large, engines) in [
        (Large::Input, open(CopyEngines { inputs_from: all, outputs_from: none })?),
        (Large::Output, open(CopyEngines { inputs_from: none, outputs_from: all })?),
    ] {
        let sizes = args.bytes.iter().map(|&bytes| size(&[&kernels, &engines], large, bytes as usize, args.repeats));
        found.push(sizes.collect::<Result<Vec<_>>>()?);
    }
    let [inputs, outputs] = [&found[0], &found[1]];
    Ok(json!({
        "device": kernels.device().id,
        "name": kernels.device().name,
        "requests": args.repeats * REQUESTS,
        "inputs": inputs.iter().map(Times::report).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(Times::report).collect::<Vec<_>>(),
        "inputs_from": threshold(inputs),
        "outputs_from": threshold(outputs),
        "seconds": (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    }))
}

/// Medians of one size.
struct Times {
    bytes: usize,
    kernels: Duration,
    engines: Duration,
}

impl Times {
    fn report(&self) -> Value {
        json!({ "bytes": self.bytes, "kernels_us": micros(self.kernels), "engines_us": micros(self.engines) })
    }
}

/// The least size from which on engines are faster at every larger one, too; none if they are not at the largest.
fn threshold(times: &[Times]) -> Option<usize> {
    let mut sizes: Vec<&Times> = times.iter().collect();
    sizes.sort_by_key(|times| times.bytes);
    sizes.iter().rev().take_while(|times| times.engines < times.kernels).last().map(|times| times.bytes)
}

/// Requests by kernels and by engines, in turn.
fn size(engines: &[&Engine; 2], large: Large, bytes: usize, repeats: u32) -> Result<Times> {
    let count = (bytes / size_of::<f32>()).max(FEW);
    let mut contexts = Vec::new();
    for engine in engines {
        let mut context =
            engine.load_bytes(model(large, count), &ModelOptions::default())?.context(&ContextOptions::default())?;
        context.prepare()?;
        contexts.push(context);
    }
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..WARM_UP + repeats * REQUESTS {
        for (context, times) in contexts.iter_mut().zip(&mut times) {
            let time = request(context, round as f32)?;
            if round >= WARM_UP {
                times.push(time);
            }
        }
    }
    let [kernels, engines] = times.map(median);
    Ok(Times { bytes: count * size_of::<f32>(), kernels, engines })
}

/// One request on fresh inputs. The output's ends are what the model gives.
fn request(context: &mut Context, value: f32) -> Result<Duration> {
    context.input_mut::<f32>(0)?.fill(value);
    let ((), time) = timed(|| context.run())?;
    let output = context.output::<f32>(0)?;
    let (first, last) = (output[0], output[output.len() - 1]);
    if first != value || last != if output.len() > FEW { PAD } else { value } {
        return Err(Error::new(Status::Internal, format!("a request on {value} gave {first} and {last}")));
    }
    Ok(time)
}

/// What large outputs end with.
const PAD: f32 = 0.0;

/// A protobuf field of bytes.
fn field(number: usize, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = varint(number << 3 | 2);
    bytes.extend(varint(payload.as_ref().len()));
    bytes.extend_from_slice(payload.as_ref());
    bytes
}

/// A protobuf field of a number.
fn number(field: usize, value: usize) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The ONNX model with one large tensor of `count` floats and hardly any work: the last elements of its input, or its input padded.
fn model(large: Large, count: usize) -> Bytes {
    let (kind, attributes, inputs, outputs) = match large {
        Large::Input => ("Slice", vec![("starts", vec![count - FEW]), ("ends", vec![count])], count, FEW),
        Large::Output => ("Pad", vec![("pads", vec![0, count - FEW])], FEW, count),
    };
    let attribute = |(name, values): &(&str, Vec<usize>)| {
        let values: Vec<u8> = values.iter().flat_map(|&value| number(8, value)).collect();
        [field(1, name), values, number(20, 7)].concat()
    };
    let attributes: Vec<u8> = attributes.iter().flat_map(|it| field(5, attribute(it))).collect();
    let node = [field(1, "x"), field(2, "y"), field(4, kind), attributes].concat();
    let value = |name: &str, count: usize| {
        let shape = field(1, number(1, count));
        [field(1, name), field(2, field(1, [number(1, 1), field(2, shape)].concat()))].concat()
    };
    let graph = [field(1, node), field(2, "copies"), field(11, value("x", inputs)), field(12, value("y", outputs))];
    // The last version of operators in which Slice and Pad have attributes.
    [number(1, 4), field(8, number(2, 9)), field(7, graph.concat())].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_give_what_requests_expect() {
        let host = Engine::open(&EngineOptions { device: "host".into(), ..EngineOptions::default() }).unwrap();
        for (large, counts) in [(Large::Input, [300, 4]), (Large::Output, [4, 300])] {
            let model = host.load_bytes(model(large, 300), &ModelOptions::default()).unwrap();
            assert_eq!(model.inputs()[0].dims, Some(vec![Some(counts[0])]));
            let mut context = model.context(&ContextOptions::default()).unwrap();
            context.prepare().unwrap();
            request(&mut context, 2.5).unwrap();
            assert_eq!(context.output::<f32>(0).unwrap().len(), counts[1]);
        }
    }

    #[test]
    fn engines_are_worth_it_from_where_they_stay_faster() {
        let times = |kernels: &[u64], engines: &[u64]| {
            let pairs = kernels.iter().zip(engines).enumerate();
            let of = |(index, (&kernels, &engines)): (usize, (&u64, &u64))| Times {
                bytes: 1 << index,
                kernels: Duration::from_micros(kernels),
                engines: Duration::from_micros(engines),
            };
            threshold(&pairs.map(of).collect::<Vec<_>>())
        };
        assert_eq!(times(&[1, 9, 3, 8, 9], &[5, 6, 7, 7, 7]), Some(8), "a lucky size below counts for nothing");
        assert_eq!(times(&[5, 5], &[1, 1]), Some(1));
        assert_eq!(times(&[5, 5], &[1, 5]), None);
    }
}
