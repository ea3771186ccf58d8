//! The command line: what it prints, writes and exits with.
#![cfg(feature = "cli")]

mod wire;

use npyz::WriterBuilder;
use npyz::npz::{NpzArchive, NpzWriter};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use wire::*;

/// A directory with a model and its inputs, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    /// With `model.onnx` (y = x + w for x of [batch, 4], w = 1) and `in.npz` for it.
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("streaminfer-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let folder = Folder(path);
        folder.write("model.onnx", addition());
        folder.arrays("in.npz", &[("x", &[2, 4])]);
        folder
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }

    /// float32 arrays that count up from 0.
    fn arrays(&self, file: &str, arrays: &[(&str, &[u64])]) -> String {
        let mut archive = NpzWriter::create(self.at(file)).unwrap();
        for (name, shape) in arrays {
            let writer = archive.array::<f32>(name, Default::default()).unwrap();
            let mut writer = writer.default_dtype().shape(shape).begin_nd().unwrap();
            writer.extend((0..shape.iter().product::<u64>()).map(|value| value as f32)).unwrap();
            writer.finish().unwrap();
        }
        self.at(file)
    }

    /// `run` with this model and these inputs.
    fn run(&self, model: &str, inputs: &str) -> Output {
        call(&["run", &self.at(model), "--inputs", &self.at(inputs), "--outputs", &self.at("out.npz")])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn addition() -> Message {
    let dims = message().put(1, message().put(2, "batch")).put(1, message().int(1, 4));
    let ty = message().put(1, message().int(1, FLOAT).put(2, dims));
    let ones = (0..4).fold(tensor("w", FLOAT, &[4]), |tensor, _| tensor.float(4, 1.0));
    let graph = message().put(2, "g").put(11, message().put(1, "x").put(2, ty)).put(12, value("y", FLOAT, &[0, 4]));
    model(graph.put(5, ones).put(1, node("Add", &["x", "w"], &["y"])))
}

fn call(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_streaminfer")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of a call that succeeds.
fn good(arguments: &[&str]) -> String {
    let output = call(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Checks that a call failed with one line that says so, and gives the line.
fn refusal(output: Output) -> String {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.starts_with("error: ") && line.ends_with('\n') && line.lines().count() == 1, "{line}");
    assert!(output.stdout.is_empty());
    line
}

#[track_caller]
fn assert_says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "no '{word}' in: {line}");
    }
}

#[test]
fn run_writes_the_outputs() {
    let folder = Folder::new("run");
    let output = folder.run("model.onnx", "in.npz");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut archive = NpzArchive::open(folder.at("out.npz")).unwrap();
    let array = archive.by_name("y").unwrap().unwrap();
    assert_eq!(array.shape(), [2, 4]);
    assert_eq!(array.into_vec::<f32>().unwrap(), (1..9).map(|value| value as f32).collect::<Vec<_>>());
}

#[test]
fn bad_models_are_refused_in_one_line() {
    let folder = Folder::new("models");
    let whole = addition().0;
    folder.write("cut.onnx", &whole[..whole.len() / 2]);
    folder.write("text.onnx", "It was a dark and stormy night; the rain fell in torrents.");
    folder.write("empty.onnx", "");
    fs::create_dir(folder.at("directory.onnx")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.at("fifo.onnx")).status().unwrap().success());
    folder.write("strange.onnx", with_nodes([node("Frobnicate", &["x"], &["y"]).put(3, "odd")]));
    let cases: [(&str, &[&str]); 7] = [
        ("absent.onnx", &["absent.onnx", "NotFound"]),
        ("cut.onnx", &["Malformed"]),
        ("text.onnx", &["Malformed", "not a well-formed ONNX model"]),
        ("empty.onnx", &["Malformed", "empty"]),
        ("directory.onnx", &["ForbiddenPath", "a directory"]),
        ("fifo.onnx", &["ForbiddenPath", "a FIFO"]),
        ("strange.onnx", &["Unsupported", "'odd'", "Frobnicate", "opset 17"]),
    ];
    folder.arrays("four.npz", &[("x", &[4])]);
    for (model, words) in cases {
        let inputs = if model == "strange.onnx" { "four.npz" } else { "in.npz" };
        assert_says(&refusal(folder.run(model, inputs)), words);
        assert!(!Path::new(&folder.at("out.npz")).exists(), "{model}");
    }
}

