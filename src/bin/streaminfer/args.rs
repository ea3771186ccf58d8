//! What can be said on the command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use streaminfer::runtime::{Precision, Priority};

/// Runs ONNX models, measures them, shows what becomes of them.
#[derive(Debug, Parser)]
#[command(name = "streaminfer", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a model once on the arrays of an .npz file and write its outputs to another.
    Run(Run),
    /// Measure a model's latency and throughput; prints one JSON object.
    Bench(Bench),
    /// Measure copies between the host and rows of device memory; prints one JSON object.
    ///
    /// Rows that are padded as the device likes it best (pitched) against rows without gaps (linear), and pageable host memory against
    /// pinned and registered. Each figure is the median time of a copy and the wait for its end. It is the copy engines that are measured
    /// (on the host device, the CPU); kernels that read rows, which the padding is for, are not.
    BenchMemory(BenchMemory),
    /// Show what a model is made of, what is not supported, and what it becomes.
    Inspect(Inspect),
    /// Show the library, the devices, and what was looked for and not found. With a trace: say what is wrong in it.
    Doctor(Doctor),
}

/// Where and how to compute.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Device: auto, host, cuda:N or a GPU's UUID.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Arithmetic and storage of floating-point steps.
    #[arg(long, value_enum, default_value_t = PrecisionName::Fp32)]
    pub precision: PrecisionName,
    /// Host threads that each context computes with, on the host device.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: u16,
}

#[derive(Debug, Args)]
pub struct Run {
    /// ONNX file.
    pub model: PathBuf,
    /// Input arrays, named as the model's inputs. bfloat16 inputs are arrays of uint16 with the same bits.
    #[arg(long, value_name = "IN.npz")]
    pub inputs: PathBuf,
    /// Where to write the output arrays, named as the model's outputs.
    #[arg(long, value_name = "OUT.npz")]
    pub outputs: PathBuf,
    #[command(flatten)]
    pub target: Target,
}

/// Shapes and values of inputs that no file gives.
#[derive(Clone, Debug, Args)]
pub struct Made {
    /// Shape of an input, for example ids=1x128; empty for a scalar. Needed where the model leaves a dimension open.
    #[arg(long = "shape", value_name = "NAME=1x128", value_parser = shape)]
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Values of an input are drawn from LO up to, not including, HI. The default is 0:100 for integers, -1:1 for floats;
    /// truth values are either.
    #[arg(long = "range", value_name = "NAME=LO:HI", value_parser = range, allow_hyphen_values = true)]
    pub ranges: Vec<(String, (f64, f64))>,
    /// Seed of the random values.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// ONNX file.
    pub model: PathBuf,
    /// Input arrays, named as the model's inputs; without it the inputs are random.
    #[arg(long, value_name = "IN.npz", conflicts_with_all = ["shapes", "ranges"])]
    pub inputs: Option<PathBuf>,
    #[command(flatten)]
    pub made: Made,
    #[command(flatten)]
    pub target: Target,
    /// Contexts, and threads that make requests.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub contexts: u16,
    /// How requests meet contexts.
    #[arg(long, value_enum, default_value_t = Mode::Bound)]
    pub mode: Mode,
    /// How long to measure, for example 5s, 500ms, 2m.
    #[arg(long, default_value = "5s", value_parser = duration, conflicts_with = "requests")]
    pub duration: Duration,
    /// How many requests to measure, instead of how long.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Open loop: requests arrive at random (Poisson) at this rate per second, and latency counts from when a request should
    /// have started. Without it each thread makes its next request when the last is done.
    #[arg(long, value_name = "RPS", value_parser = rate)]
    pub rate: Option<f64>,
    /// Before whose requests a GPU begins those of the model.
    #[arg(long, value_enum, default_value_t = PriorityName::Normal)]
    pub priority: PriorityName,
    /// Multiprocessors of the GPU for this model alone, at least; 0: all of them, shared.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub multiprocessors: u16,
    /// Requests in flight on the device at once; others wait for their turn. 0: no bound.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub permits: u16,
    #[command(flatten)]
    pub neighbour: Neighbour,
    /// What goes on in another thread meanwhile: loads of the model with a context, or buckets that are added to it, one after
    /// the other.
    #[arg(long, value_enum)]
    pub disturb: Option<Disturbance>,
    /// Also write the JSON object to a file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A second model whose contexts make one request after the other meanwhile.
#[derive(Clone, Debug, Args)]
pub struct Neighbour {
    /// ONNX file of a second model that gets one request after the other meanwhile, on the same device at the same precision.
    #[arg(id = "neighbour", long = "neighbour", value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// Shape of an input of the neighbour.
    #[arg(id = "neighbour-shape", long = "neighbour-shape", value_name = "NAME=1x128", value_parser = shape, requires = "neighbour")]
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Range of the values of an input of the neighbour.
    #[arg(id = "neighbour-range", long = "neighbour-range", value_name = "NAME=LO:HI", value_parser = range, allow_hyphen_values = true, requires = "neighbour")]
    pub ranges: Vec<(String, (f64, f64))>,
    /// Contexts of the neighbour.
    #[arg(id = "neighbour-contexts", long = "neighbour-contexts", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub contexts: u16,
    /// Priority of the neighbour.
    #[arg(id = "neighbour-priority", long = "neighbour-priority", value_enum, default_value_t = PriorityName::Normal)]
    pub priority: PriorityName,
    /// Multiprocessors for the neighbour alone, at least; 0: all of them, shared.
    #[arg(id = "neighbour-multiprocessors", long = "neighbour-multiprocessors", value_name = "N", default_value_t = 0)]
    pub multiprocessors: u16,
}

/// What is done beside the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disturbance {
    /// The model is loaded again.
    Load,
    /// The model gets more buckets.
    Bucket,
}

