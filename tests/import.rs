//! What the importer makes of well-formed models.

mod wire;

use bytes::Bytes;
use streaminfer::error::{Result, Status};
use streaminfer::ir::import::{self, ImportOptions};
use streaminfer::ir::{Attribute, Graph, Tensor};
use wire::*;

fn import_with(model: &Message, overridable: &[&str]) -> Result<Graph> {
    let overridable = overridable.iter().map(|name| (*name).to_owned()).collect();
    import::load_bytes(Bytes::copy_from_slice(&model.0), &ImportOptions { overridable })
}

fn import(model: &Message) -> Graph {
    import_with(model, &[]).unwrap()
}

/// The nodes as `op(inputs)->outputs`, by name.
fn listing(graph: &Graph, names: &[String]) -> Vec<String> {
    let list = |values: &[Option<streaminfer::ir::ValueId>]| {
        let name = |value: &Option<streaminfer::ir::ValueId>| value.map_or("-", |value| &names[value.0 as usize]);
        values.iter().map(name).collect::<Vec<_>>().join(",")
    };
    graph.nodes.iter().map(|node| format!("{}({})->{}", node.op, list(&node.inputs), list(&node.outputs))).collect()
}

fn nodes(graph: &Graph) -> Vec<String> {
    listing(graph, &graph.names)
}

fn constant(graph: &Graph, name: &str) -> Option<Tensor> {
    let found = graph.initializers.iter().find(|constant| graph.names[constant.value.0 as usize] == name);
    found.map(|constant| constant.tensor.clone())
}

#[test]
fn nodes_are_put_in_order_and_dead_ones_dropped() {
    let model = with_nodes([
        node("Neg", &["t"], &["y"]),
        node("StringNormalizer", &["text"], &["dead"]),
        node("Constant", &[], &["text"]).put(5, message().put(1, "value_string").put(4, "s").int(20, 3)),
        node("Relu", &["x"], &["t", ""]),
    ]);
    assert_eq!(nodes(&import(&model)), ["Relu(x)->t,-", "Neg(t)->y"]);
}

#[test]
fn unsupported_constants_matter_only_if_they_are_read() {
    let word = || tensor("w", 12, &[1]).put(9, [0; 4]);
    let dead = model(graph().put(5, word()).put(1, node("Relu", &["x"], &["y"])));
    assert_eq!(import(&dead).initializers.len(), 0);
    let live = import_with(&with_weight(word()), &[]).unwrap_err();
    assert_eq!(live.status, Status::Unsupported);
    let named = node("Constant", &[], &["k"]).put(5, held("value", word()));
    let live = import_with(&with_nodes([named, node("Add", &["x", "k"], &["y"])]), &[]).unwrap_err();
    assert_eq!(live.status, Status::Unsupported);
    assert!(live.message.contains("(Constant)") && live.message.contains("uint32"), "{live}");
}

#[test]
fn bodies_of_unsupported_operators_are_not_read() {
    // A loop's inputs may have no types; it is the planner that names the operator.
    let body = graph().put(11, message().put(1, "untyped")).put(1, node("Relu", &["untyped"], &["r"]));
    let model =
        with_nodes([node("Loop", &["", "", "x"], &["y"]).put(5, message().put(1, "body").put(6, body).int(20, 5))]);
    let graph = import(&model);
    assert_eq!(nodes(&graph), ["Loop(-,-,x)->y"]);
    assert!(graph.nodes[0].attributes.is_empty());
}

#[test]
fn every_form_of_constant_becomes_an_initializer() {
    let made = |attribute: Message| {
        let nodes = [node("Constant", &[], &["k"]).put(5, attribute), node("Add", &["x", "k"], &["y"])];
        let graph = import(&with_nodes(nodes));
        assert_eq!(graph.nodes.len(), 1);
        constant(&graph, "k").unwrap()
    };
    assert_eq!(made(int("value_int", -3)), Tensor::scalar(-3i64));
    assert_eq!(made(ints("value_ints", &[1, 2])), Tensor::from_slice(&[2], &[1i64, 2]));
    assert_eq!(made(message().put(1, "value_float").float(2, 0.5).int(20, 1)), Tensor::scalar(0.5f32));
    let floats = message().put(1, "value_floats").float(7, 0.5).float(7, 2.0).int(20, 6);
    assert_eq!(made(floats), Tensor::from_slice(&[2], &[0.5f32, 2.0]));
    assert_eq!(made(held("value", longs("", &[7]))), Tensor::from_slice(&[1], &[7i64]));
}

#[test]
fn initializers_declared_as_inputs_are_constants_unless_overridable() {
    let model = model(
        graph().put(11, value("w", INT64, &[1])).put(5, longs("w", &[1])).put(1, node("Add", &["x", "w"], &["y"])),
    );
    let names = |graph: &Graph| graph.inputs.iter().map(|input| input.name.clone()).collect::<Vec<_>>();
    let fixed = import(&model);
    assert_eq!(names(&fixed), ["x"]);
    assert!(constant(&fixed, "w").is_some());
    let open = import_with(&model, &["w"]).unwrap();
    assert_eq!(names(&open), ["x", "w"]);
    assert!(constant(&open, "w").is_none());
    assert_eq!(import_with(&model, &["v"]).unwrap_err().status, Status::InvalidArgument);
}