#[test]
fn bad_inputs_are_refused_in_one_line() {
    let folder = Folder::new("inputs");
    let mut archive = NpzWriter::create(folder.at("dtype.npz")).unwrap();
    let writer = archive.array::<i64>("x", Default::default()).unwrap().default_dtype().shape(&[1, 4]);
    let mut writer = writer.begin_nd().unwrap();
    writer.extend([1, 2, 3, 4]).unwrap();
    writer.finish().unwrap();
    drop(archive);
    folder.arrays("shape.npz", &[("x", &[2, 5])]);
    folder.arrays("rank.npz", &[("x", &[8])]);
    folder.arrays("missing.npz", &[]);
    folder.arrays("more.npz", &[("x", &[1, 4]), ("z", &[1])]);
    folder.write("text.npz", "no archive at all");
    let whole = fs::read(folder.at("in.npz")).unwrap();
    folder.write("cut.npz", &whole[..whole.len() / 2]);
    let cases: [(&str, &[&str]); 8] = [
        ("dtype.npz", &["ShapeMismatch", "'x'", "<i8", "float32"]),
        ("shape.npz", &["ShapeMismatch", "'x'", "[batch, 4]", "[2, 5]"]),
        ("rank.npz", &["ShapeMismatch", "'x'", "[8]"]),
        ("missing.npz", &["InvalidArgument", "'x'"]),
        ("more.npz", &["InvalidArgument", "'z'"]),
        ("text.npz", &["text.npz"]),
        ("cut.npz", &["cut.npz"]),
        ("absent.npz", &["NotFound", "absent.npz"]),
    ];
    for (inputs, words) in cases {
        assert_says(&refusal(folder.run("model.onnx", inputs)), words);
    }
}

