package streaminfer_test

import (
	"context"
	"slices"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// inferer is a pool or a batcher.
type inferer interface {
	Infer(ctx context.Context, in, out []streaminfer.Tensor) error
}

// inBothWays runs a test on a pool and on a batcher of a model.
func (w *world) inBothWays(model *streaminfer.Model, test func(name string, by inferer)) {
	w.Helper()
	test("pool", w.pool(model, streaminfer.PoolOptions{Sessions: 1}))
	test("batcher", w.batcher(model, streaminfer.BatcherOptions{Batches: 1}))
}

// What a tensor says is read or filled, or the request is refused before it runs.
func TestTensorsThatAreNotTheModels(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		w.inBothWays(w.batched(1, 2), func(name string, by inferer) {
			x, y := make([]float32, 8), make([]float32, 8)
			in := streaminfer.NewTensor("x", x, 2, 4)
			infer := func(in []streaminfer.Tensor, out ...streaminfer.Tensor) error {
				return by.Infer(context.Background(), in, out)
			}
			refused := func(err error, want streaminfer.Status) {
				w.Helper()
				if w.is(err, want); w.executed(err) != streaminfer.ExecutedNo {
					w.Errorf("%s: it may have run: %v", name, err)
				}
			}
			good := []streaminfer.Tensor{in}
			w.ok(infer(good, streaminfer.NewTensor("y", y)))
			w.ok(infer(good, streaminfer.NewTensor("", y)))
			refused(infer(good, streaminfer.NewTensor("y", y), streaminfer.NewTensor("y", y)), streaminfer.StatusInvalidArgument)
			refused(infer(good, streaminfer.NewTensor("", y), streaminfer.NewTensor("y", y)), streaminfer.StatusInvalidArgument)
			refused(infer([]streaminfer.Tensor{in, in}), streaminfer.StatusInvalidArgument)
			refused(infer(good, streaminfer.NewTensor("y", make([]int64, 8))), streaminfer.StatusShapeMismatch)
			refused(infer(good, streaminfer.NewTensor("y", y[:7:7])), streaminfer.StatusShapeMismatch)
		})
	})
}

// twoOutputs is a fake model of x and its outputs a = 1 and b = 2.
func twoOutputs() fake.Model {
	row := func(name string) streaminfer.TensorInfo {
		return tensor(name, streaminfer.DTypeFloat32, streaminfer.Dynamic)
	}
	return fake.Model{Name: "two", Inputs: []streaminfer.TensorInfo{row("x")}, Outputs: []streaminfer.TensorInfo{row("a"), row("b")},
		Run: func(call *fake.Call) error {
			for i := range fake.Out[float32](call, "a") {
				fake.Out[float32](call, "a")[i], fake.Out[float32](call, "b")[i] = 1, 2
			}
			return nil
		}}
}

func TestOutputsByNameAndPosition(t *testing.T) {
	engine := fake.NewEngine(twoOutputs())
	defer engine.Close()
	w := &world{T: t, isFake: true, engine: engine}
	model, err := engine.LoadBytes([]byte("two"), streaminfer.ModelOptions{
		Buckets:  []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {1}}}},
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x"}}})
	w.ok(err)
	w.inBothWays(model, func(way string, by inferer) {
		for _, test := range []struct{ names, want []string }{
			{[]string{"", ""}, []string{"a", "b"}},
			{[]string{"b", "a"}, []string{"b", "a"}},
			{[]string{"b"}, []string{"b"}},
			{[]string{"a", ""}, []string{"a", "b"}},
			{[]string{"", "b"}, []string{"a", "b"}},
			{[]string{"b", ""}, nil}, // both are b
			{[]string{"", "a"}, nil}, // both are a
			{[]string{"a", "a"}, nil},
			{[]string{"b", "a", "a"}, nil},
			{[]string{"a", "b", ""}, nil},
			{[]string{"c"}, nil},
		} {
			values := make([]float32, len(test.names))
			var out []streaminfer.Tensor
			for i, name := range test.names {
				out = append(out, streaminfer.NewTensor(name, values[i:i+1:i+1]))
			}
			err := by.Infer(context.Background(), []streaminfer.Tensor{streaminfer.NewTensor("x", []float32{0}, 1)}, out)
			if test.want == nil {
				w.is(err, streaminfer.StatusInvalidArgument)
				continue
			}
			w.ok(err)
			for i, name := range test.want {
				if want := map[string]float32{"a": 1, "b": 2}[name]; values[i] != want {
					w.Errorf("%s: output %d of %q is %v", way, i, test.names, values[i])
				}
			}
		}
	})
}

// Tensors made from the same shape do not share it.
func TestTensorsHaveShapesOfTheirOwn(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 1})
		shape := []int64{1, 4, 7}
		in := []streaminfer.Tensor{streaminfer.NewTensor("x", make([]float32, 4), shape[:2]...)}
		out := []streaminfer.Tensor{streaminfer.NewTensor("y", make([]float32, 4), shape[1:]...)}
		w.ok(pool.Infer(context.Background(), in, out))
		if !slices.Equal(in[0].Shape, []int64{1, 4}) || !slices.Equal(out[0].Shape, []int64{1, 4}) || !slices.Equal(shape, []int64{1, 4, 7}) {
			w.Error(in[0].Shape, out[0].Shape, shape)
		}
	})
}
