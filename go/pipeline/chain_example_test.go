package pipeline_test

import (
	"context"
	"fmt"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
	"github.com/streaminfer/streaminfer/go/pipeline"
)

// A detector's boxes are the classifier's input: they stay on the device.
func ExampleLinked() {
	info := func(name string) []streaminfer.TensorInfo {
		return []streaminfer.TensorInfo{{Name: name, DType: streaminfer.DTypeFloat32, Shape: []int64{3}}}
	}
	apply := func(input, output string, f func(float32) float32) func(*fake.Call) error {
		return func(call *fake.Call) error {
			for i, x := range fake.In[float32](call, input) {
				fake.Out[float32](call, output)[i] = f(x)
			}
			return nil
		}
	}
	engine := fake.NewEngine(
		fake.Model{Name: "detect.onnx", Inputs: info("image"), Outputs: info("boxes"),
			Run: apply("image", "boxes", func(x float32) float32 { return x + 1 })},
		fake.Model{Name: "classify.onnx", Inputs: info("regions"), Outputs: info("classes"),
			Run: apply("regions", "classes", func(x float32) float32 { return 10 * x })},
	) // streaminfer.Open, in a program
	defer engine.Close()
	var models [2]*streaminfer.Model
	for i, path := range []string{"detect.onnx", "classify.onnx"} {
		model, err := engine.Load(path, streaminfer.ModelOptions{})
		if err != nil {
			fmt.Println(err)
			return
		}
		models[i] = model
	}

	type request struct{ image, classes []float32 }
	p, err := pipeline.New(pipeline.Linked("detect and classify", 2,
		func(ctx context.Context, c *pipeline.Chain, r *request) error {
			image, err := streaminfer.Input[float32](c.Session(0), "image")
			if err != nil {
				return err
			}
			copy(image.Data, r.image)
			if err := c.Run(ctx); err != nil {
				return err
			}
			classes, err := streaminfer.Output[float32](c.Session(1), "classes")
			if err != nil {
				return err
			}
			r.classes = append(r.classes, classes.Data...)
			return nil
		},
		pipeline.Link{Model: models[0]},
		pipeline.Link{Model: models[1], Inputs: map[string]string{"regions": "boxes"}},
	))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()

	r := &request{image: []float32{1, 2, 3}}
	err = p.Do(context.Background(), r)
	fmt.Println(r.classes, err)
	// Output: [20 30 40] <nil>
}