#[test]
fn unknown_options_end_with_2_and_unknown_devices_with_1() {
    let folder = Folder::new("options");
    let model = folder.at("model.onnx");
    let usage: [&[&str]; 6] = [
        &["bench", &model, "--precision", "fp64"],
        &["bench", &model, "--mode", "pooled"],
        &["bench", &model, "--contexts", "0"],
        &["bench", &model, "--shape", "x=1xtwo"],
        &["bench", &model, "--duration", "soon"],
        &["frobnicate"],
    ];
    for arguments in usage {
        let output = call(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{}", text(&output.stderr));
    }
    let shape = ["bench", &model, "--shape", "x=1x4", "--device"];
    assert_says(&refusal(call(&[&shape[..], &["tpu"]].concat())), &["InvalidArgument", "'tpu'", "host"]);
    assert_says(&refusal(call(&[&shape[..], &["cuda:7"]].concat())), &["NoDevice", "'cuda:7'"]);
}

#[test]
fn bench_prints_one_object_with_every_key() {
    const KEYS: [&str; 19] = [
        "p50_us",
        "p90_us",
        "p99_us",
        "p999_us",
        "max_us",
        "rps",
        "requests",
        "errors",
        "device",
        "model",
        "shape",
        "precision",
        "mode",
        "contexts",
        "threads",
        "weights_bytes",
        "arena_bytes",
        "pinned_bytes",
        "seed",
    ];
    let folder = Folder::new("bench");
    let (model, json) = (folder.at("model.onnx"), folder.at("bench.json"));
    let common = ["bench", &model, "--shape", "x=3x4", "--requests", "40", "--contexts", "2", "--json", &json];
    for mode in ["bound", "shared", "per-request"] {
        let printed = good(&[&common[..], &["--mode", mode]].concat());
        let object: Value = serde_json::from_str(&printed).unwrap();
        let missing: Vec<_> = KEYS.iter().filter(|key| object[**key].is_null()).collect();
        assert!(missing.is_empty(), "{mode}: {missing:?} in {printed}");
        assert_eq!((object["requests"].as_u64(), object["errors"].as_u64()), (Some(40), Some(0)), "{mode}");
        assert_eq!((object["mode"].as_str(), object["device"].as_str()), (Some(mode), Some("host")));
        assert_eq!(object["shape"]["x"], serde_json::json!([3, 4]));
        assert!(object["p50_us"].as_f64() <= object["max_us"].as_f64() && object["rps"].as_f64() > Some(0.0));
        assert!(object["pinned_bytes"].as_u64() >= Some(96), "input and output of [3, 4]");
        let written: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
        assert_eq!(written, object);
    }
}

#[test]
fn bench_measures_beside_a_neighbour_and_disturbances_and_behind_a_gate() {
    let folder = Folder::new("beside");
    let model = folder.at("model.onnx");
    let common = ["bench", &model, "--shape", "x=3x4", "--requests", "40", "--contexts", "3", "--device", "host"];
    let beside = |options: &[&str]| -> Value { serde_json::from_str(&good(&[&common[..], options].concat())).unwrap() };
    let quiet = beside(&[]);
    assert!(quiet["neighbour"].is_null() && quiet["disturb"].is_null() && quiet["permits"] == 0, "{quiet}");
    let shape = ["--neighbour", &model, "--neighbour-shape", "x=7x4", "--neighbour-contexts", "2"];
    let other = ["--neighbour-priority", "low", "--priority", "high", "--permits", "2"];
    let loud = beside(&[&shape[..], &other].concat());
    let neighbour = &loud["neighbour"];
    assert_eq!((neighbour["contexts"].as_u64(), neighbour["priority"].as_str()), (Some(2), Some("low")), "{loud}");
    assert!(neighbour["rps"].is_number() && neighbour["requests"].is_u64(), "{loud}");
    assert_eq!((neighbour["shape"]["x"][0].as_u64(), loud["shape"]["x"][0].as_u64()), (Some(7), Some(3)));
    // More threads than permits, and none of their requests is refused.
    assert_eq!(
        (loud["permits"].as_u64(), loud["errors"].as_u64(), loud["priority"].as_str()),
        (Some(2), Some(0), Some("high"))
    );
    for what in ["load", "bucket"] {
        let disturbed = beside(&["--disturb", what]);
        assert_eq!((disturbed["disturb"]["what"].as_str(), disturbed["errors"].as_u64()), (Some(what), Some(0)));
    }
}

#[test]
fn bench_says_what_is_wrong_with_what_is_beside() {
    let folder = Folder::new("company");
    let model = folder.at("model.onnx");
    let fixed = {
        let ty = message().put(1, message().int(1, FLOAT).put(2, message().put(1, message().int(1, 2))));
        let input = message().put(1, "x").put(2, ty);
        let graph = message().put(2, "g").put(11, input).put(12, value("y", FLOAT, &[2]));
        folder.write("fixed.onnx", self::model(graph.put(1, node("Relu", &["x"], &["y"]))))
    };
    let common = ["bench", &model, "--shape", "x=3x4", "--requests", "4", "--device", "host"];
    let refused = |options: &[&str]| refusal(call(&[&common[..], options].concat()));
    assert_says(&refused(&["--neighbour", "absent.onnx"]), &["neighbour", "absent.onnx"]);
    assert_says(&refused(&["--neighbour", &model]), &["neighbour", "'x'"]);
    assert_says(&refused(&["--multiprocessors", "8"]), &["Unsupported", "8 multiprocessors", "host"]);
    assert_says(
        &refusal(call(&["bench", &fixed, "--requests", "4", "--device", "host", "--disturb", "bucket"])),
        &["--disturb bucket"],
    );
    assert_eq!(call(&[&common[..], &["--neighbour-shape", "x=1x4"]].concat()).status.code(), Some(2));
}

#[test]
fn bench_takes_arrays_and_a_rate() {
    let folder = Folder::new("rate");
    let (model, inputs) = (folder.at("model.onnx"), folder.at("in.npz"));
    let open = good(&["bench", &model, "--inputs", &inputs, "--rate", "2000", "--duration", "200ms"]);
    let object: Value = serde_json::from_str(&open).unwrap();
    assert_eq!(object["rate_rps"].as_f64(), Some(2000.0));
    assert_eq!(object["shape"]["x"], serde_json::json!([2, 4]));
    // 400 are due; a Poisson process strays from that by 20 or so, a busy machine starts fewer.
    assert!(object["requests"].as_u64() <= Some(520) && object["requests"].as_u64() > Some(0), "{open}");
}

#[test]
fn bench_names_the_input_whose_shape_is_open() {
    let folder = Folder::new("open");
    let model = folder.at("model.onnx");
    assert_says(&refusal(call(&["bench", &model])), &["'x'", "[batch, 4]", "--shape x="]);
    assert_says(&refusal(call(&["bench", &model, "--shape", "z=1"])), &["'z'", "'x'"]);
    assert_says(&refusal(call(&["bench", &model, "--shape", "x=2x5"])), &["'x'", "[2, 5]", "ShapeMismatch"]);
}

#[test]
fn bench_memory_prints_every_kind_of_copy() {
    let folder = Folder::new("bench-memory");
    let file = folder.at("memory.json");
    let arguments = ["bench-memory", "--device", "host", "--rows", "8", "--row-bytes", "100,64", "--repeats", "2"];
    let printed = good(&[&arguments[..], &["--json", &file]].concat());
    assert_eq!(printed, fs::read_to_string(&file).unwrap());
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&report["device"], &report["rows"], &report["repeats"]), (&"host".into(), &8.into(), &2.into()));
    let mut kinds = Vec::new();
    for (width, (row_bytes, pitch)) in report["widths"].as_array().unwrap().iter().zip([(100, 128), (64, 64)]) {
        assert_eq!((&width["row_bytes"], &width["bytes"]), (&row_bytes.into(), &(8 * row_bytes).into()));
        assert!(width["pin_us"].is_f64() && width["register_us"].is_f64());
        for copy in width["copies"].as_array().unwrap() {
            let pitch = if copy["memory"] == "pitched" { pitch } else { row_bytes };
            assert_eq!(copy["pitch_bytes"], pitch);
            assert!(["write_us", "read_us", "write_gb_s", "read_gb_s"].iter().all(|key| copy[key].is_f64()), "{copy}");
            kinds.push(format!("{} {}", copy["memory"].as_str().unwrap(), copy["host"].as_str().unwrap()));
        }
    }
    kinds.sort();
    kinds.dedup();
    let expected = ["pageable", "pinned", "registered"];
    let expected: Vec<_> = ["linear", "pitched"].iter().flat_map(|a| expected.map(|b| format!("{a} {b}"))).collect();
    assert_eq!(kinds, expected);
    let wrong = call(&["bench-memory", "--device", "host", "--rows", "8", "--row-bytes", "64", "--element-bytes", "5"]);
    assert_says(&refusal(wrong), &["4, 8 or 16", "5"]);
    assert!(good(&["bench-memory", "--help"]).contains("copy engines"));
}

