//! Tensors that lie about their type, shape or data.

use super::wire::*;
use super::{Case, case};
use streaminfer::error::Status::{ForbiddenPath, Malformed, TooLarge, Unsupported};

pub fn cases() -> Vec<Case> {
    [data(), shapes(), types()].into_iter().flatten().collect()
}

fn data() -> Vec<Case> {
    let raw = |bytes: usize| with_weight(tensor("w", FLOAT, &[4]).put(9, vec![0; bytes]));
    vec![
        case("raw data too short", raw(15), Malformed, "needs 16 bytes and has 15"),
        case("raw data too long", raw(17), Malformed, "needs 16 bytes and has 17"),
        case("no data", with_weight(tensor("w", FLOAT, &[4])), Malformed, "needs 16 bytes and has 0"),
        case(
            "data in the wrong field",
            with_weight(tensor("w", FLOAT, &[1]).packed(7, &[1])),
            Malformed,
            "needs 4 bytes",
        ),
        case("too few values", with_weight(tensor("w", INT64, &[3]).packed(7, &[1, 2])), Malformed, "needs 24 bytes"),
        case("int8 of 200", with_weight(tensor("w", 3, &[1]).packed(5, &[200])), Malformed, "200"),
        case("float16 of 17 bits", with_weight(tensor("w", 10, &[1]).packed(5, &[1 << 16])), Malformed, "65536"),
        case("64 MiB of int64 in one byte each", with_weight(packed_zeros(1 << 26)), TooLarge, "memory"),
        case(
            "external data from memory",
            with_weight(external("w", 4, &[("location", "weights")])),
            ForbiddenPath,
            "no directory",
        ),
        case("external data without location", with_weight(external("w", 4, &[])), Malformed, "location"),
        case(
            "external data of length 2^50",
            with_weight(external("w", 4, &[("location", "weights"), ("length", "1125899906842624")])),
            Malformed,
            "1125899906842624",
        ),
        case(
            "external data of negative offset",
            with_weight(external("w", 4, &[("location", "weights"), ("offset", "-16")])),
            Malformed,
            "offset '-16'",
        ),
        case("segment of a tensor", with_weight(tensor("w", FLOAT, &[4]).put(3, message())), Unsupported, "segments"),
    ]
}

fn packed_zeros(count: usize) -> Message {
    tensor("w", INT64, &[count as i64]).put(7, vec![0; count])
}

fn shapes() -> Vec<Case> {
    let shaped = |dims: &[i64]| with_weight(tensor("w", FLOAT, dims).put(9, [0; 16]));
    let declared = |dims: &[i64]| model(graph().put(11, value("z", FLOAT, dims)));
    vec![
        case("negative dimension", shaped(&[-4]), Malformed, "-4 is negative"),
        case("two negative dimensions", shaped(&[-2, -2]), Malformed, "-2 is negative"),
        case("dimensions that overflow", shaped(&[1 << 62, 8]), TooLarge, "above the limit"),
        case("dimensions that overflow to 4", shaped(&[1 << 32, 1 << 32, 4]), TooLarge, "above the limit"),
        case("zero times overflow", shaped(&[0, 1 << 62, 8]), TooLarge, "above the limit"),
        case("rank 13", shaped(&[1; 13]), TooLarge, "rank 13"),
        case("rank 1 M", shaped(&vec![1; 1 << 20]), TooLarge, "rank"),
        case("input dimensions that overflow", declared(&[1 << 62, 8]), TooLarge, "'z'"),
        case("input of rank 13", declared(&[1; 13]), TooLarge, "'z' has rank 13"),
    ]
}

fn types() -> Vec<Case> {
    let weight = |element| with_weight(tensor("w", element, &[1]).put(9, [0; 8]));
    let input = |ty: Message| model(graph().put(11, message().put(1, "z").put(2, ty)));
    let sparse = message().put(1, tensor("w", FLOAT, &[1]).put(9, [0; 4]));
    let strings = tensor("w", 8, &[1]).put(6, "text");
    vec![
        case("uint32 weight", weight(12), Unsupported, "'w': element type uint32"),
        case(
            "truncated float64 weight",
            with_weight(tensor("w", 11, &[4]).put(9, [0; 31])),
            Malformed,
            "needs 32 bytes and has 31",
        ),
        case("uint16 weight", weight(4), Unsupported, "uint16"),
        case("complex weight", weight(15), Unsupported, "complex128"),
        case("weight of type 4711", weight(4711), Unsupported, "number 4711"),
        case("weight of type -1", weight(-1), Unsupported, "number -1"),
        case("string weight", with_weight(strings), Unsupported, "string"),
        case(
            "sparse weight",
            model(graph().put(15, sparse).put(1, node("Add", &["x", "w"], &["y"]))),
            Unsupported,
            "'w' is a sparse tensor",
        ),
        case("sequence input", input(message().put(4, message())), Unsupported, "'z' is a sequence"),
        case("map input", input(message().put(5, message())), Unsupported, "'z' is a map"),
        case("optional input", input(message().put(9, message())), Unsupported, "'z' is an optional"),
        case(
            "float64 input",
            model(graph().put(11, value("z", 11, &[1]))),
            Unsupported,
            "'z' has element type float64",
        ),
        case("input without type", model(graph().put(11, message().put(1, "z"))), Malformed, "'z' has no type"),
    ]
}