#[test]
fn branches_see_outer_values_and_keep_them_alive() {
    let inner = |op: &str| {
        let nodes = [node(op, &["t"], &["r"]), node("Relu", &["unread"], &["dead"]), node("Neg", &["x"], &["unread"])];
        branch(nodes, "r")
    };
    let choice = node("If", &["c"], &["y"]);
    let choice = choice.all(5, [body("then_branch", inner("Abs")), body("else_branch", inner("Exp"))]);
    // The value that only the branches read is made after the node that holds them.
    let nodes_in_file = [choice, node("Neg", &["x"], &["t"]), node("Relu", &["x"], &["gone"])];
    let imported = import(&model(graph().put(5, tensor("c", 9, &[]).put(9, [1])).all(1, nodes_in_file)));
    assert_eq!(nodes(&imported), ["Neg(x)->t", "If(c)->y"]);
    let Some(Attribute::Graph(then)) = imported.nodes[1].attributes.get("then_branch") else { panic!("no branch") };
    assert_eq!(listing(then, &imported.names), ["Abs(t)->r"]);
}

#[test]
fn functions_are_inlined_with_their_attributes() {
    let scaled = {
        let alpha = |name: &str, from: &str| message().put(1, name).put(21, from).int(20, 1);
        let elu = node("Elu", &["a"], &["m"]).put(5, alpha("alpha", "slope"));
        let leaky = node("LeakyRelu", &["m"], &["b"]).put(5, alpha("alpha", "rest"));
        function("Scaled", [leaky, elu]).put(11, message().put(1, "rest").float(2, 0.25).int(20, 1))
    };
    let outer =
        function("Outer", [call("Scaled", &["a"], &["b"]).put(5, message().put(1, "slope").float(2, 3.0).int(20, 1))]);
    let nodes_in_file = [call("Outer", &["x"], &["t"]).put(3, "first"), call("Outer", &["t"], &["y"]).put(3, "second")];
    let graph = import(&model_with_functions(graph().all(1, nodes_in_file), [scaled, outer]));
    assert_eq!(
        nodes(&graph),
        [
            "Elu(x)->first/Scaled_0/m",
            "LeakyRelu(first/Scaled_0/m)->t",
            "Elu(t)->second/Scaled_2/m",
            "LeakyRelu(second/Scaled_2/m)->y"
        ]
    );
    let alpha = |index: usize| graph.nodes[index].attributes.get("alpha");
    assert!(matches!(alpha(0), Some(Attribute::Float(3.0))), "given by the caller");
    assert!(matches!(alpha(1), Some(Attribute::Float(0.25))), "the function's default");
}

#[test]
fn a_function_may_leave_out_and_give_back_arguments() {
    let function = message().put(1, "f").all(4, ["a", "b"]).all(5, ["a", "c"]).put(9, opset("", 17)).put(10, "local");
    let function = function.put(7, node("Clip", &["a", "b"], &["c"]));
    let graph = graph().put(1, call("f", &["x"], &["same", "t"])).put(1, node("Add", &["same", "t"], &["y"]));
    let graph = import(&model_with_functions(graph, [function]));
    assert_eq!(nodes(&graph), ["Identity(x)->same", "Clip(x,-)->t", "Add(same,t)->y"]);
}

#[test]
fn a_large_graph_in_reverse_is_imported() {
    let count = 50_000;
    let name = |index: usize| if index == 0 { "x".to_owned() } else { format!("t{index}") };
    let chain = (0..count).rev().map(|index| node("Relu", &[&name(index)], &[&name(index + 1)]));
    let last = node("Identity", &[&name(count)], &["y"]);
    assert_eq!(import(&with_nodes(chain.chain([last]))).nodes.len(), count + 1);
}

#[test]
fn a_survey_lists_everything_unsupported() {
    let path = std::env::temp_dir().join(format!("streaminfer-survey-{}.onnx", std::process::id()));
    let word = |name: &str| tensor(name, 12, &[1]).put(9, [0; 4]);
    let strange = node("Sum", &["x", "a", "b"], &["y"]).put(5, message().put(1, "odd").int(20, 9)).put(3, "strange");
    std::fs::write(&path, model(graph().all(5, [word("a"), word("b")]).put(1, strange))).unwrap();
    let (graph, faults) = import::survey(&path, &ImportOptions::default()).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(graph.nodes.len(), 1);
    let said: Vec<bool> = ["'a'", "'b'", "'strange'"]
        .iter()
        .map(|name| faults.iter().any(|fault| fault.message.contains(name)))
        .collect();
    assert_eq!((said, faults.len()), (vec![true; 3], 3), "{faults:?}");
}