#[test]
fn inspect_shows_what_the_model_becomes() {
    let folder = Folder::new("inspect");
    let model = folder.at("model.onnx");
    let shown = good(&["inspect", &model, "--shape", "x=5x4"]);
    assert_says(&shown, &["x: float32[batch, 4]", "y: float32[5, 4]", "1 Add", "fingerprint", "arena_bytes", "Map"]);
    let object: Value = serde_json::from_str(&good(&["inspect", &model, "--json"])).unwrap();
    assert_eq!(object["inputs"][0]["dims"], serde_json::json!([null, 4]));
    assert_eq!(object["operators"]["Add"], 1);
    assert_eq!(object["unsupported"], serde_json::json!([]));
    let bucket = &object["buckets"][0];
    assert_eq!(bucket["shape"]["x"], serde_json::json!([1, 4]));
    assert!(!bucket["plan"].as_array().unwrap().is_empty() && !bucket["program"].as_array().unwrap().is_empty());
    assert_eq!(bucket["fingerprint"].as_str().unwrap().len(), 32);
}

#[test]
fn inspect_lists_everything_unsupported() {
    let folder = Folder::new("gaps");
    let condition = tensor("c", 9, &[]).put(9, [1]);
    let inner = |op: &str| branch([node(op, &["x"], &["t"]).put(3, "inner")], "t");
    let nodes = [
        node("Frobnicate", &["x"], &["a"]).put(3, "first"),
        node("Relu", &["a"], &["b"]).put(3, "second").put(5, int("twist", 1)),
        node("Quux", &["b"], &["d"]).put(3, "third").put(7, "com.example"),
        node("If", &["c"], &["e"]).all(5, [body("then_branch", inner("Loop")), body("else_branch", inner("Relu"))]),
        node("Sum", &["d", "e", "w"], &["y"]),
    ];
    let word = tensor("w", 12, &[1]).put(9, [0; 4]);
    let model = folder.write("strange.onnx", model(graph().all(5, [condition, word]).all(1, nodes)));
    let object: Value = serde_json::from_str(&good(&["inspect", &model, "--json"])).unwrap();
    let gaps = object["unsupported"].as_array().unwrap();
    let listed = |place: &str, what: &str| {
        let text = |gap: &Value, key: &str| gap[key].as_str().unwrap().to_owned();
        gaps.iter().any(|gap| text(gap, "where").contains(place) && text(gap, "what").contains(what))
    };
    assert!(listed("'first'", "Frobnicate") && listed("'second'", "'twist'"), "{gaps:?}");
    assert!(listed("'third'", "com.example.Quux") && listed("'inner'", "Loop"), "{gaps:?}");
    assert!(listed("import", "'w': element type uint32"), "{gaps:?}");
    assert_eq!(gaps.len(), 5);
    assert_says(&good(&["inspect", &model]), &["'first'", "'second'", "'third'", "'inner'", "'w'"]);
}

