package streaminfer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// double is a model that the examples run on the fake engine; with [streaminfer.Open] it would be an ONNX file.
func double() (*streaminfer.Engine, *streaminfer.Model) {
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
	model, err := engine.Load("double.onnx", streaminfer.ModelOptions{})
	if err != nil {
		panic(err)
	}
	return engine, model
}

func ExampleSession_Run() {
	engine, model := double() // streaminfer.Open and Engine.Load, in a program
	defer engine.Close()
	session, err := model.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer session.Close()
	x, err := streaminfer.Input[float32](session, "x")
	if err != nil {
		fmt.Println(err) // it says which inputs there are
		return
	}
	y, err := streaminfer.Output[float32](session, "y")
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range 2 { // the views stay valid from one request to the next
		copy(x.Data, []float32{float32(i), 1, 2})
		if err := session.Run(context.Background()); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(y.Data)
	}
	// Output:
	// [0 2 4]
	// [2 2 4]
}

func ExampleModel_Inputs() {
	engine, model := double()
	defer engine.Close()
	for _, info := range model.Inputs() {
		fmt.Println(info.Name, info.DType, info.Shape)
	}
	// Output: x float32 [3]
}

func ExamplePool_Infer() {
	engine, model := double()
	defer engine.Close()
	pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{Sessions: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	// A handler: its own memory, its request's deadline.
	x, y := []float32{1, 2, 3}, make([]float32, 3)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = pool.Infer(ctx, []streaminfer.Tensor{streaminfer.NewTensor("x", x, 3)},
		[]streaminfer.Tensor{streaminfer.NewTensor("y", y)})
	switch {
	case errors.Is(err, streaminfer.ErrDeadline), errors.Is(err, streaminfer.ErrQueueFull):
		fmt.Println("overloaded, and the request has not run:", err)
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(y)
	}
	// Output: [2 4 6]
}

func ExampleRegister() {
	engine, model := double()
	defer engine.Close()
	// A buffer that requests arrive in, large enough for Go to begin it with a page.
	buffer := make([]float32, 16<<10)
	memory, err := streaminfer.Register(engine, buffer)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer memory.Close()
	session, err := model.NewSession(streaminfer.SessionOptions{Attachments: []streaminfer.Attachment{
		{Input: "x", Memory: memory}, {Output: "y", Memory: memory, Offset: 4096},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer session.Close()

	copy(buffer, []float32{1, 2, 3})
	if err := session.Run(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(buffer[1024:1027])
	// Output: [2 4 6]
}

func ExampleBatcher_Infer() {
	info := func(name string) []streaminfer.TensorInfo {
		return []streaminfer.TensorInfo{{Name: name, DType: streaminfer.DTypeFloat32, Shape: []int64{streaminfer.Dynamic, 3},
			DimNames: []string{"batch", ""}}}
	}
	engine := fake.NewEngine(fake.Model{Name: "double.onnx", Inputs: info("x"), Outputs: info("y"),
		Run: func(call *fake.Call) error {
			for i, x := range fake.In[float32](call, "x") {
				fake.Out[float32](call, "y")[i] = 2 * x
			}
			return nil
		}})
	defer engine.Close()

	// The outermost axis of x counts independent rows; up to 16 of them run together.
	model, err := engine.Load("double.onnx", streaminfer.ModelOptions{
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x", Axis: 0}},
		Buckets:  []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {1, 3}}}, {Shapes: streaminfer.Shapes{"x": {16, 3}}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	batcher, err := streaminfer.NewBatcher(model, streaminfer.BatcherOptions{Delay: 10 * time.Millisecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer batcher.Close()

	// Handlers, each with a row of its own.
	var handlers sync.WaitGroup
	results := make([][]float32, 4)
	for i := range results {
		handlers.Go(func() {
			x, y := []float32{float32(i), 1, 2}, make([]float32, 3)
			err := batcher.Infer(context.Background(), []streaminfer.Tensor{streaminfer.NewTensor("x", x, 1, 3)},
				[]streaminfer.Tensor{streaminfer.NewTensor("y", y)})
			if err == nil {
				results[i] = y
			}
		})
	}
	handlers.Wait()
	fmt.Println(results)
	// Output: [[0 2 4] [2 2 4] [4 2 4] [6 2 4]]
}

func ExamplePool_Do() {
	engine, model := double()
	defer engine.Close()
	pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	// In place: the slices are the device's memory, valid until the function returns.
	err = pool.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error {
		x, err := streaminfer.Input[float32](s, "x")
		if err != nil {
			return err
		}
		y, err := streaminfer.Output[float32](s, "y")
		if err != nil {
			return err
		}
		copy(x.Data, []float32{1, 2, 3})
		if err := s.Run(ctx); err != nil {
			return err
		}
		fmt.Println(y.Data)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: [2 4 6]
}