impl Disturbance {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Disturbance::Load => "load",
            Disturbance::Bucket => "bucket",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PriorityName {
    Low,
    Normal,
    High,
}

impl PriorityName {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            PriorityName::Low => "low",
            PriorityName::Normal => "normal",
            PriorityName::High => "high",
        }
    }
}

impl From<PriorityName> for Priority {
    fn from(name: PriorityName) -> Priority {
        match name {
            PriorityName::Low => Priority::Low,
            PriorityName::Normal => Priority::Normal,
            PriorityName::High => Priority::High,
        }
    }
}

#[derive(Debug, Args)]
pub struct BenchMemory {
    /// Device: auto, host, cuda:N or a GPU's UUID.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Rows.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub rows: u32,
    /// Bytes of a row; several separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..),
        default_values_t = [256, 1000, 1024, 4095, 4096, 4100, 16384])]
    pub row_bytes: Vec<u32>,
    /// Bytes of the elements that pitched rows are to be accessed by: 4, 8 or 16.
    #[arg(long, default_value_t = 16)]
    pub element_bytes: u32,
    /// Instead: whole requests whose input, or output, is moved by kernels, and by the GPU's copy engines.
    #[arg(long, conflicts_with_all = ["rows", "row_bytes", "element_bytes"])]
    pub requests: bool,
    /// Bytes of that input or output; several separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', requires = "requests",
        value_parser = clap::value_parser!(u32).range(64..),
        default_values_t = [4 << 10, 16 << 10, 32 << 10, 64 << 10, 96 << 10, 128 << 10, 192 << 10, 256 << 10, 384 << 10, 512 << 10,
            768 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20])]
    pub bytes: Vec<u32>,
    /// Copies there and back of each kind, or requests; of the latter ten times as many.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// Also write the JSON object to a file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// ONNX file.
    pub model: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub made: Made,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Trace that Go's package trace has written; - is the standard input. Ends with 1 if there is a problem in it, 2 if it cannot
    /// be read.
    #[arg(conflicts_with = "json")]
    pub trace: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How requests meet contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One context per thread, bound to it.
    Bound,
    /// One context behind a mutex for all threads.
    Shared,
    /// A context made, prepared, used once and freed for every request.
    PerRequest,
}

impl Mode {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Bound => "bound",
            Mode::Shared => "shared",
            Mode::PerRequest => "per-request",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionName {
    Fp32,
    Tf32,
    Fp16,
    Bf16,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Precision {
        match name {
            PrecisionName::Fp32 => Precision::Fp32,
            PrecisionName::Tf32 => Precision::Tf32,
            PrecisionName::Fp16 => Precision::Fp16,
            PrecisionName::Bf16 => Precision::Bf16,
        }
    }
}

/// Splits at the last `=`, for names may contain one and values do not.
fn named(text: &str) -> Result<(String, &str), String> {
    let (name, value) = text.rsplit_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() { Err("the name is missing".into()) } else { Ok((name.to_owned(), value)) }
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, value) = named(text)?;
    let extents = value.split('x').filter(|_| !value.is_empty());
    let extents = extents.map(|extent| extent.parse().map_err(|_| format!("'{extent}' is no extent")));
    Ok((name, extents.collect::<Result<_, String>>()?))
}

fn range(text: &str) -> Result<(String, (f64, f64)), String> {
    let (name, value) = named(text)?;
    let bounds = value.split_once(':').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    let (low, high): (f64, f64) = bounds.ok_or_else(|| format!("'{value}' is no range LO:HI"))?;
    let good = low.is_finite() && high.is_finite() && low < high;
    if good { Ok((name, (low, high))) } else { Err(format!("the range {value} is empty")) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let seconds_per_unit = match &text[unit_at..] {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("'{unit}' is no unit of time; there are ms, s, m, h")),
    };
    let number: f64 = text[..unit_at].parse().map_err(|_| format!("'{text}' is no duration"))?;
    let time = Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|error| error.to_string())?;
    if time.is_zero() { Err("the duration is zero".into()) } else { Ok(time) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("the rate must be above 0".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_ranges_and_durations_are_read() {
        assert_eq!(shape("ids=1x128"), Ok(("ids".into(), vec![1, 128])));
        assert_eq!(shape("a=b="), Ok(("a=b".into(), vec![])));
        assert!(shape("ids").is_err() && shape("=1").is_err() && shape("ids=1x-1").is_err());
        assert_eq!(range("ids=0:30000"), Ok(("ids".into(), (0.0, 30000.0))));
        assert_eq!(range("x=-1.5:2"), Ok(("x".into(), (-1.5, 2.0))));
        assert!(range("x=3:3").is_err() && range("x=3").is_err() && range("x=0:inf").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(
            duration("5d").is_err() && duration("s").is_err() && duration("0s").is_err() && duration("-1s").is_err()
        );
        assert!(rate("0").is_err() && rate("nan").is_err() && rate("12.5").is_ok());
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
