package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// inputsKept are the random inputs that a workload has, and requests choose from.
const inputsKept = 64

var errWrong = errors.New("an output differs from that of a session nobody else used")

// workload is a model with random requests and what must come out.
type workload struct {
	engine *streaminfer.Engine
	model  *streaminfer.Model
	inputs [inputsKept][]streaminfer.Tensor
	output string
	wanted [inputsKept][]float32
	// tolerance is by how much, as a part of the output's greatest value, a request may differ that ran in a batch: its sums are
	// then made in another order.
	tolerance float64
}

// shapes of the requests, one row each: the images of the MLP, sentences of 128 tokens.
var shapes = map[string]streaminfer.Shapes{
	"mlp":       {"input": {1, 784}},
	"minilm":    {"input_ids": {1, 128}, "attention_mask": {1, 128}, "token_type_ids": {1, 128}},
	"bert-base": {"input_ids": {1, 128}, "attention_mask": {1, 128}, "token_type_ids": {1, 128}},
}

// batchRows are the sizes of batches that have a replay of their own.
var batchRows = []int64{1, 2, 4, 8, 16, 32}

// tolerances by precision.
var tolerances = map[string]float64{"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2, "bf16": 6e-2}

// load loads a cell's model, for single requests or for batches, and asks a session of its own what must come out.
func (b *bench) load(c cell) (*workload, error) {
	w := &workload{engine: b.engine, tolerance: tolerances[b.precision]}
	options := streaminfer.ModelOptions{Precision: precisions[b.precision], Buckets: []streaminfer.Bucket{{Shapes: shapes[c.Model]}}}
	if c.Way == "batch" {
		options.Buckets = nil
		for _, rows := range batchRows {
			options.Buckets = append(options.Buckets, streaminfer.Bucket{Shapes: withRows(shapes[c.Model], rows)})
		}
		for input := range shapes[c.Model] {
			options.Paddings = append(options.Paddings, streaminfer.Padding{Kind: streaminfer.PaddingBatch, Input: input})
		}
	}
	var err error
	if w.model, err = b.engine.Load(filepath.Join(b.models, c.Model+".onnx"), options); err != nil {
		return nil, err
	}
	outputs, err := w.model.Outputs()
	if err != nil {
		return nil, err
	}
	w.output = outputs[0].Name
	return w, w.ask(shapes[c.Model])
}

func withRows(one streaminfer.Shapes, rows int64) streaminfer.Shapes {
	all := streaminfer.Shapes{}
	for name, shape := range one {
		all[name] = append([]int64{rows}, shape[1:]...)
	}
	return all
}

// ask makes the requests and runs each on a session that nobody else uses. Outputs must differ by more than is tolerated, but for
// a few, or the comparison would not see one taken for another.
func (w *workload) ask(shapes streaminfer.Shapes) error {
	s, err := w.model.NewSession(streaminfer.SessionOptions{Buckets: []streaminfer.Bucket{{Shapes: shapes}}})
	if err != nil {
		return err
	}
	defer s.Close()
	random, alike := rand.New(rand.NewPCG(3, 4)), 0
	for k := range w.inputs {
		for _, info := range w.model.Inputs() {
			w.inputs[k] = append(w.inputs[k], randomTensor(random, info, shapes[info.Name]))
		}
		got, err := w.runOn(context.Background(), s, k)
		if err != nil {
			return err
		}
		w.wanted[k] = slices.Clone(got)
		if k > 0 && w.isRight(k-1, w.wanted[k], w.tolerance) {
			alike++
		}
	}
	if alike > inputsKept/8 {
		return fmt.Errorf("%d of %d outputs are the next one's within the tolerance of %g", alike, inputsKept, w.tolerance)
	}
	return nil
}

func randomTensor(random *rand.Rand, info streaminfer.TensorInfo, shape []int64) streaminfer.Tensor {
	count := int64(1)
	for _, extent := range shape {
		count *= extent
	}
	if info.DType == streaminfer.DTypeFloat32 {
		values := make([]float32, count)
		for i := range values {
			values[i] = random.Float32()
		}
		return streaminfer.NewTensor(info.Name, values, shape...)
	}
	values := make([]int64, count)
	for i := range values {
		switch info.Name {
		case "attention_mask":
			values[i] = 1
		case "input_ids":
			values[i] = 1 + random.Int64N(30_000)
		}
	}
	return streaminfer.NewTensor(info.Name, values, shape...)
}

// fill writes an input in place.
func fill[T streaminfer.Element](s *streaminfer.Session, t streaminfer.Tensor) error {
	view, err := streaminfer.Input[T](s, t.Name)
	if err != nil {
		return err
	}
	copy(view.Data, unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.Data))), len(view.Data)))
	return nil
}

// runOn runs request k in place and returns the output, valid until the session's next use.
func (w *workload) runOn(ctx context.Context, s *streaminfer.Session, k int) ([]float32, error) {
	for _, t := range w.inputs[k] {
		var err error
		if t.DType == streaminfer.DTypeFloat32 {
			err = fill[float32](s, t)
		} else {
			err = fill[int64](s, t)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.Run(ctx); err != nil {
		return nil, err
	}
	view, err := streaminfer.Output[float32](s, w.output)
	return view.Data, err
}

// isRight compares an output with what it must be: equal programs give equal bits. A tolerance above 0 is a part of the greatest
// value.
func (w *workload) isRight(k int, got []float32, tolerance float64) bool {
	wanted := w.wanted[k]
	if bytes.Equal(bytesOf(got), bytesOf(wanted)) {
		return true
	}
	if tolerance == 0 || len(got) != len(wanted) {
		return false
	}
	greatest, apart := 0.0, 0.0
	for i, value := range wanted {
		difference := math.Abs(float64(got[i]) - float64(value))
		if math.IsNaN(difference) {
			return false
		}
		greatest, apart = max(greatest, math.Abs(float64(value))), max(apart, difference)
	}
	return apart <= tolerance*greatest
}

func bytesOf(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values))
}
