package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
	"github.com/streaminfer/streaminfer/go/pipeline"
)

func ExampleNew() {
	info := func(name string) []streaminfer.TensorInfo {
		return []streaminfer.TensorInfo{{Name: name, DType: streaminfer.DTypeFloat32, Shape: []int64{3}}}
	}
	engine := fake.NewEngine(fake.Model{Name: "double.onnx", Inputs: info("x"), Outputs: info("y"),
		Run: func(call *fake.Call) error {
			for i, x := range fake.In[float32](call, "x") {
				fake.Out[float32](call, "y")[i] = 2 * x
			}
			return nil
		}})
	defer engine.Close()
	model, err := engine.Load("double.onnx", streaminfer.ModelOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{Sessions: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	type request struct {
		text string
		x, y []float32
		best float32
	}
	p, err := pipeline.New(
		pipeline.Stage[*request]{Name: "parse", Workers: 2, Run: func(_ context.Context, r *request) error {
			_, err := fmt.Sscan(r.text, &r.x[0], &r.x[1], &r.x[2])
			return err
		}},
		pipeline.Infer("double", pool, 4, func(r *request) (in, out []streaminfer.Tensor) {
			return []streaminfer.Tensor{streaminfer.NewTensor("x", r.x, 3)}, []streaminfer.Tensor{streaminfer.NewTensor("y", r.y)}
		}),
		pipeline.Stage[*request]{Name: "pick", Timeout: time.Minute, Run: func(_ context.Context, r *request) error {
			r.best = slices.Max(r.y)
			return nil
		}},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()

	for _, text := range []string{"1 2 3", "one", "5 4 3"} {
		r := &request{text: text, x: make([]float32, 3), y: make([]float32, 3)}
		err := p.Do(context.Background(), r)
		fmt.Println(r.best, err)
	}
	// Output:
	// 6 <nil>
	// 0 pipeline: stage parse: strconv.ParseFloat: parsing "": invalid syntax
	// 10 <nil>
}
