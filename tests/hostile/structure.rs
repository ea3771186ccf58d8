//! Broken wire format, and graphs that are none.

use super::wire::*;
use super::{Case, case};
use streaminfer::error::Status::{Malformed, TooLarge, Unsupported};

pub fn cases() -> Vec<Case> {
    [wire_format(), counts(), names(), functions(), opsets(), attributes()].into_iter().flatten().collect()
}

fn wire_format() -> Vec<Case> {
    let honest = with_nodes([node("Relu", &["x"], &["y"])]).0;
    let cut = &honest[..honest.len() - 3];
    let long_number = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    vec![
        case("no bytes", [], Malformed, "empty"),
        case("zeros", [0; 1024], Malformed, "field number"),
        case("text", "It was a dark and stormy night; the rain fell in torrents.", Malformed, "well-formed"),
        case("an ELF file", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", Malformed, "well-formed"),
        case("cut off", cut, Malformed, "longer than what encloses it"),
        case("number cut off", [0x08, 0x80], Malformed, "cut off inside a number"),
        case("number of eleven bytes", long_number, Malformed, "64 bits"),
        case("group", [0x3b, 0x3c], Malformed, "group"),
        case("wire type 7", [0x3f], Malformed, "wire type"),
        case("field 0", [0x02, 0x00], Malformed, "field number"),
        case(
            "length 2^63",
            [0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            Malformed,
            "longer than",
        ),
        case("field longer than its message", message().put(7, [0x0a, 0x05, 0x00]), Malformed, "longer than"),
        case("no graph", message().int(1, 8).put(8, opset("", 17)), Malformed, "no graph"),
        case("two graphs", model(graph()).put(7, graph()), Malformed, "a second Graph"),
        case("number for a graph", message().int(7, 1), Malformed, "a number where a Graph should be"),
        case("text not UTF-8", with_nodes([message().put(4, [0xff, 0xfe]).put(2, "y")]), Malformed, "UTF-8"),
        case("version as text", message().put(1, "8").put(7, graph()), Malformed, "not valid ONNX"),
    ]
}

fn counts() -> Vec<Case> {
    let nested = |depth| {
        let inner = branch([node("Relu", &["x"], &["y0"])], "y0");
        (1..=depth).fold(inner, |inner, level| {
            let output = format!("y{level}");
            let choice = node("If", &["c"], &[&output]).put(5, body("then_branch", inner));
            branch([choice], &output)
        })
    };
    let fields = |tag: &[u8], count: usize| tag.repeat(count);
    let in_graph = |bytes: Vec<u8>| message().int(1, 8).put(8, opset("", 17)).put(7, graph().raw(&bytes));
    let in_node = |bytes: Vec<u8>| with_nodes([node("Relu", &["x"], &["y"]).raw(&bytes)]);
    let many_dims =
        message().put(1, "z").put(2, message().put(1, message().int(1, 1).put(2, fields(&[0x0a, 0], 1 << 20))));
    vec![
        case("8 M empty nodes", in_graph(fields(&[0x0a, 0], 8_000_000)), TooLarge, "nodes"),
        case("200,001 honest nodes", with_nodes((0..200_001).map(|_| node("Relu", &["x"], &[""]))), TooLarge, "nodes"),
        case("1 M empty attributes", in_node(fields(&[0x2a, 0], 1_000_000)), TooLarge, "memory"),
        case("1 M empty operands", in_node(fields(&[0x0a, 0], 1 << 20)), TooLarge, "memory"),
        case("1 M empty initializers", in_graph(fields(&[0x2a, 0], 1 << 20)), TooLarge, "memory"),
        case("1 M empty inputs", in_graph(fields(&[0x5a, 0], 1 << 20)), TooLarge, "memory"),
        case("1 M empty functions", model(graph()).raw(&fields(&[0xca, 0x01, 0], 1 << 20)), TooLarge, "memory"),
        case("1 M operator sets", model(graph()).raw(&fields(&[0x42, 0], 1 << 20)), TooLarge, "memory"),
        case("1 M dimensions", model(graph().put(11, many_dims)), TooLarge, "memory"),
        case("9 M fields", message().raw(&fields(&[0x28, 0], 9_000_000)), TooLarge, "fields"),
        case("100,000 nodes with an attribute", costly_nodes(100_000), TooLarge, "memory"),
        case("If nested 17 deep", with_condition(nested(17)), TooLarge, "deep"),
        case("If nested 5,000 deep", with_condition(nested(5_000)), TooLarge, "deep"),
        case("messages nested 100,000 deep", deep_bytes(100_000), TooLarge, "deep"),
    ]
}

/// Small in the file, a kilobyte each once built.
fn costly_nodes(count: usize) -> Message {
    let one = node("Relu", &["x"], &[]).put(5, int("a", 1));
    model(graph().all(1, (0..count).map(|_| &one)))
}

fn with_condition(branch: Message) -> Message {
    let condition = tensor("c", 9, &[]).put(9, [1]);
    model(graph().put(5, condition).put(1, node("If", &["c"], &["y"]).put(5, body("then_branch", branch))))
}

/// Attributes in nodes in graphs in attributes, without anything else. Built back to front: each level is a prefix.
fn deep_bytes(depth: usize) -> Vec<u8> {
    let mut reversed: Vec<u8> = Vec::new();
    for level in 0..depth {
        // The outermost is the model's graph.
        let field = match depth - 1 - level {
            0 => 7,
            below => [6, 1, 5][below % 3],
        };
        let mut prefix = vec![field << 3 | 2];
        let mut length = reversed.len();
        while length >= 0x80 {
            prefix.push(length as u8 | 0x80);
            length >>= 7;
        }
        prefix.push(length as u8);
        reversed.extend(prefix.into_iter().rev());
    }
    reversed.reverse();
    reversed
}

fn names() -> Vec<Case> {
    let relu = |from: &str, to: &str| node("Relu", &[from], &[to]);
    let branch_of = |inner: Message, output: &str| {
        let condition = tensor("c", 9, &[]).put(9, [1]);
        let both = [body("then_branch", branch([inner.clone()], output)), body("else_branch", branch([inner], output))];
        model(graph().put(5, condition).put(1, node("If", &["c"], &["y"]).all(5, both)))
    };
    let weight = || longs("w", &[1]);
    vec![
        case("cycle", with_nodes([relu("b", "a"), relu("a", "b"), relu("b", "y")]), Malformed, "cycle"),
        case("cycle of one", with_nodes([node("Add", &["x", "y"], &["y"])]), Malformed, "cycle"),
        case("cycle through a branch", branch_of(relu("y", "t"), "t"), Malformed, "cycle"),
        case("value defined twice", with_nodes([relu("x", "y"), relu("x", "y")]), Malformed, "'y' is defined twice"),
        case(
            "node redefines the input",
            with_nodes([relu("x", "x"), relu("x", "y")]),
            Malformed,
            "'x' is defined twice",
        ),
        case("initializer twice", model(graph().all(5, [weight(), weight()])), Malformed, "'w' is defined twice"),
        case("input twice", model(graph().put(11, value("x", FLOAT, &[4]))), Malformed, "'x' is defined twice"),
        case(
            "output twice",
            model(graph().put(1, relu("x", "y")).put(12, value("y", FLOAT, &[4]))),
            Malformed,
            "'y' is declared",
        ),
        case("unknown value", with_nodes([relu("nowhere", "y")]), Malformed, "'nowhere'"),
        case("unknown value in a branch", branch_of(relu("nowhere", "t"), "t"), Malformed, "'nowhere'"),
        case("a branch's value used outside", with_nodes([relu("t", "y")]), Malformed, "'t'"),
        case("output that no node computes", with_nodes([]), Malformed, "'y' is computed by no node"),
        case("initializer without name", model(graph().put(5, longs("", &[1]))), Malformed, "no name"),
        case("input without name", model(graph().put(11, message())), Malformed, "no name"),
    ]
}

fn functions() -> Vec<Case> {
    let use_first = || graph().put(1, call("f0", &["x"], &["y"]));
    let name = |level: usize| format!("f{level}");
    let doubling = |levels: usize, leaf: Vec<Message>| {
        let twice = |level: usize| {
            let next = name(level + 1);
            function(&name(level), [call(&next, &["a"], &["m"]), call(&next, &["m"], &["b"])])
        };
        let functions = (0..levels).map(twice).chain([function(&name(levels), leaf)]).collect::<Vec<_>>();
        model_with_functions(use_first(), functions)
    };
    let chain = |levels: usize| {
        let once = |level: usize| function(&name(level), [call(&name((level + 1) % levels), &["a"], &["b"])]);
        model_with_functions(use_first(), (0..levels).map(once).collect::<Vec<_>>())
    };
    let give_back = message().put(1, "f40").put(4, "a").put(5, "a").put(9, opset("", 17)).put(10, "local");
    let empty_leaves = {
        let twice = |level: usize| {
            let next = name(level + 1);
            function(&name(level), [call(&next, &["a"], &["m"]), call(&next, &["m"], &["b"])])
        };
        model_with_functions(use_first(), (0..40).map(twice).chain([give_back]).collect::<Vec<_>>())
    };
    let relu = || node("Relu", &["a"], &["b"]);
    let one = |functions: Vec<Message>| model_with_functions(use_first(), functions);
    let two_inputs = graph().put(1, call("f0", &["x", "x"], &["y"]));
    let old = message().put(1, "f0").put(4, "a").put(5, "b").put(7, relu()).put(9, opset("", 13)).put(10, "local");
    let reference = message().put(1, "alpha").put(21, "missing").int(20, 1);
    vec![
        case("functions doubling 40 times", doubling(40, vec![relu()]), TooLarge, "the limit"),
        case("functions doubling into nothing", empty_leaves, TooLarge, "the limit"),
        case("functions nested 5,000 deep", chain(5_000), TooLarge, "deep"),
        case("function calling itself", chain(1), TooLarge, "deep"),
        case("functions calling each other", chain(2), TooLarge, "deep"),
        case("attribute copied 100,000 times", copied_attribute(), TooLarge, "memory"),
        case(
            "function defined twice",
            one(vec![function("f0", [relu()]), function("f0", [relu()])]),
            Malformed,
            "twice",
        ),
        case("function without its result", one(vec![function("f0", [])]), Malformed, "'b'"),
        case("function sees its caller", one(vec![function("f0", [node("Relu", &["x"], &["b"])])]), Malformed, "'x'"),
        case("too many arguments", model_with_functions(two_inputs, [function("f0", [relu()])]), Malformed, "2 inputs"),
        case("function of another opset", one(vec![old]), Unsupported, "opset 13"),
        case("cycle in a function", one(vec![function("f0", [node("Add", &["a", "b"], &["b"])])]), Malformed, "cycle"),
        case(
            "reference in no function",
            with_nodes([node("Elu", &["x"], &["y"]).put(5, reference)]),
            Malformed,
            "'missing'",
        ),
    ]
}

/// One attribute of a megabyte that every node of a function refers to.
fn copied_attribute() -> Message {
    let reader = node("Relu", &["a"], &[""]).put(5, message().put(1, "axes").put(21, "big").int(20, 7));
    let readers = std::iter::repeat_n(reader, 100_000).chain([node("Relu", &["a"], &["b"])]);
    let caller = call("f0", &["x"], &["y"]).put(5, ints("big", &vec![1; 1 << 18]));
    model_with_functions(graph().put(1, caller), [function("f0", readers)])
}

fn opsets() -> Vec<Case> {
    let relu = || graph().put(1, node("Relu", &["x"], &["y"]));
    let with = |imports: &[(&str, i64)]| {
        let imports = imports.iter().map(|(domain, version)| opset(domain, *version));
        message().int(1, 8).all(8, imports).put(7, relu())
    };
    vec![
        case("opset 6", with(&[("", 6)]), Unsupported, "opset 6"),
        case("opset 22", with(&[("", 22)]), Unsupported, "opset 22"),
        case("the lowest opset there is", with(&[("", i64::MIN)]), Unsupported, "opset -9223372036854775808"),
        case("no opset", with(&[]), Unsupported, "opset 1"),
        case("two opsets", with(&[("", 17), ("ai.onnx", 13)]), Malformed, "twice"),
        case("unknown operator", with_nodes([node("Frobnicate", &["x"], &["y"])]), Unsupported, "Frobnicate"),
        case(
            "unknown domain",
            with_nodes([node("Relu", &["x"], &["y"]).put(7, "com.example")]),
            Unsupported,
            "com.example",
        ),
    ]
}

fn attributes() -> Vec<Case> {
    let relu = |attributes: Vec<Message>| with_nodes([node("Relu", &["x"], &["y"]).all(5, attributes)]);
    let constant = |attributes: Vec<Message>| {
        with_nodes([node("Constant", &[], &["k"]).all(5, attributes), node("Add", &["x", "k"], &["y"])])
    };
    vec![
        case("attribute without name", relu(vec![message().int(3, 1)]), Malformed, "no name"),
        case("attribute without value", relu(vec![message().put(1, "a")]), Malformed, "no value"),
        case("attribute twice", relu(vec![int("a", 1), int("a", 2)]), Malformed, "twice"),
        case("tensor attribute without tensor", relu(vec![message().put(1, "a").int(20, 4)]), Malformed, "no tensor"),
        case("graph attribute without graph", relu(vec![message().put(1, "a").int(20, 5)]), Malformed, "no graph"),
        case("attribute of type 99", relu(vec![message().put(1, "a").int(20, 99)]), Unsupported, "type number 99"),
        case("constant without value", constant(vec![]), Malformed, "one value"),
        case(
            "constant with two values",
            constant(vec![int("value_int", 1), int("value_float", 1)]),
            Malformed,
            "one value",
        ),
        case(
            "constant string",
            constant(vec![message().put(1, "value_string").put(4, "s").int(20, 3)]),
            Unsupported,
            "strings",
        ),
    ]
}