#[test]
fn doctor_says_what_is_here_and_what_is_not() {
    assert_says(&good(&["doctor"]), &["ABI 1", "host", "libcuda.so.1", "libstreaminfer.so", "GOMAXPROCS"]);
    let object: Value = serde_json::from_str(&good(&["doctor", "--json"])).unwrap();
    assert_eq!(object["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(object["devices"][0]["id"], "host");
    assert!(object["devices"][0]["numa_node"].is_null() && object["cpus"].as_u64() >= Some(1));
    assert!(
        object["searches"].as_array().unwrap().iter().all(|search| !search["tried"].as_array().unwrap().is_empty())
    );
}

/// go/cmd/streaminfer-doctor has the tests of what it finds.
#[test]
fn doctor_reads_traces() {
    let folder = Folder::new("trace");
    let throttled = r#"{"streaminfer":{"process":{"throttled":1500000,"throttled_periods":2}}}"#;
    let cases = [
        (
            throttled,
            1,
            "PROBLEM: CPU throttling: the control group's CPU quota stopped the process for 1.5ms in 2 periods.",
        ),
        (r#"{"streaminfer":{}}"#, 0, "0 events and 0 requests examined"),
        (r#"{"traceEvents":[]}"#, 2, ""),
    ];
    for (text, code, says) in cases {
        let output = call(&["doctor", &folder.write("trace.json", text)]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_says(&String::from_utf8(output.stdout).unwrap(), &[says]);
    }
    assert_eq!(call(&["doctor", "--json", &folder.at("trace.json")]).status.code(), Some(2));
}
