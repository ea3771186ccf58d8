package streaminfer_test

import (
	"encoding/binary"
	"math"
)

// A writer for just enough of ONNX's protobuf (onnx.proto3) to give the suite its models as files.

type message []byte

func (m message) varint(field int, value int64) message {
	m = binary.AppendUvarint(m, uint64(field)<<3)
	return binary.AppendUvarint(m, uint64(value))
}

func (m message) bytes(field int, value []byte) message {
	m = binary.AppendUvarint(m, uint64(field)<<3|2)
	m = binary.AppendUvarint(m, uint64(len(value)))
	return append(m, value...)
}

func (m message) text(field int, value string) message { return m.bytes(field, []byte(value)) }

const (
	onnxFloat = 1
	onnxInt64 = 7
)

// value describes an input or output. An extent is an int or, where it is open, its name.
func value(name string, onnxType int64, shape ...any) message {
	var dims message
	for _, extent := range shape {
		switch e := extent.(type) {
		case int:
			dims = dims.bytes(1, message{}.varint(1, int64(e)))
		case string:
			dims = dims.bytes(1, message{}.text(2, e))
		}
	}
	tensor := message{}.varint(1, onnxType).bytes(2, dims)
	return message{}.text(1, name).bytes(2, message{}.bytes(1, tensor))
}

func node(op, output string, inputs ...string) message {
	var m message
	for _, input := range inputs {
		m = m.text(1, input)
	}
	return m.text(2, output).text(3, op+"_"+output).text(4, op)
}

func initializer(name string, shape []int64, values []float32) message {
	var m message
	for _, extent := range shape {
		m = m.varint(1, extent)
	}
	raw := make([]byte, 0, 4*len(values))
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return m.varint(2, onnxFloat).text(8, name).bytes(9, raw)
}

// graph is a model's parts.
type graph struct {
	nodes, initializers, inputs, outputs []message
}

func (g graph) model() []byte {
	body := message{}
	for _, n := range g.nodes {
		body = body.bytes(1, n)
	}
	body = body.text(2, "suite")
	for _, i := range g.initializers {
		body = body.bytes(5, i)
	}
	for _, i := range g.inputs {
		body = body.bytes(11, i)
	}
	for _, o := range g.outputs {
		body = body.bytes(12, o)
	}
	opset := message{}.varint(2, 17)
	return message{}.varint(1, 8).bytes(7, body).bytes(8, opset)
}
