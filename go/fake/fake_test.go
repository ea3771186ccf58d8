package fake_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// open makes a session of a model with one float32 input and output.
func open(t *testing.T, model fake.Model) *streaminfer.Session {
	t.Helper()
	one := []int64{1}
	model.Name = "model.onnx"
	model.Inputs = []streaminfer.TensorInfo{{Name: "x", DType: streaminfer.DTypeFloat32, Shape: one}}
	model.Outputs = []streaminfer.TensorInfo{{Name: "y", DType: streaminfer.DTypeFloat32, Shape: one}}
	engine := fake.NewEngine(model)
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	loaded, err := engine.Load("/models/v1/model.onnx", streaminfer.ModelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	session, err := loaded.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func TestFailuresCanBePlayed(t *testing.T) {
	for _, test := range []struct {
		name     string
		model    fake.Model
		want     streaminfer.Status
		executed streaminfer.Executed
	}{
		{"busy", fake.Model{Admit: func() error { return streaminfer.StatusAgain }}, streaminfer.StatusAgain, streaminfer.ExecutedNo},
		{"lost", fake.Model{Run: func(*fake.Call) error { return streaminfer.StatusDeviceLost }}, streaminfer.StatusDeviceLost,
			streaminfer.ExecutedMaybe},
		{"wrapped", fake.Model{Run: func(*fake.Call) error {
			return fmt.Errorf("node 7: %w", &streaminfer.Error{Status: streaminfer.StatusOutOfMemory})
		}}, streaminfer.StatusOutOfMemory, streaminfer.ExecutedMaybe},
		{"other", fake.Model{Run: func(*fake.Call) error { return errors.New("node 7") }}, streaminfer.StatusInternal,
			streaminfer.ExecutedMaybe},
		{"panic", fake.Model{Run: func(call *fake.Call) error { fake.In[int64](call, "x"); return nil }},
			streaminfer.StatusPanicked, streaminfer.ExecutedMaybe},
		{"type of the same size", fake.Model{Run: func(call *fake.Call) error { fake.In[int32](call, "x"); return nil }},
			streaminfer.StatusPanicked, streaminfer.ExecutedMaybe},
		{"output of another type", fake.Model{Run: func(call *fake.Call) error { fake.Out[int32](call, "y"); return nil }},
			streaminfer.StatusPanicked, streaminfer.ExecutedMaybe},
		{"unknown tensor", fake.Model{Run: func(call *fake.Call) error { call.Shape("z"); return nil }},
			streaminfer.StatusPanicked, streaminfer.ExecutedMaybe},
	} {
		t.Run(test.name, func(t *testing.T) {
			session := open(t, test.model)
			err := session.Run(context.Background())
			failure, ok := errors.AsType[*streaminfer.Error](err)
			if !ok || failure.Status != test.want || failure.Executed != test.executed {
				t.Fatalf("got %v, executed %v", err, failure.Executed)
			}
			if strings.Contains(failure.Message, "7") != (test.name == "wrapped" || test.name == "other") {
				t.Error(failure.Message)
			}
		})
	}
}

func TestRequestThatCannotStartInTimeExpires(t *testing.T) {
	gate := make(chan struct{})
	first := open(t, fake.Model{Run: func(*fake.Call) error { <-gate; return nil }})
	second, err := first.Model().NewSession(streaminfer.SessionOptions{
		Links: []streaminfer.Link{{Input: "x", Source: first, Output: "y"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Submit(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx := submitInTime(t, second)
	<-ctx.Done()
	close(gate)
	err = second.Wait(context.Background())
	failure, ok := errors.AsType[*streaminfer.Error](err)
	if !ok || failure.Status != streaminfer.StatusExpired || failure.Executed != streaminfer.ExecutedNo ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

// submitInTime submits a request with a short deadline, which it returns.
func submitInTime(t *testing.T, session *streaminfer.Session) context.Context {
	for budget := time.Millisecond; ; budget *= 2 {
		ctx, cancel := context.WithTimeout(context.Background(), budget)
		t.Cleanup(cancel)
		if err := session.Submit(ctx); err == nil {
			return ctx
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
}

// A model that makes its goroutine exit, as testing.T's Fatal does, fails its request and no other.
func TestModelsMayExit(t *testing.T) {
	exit := true
	session := open(t, fake.Model{Run: func(*fake.Call) error {
		if exit {
			runtime.Goexit()
		}
		return nil
	}})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for range 2 {
		if err := session.Run(ctx); !errors.Is(err, streaminfer.StatusPanicked) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	exit = false
	session, err := session.Model().NewSession(streaminfer.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Run(ctx); err != nil {
		t.Error(err)
	}

	exit = true
	rows := []streaminfer.TensorInfo{{Name: "x", DType: streaminfer.DTypeFloat32, Shape: []int64{-1}, DimNames: []string{"n"}}}
	engine := fake.NewEngine(fake.Model{Name: "rows", Inputs: rows, Outputs: rows, Run: func(*fake.Call) error { runtime.Goexit(); return nil }})
	defer engine.Close()
	model, err := engine.Load("rows", streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {1}}}},
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	batcher, err := streaminfer.NewBatcher(model, streaminfer.BatcherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer batcher.Close()
	for range 5 { // more than there are batches
		err := batcher.Infer(ctx, []streaminfer.Tensor{streaminfer.NewTensor("x", []float32{1}, 1)}, nil)
		if !errors.Is(err, streaminfer.StatusPanicked) {
			t.Fatal(err)
		}
	}
}

func TestCallKnowsItsShapes(t *testing.T) {
	var shapes []string
	session := open(t, fake.Model{Run: func(call *fake.Call) error {
		shapes = append(shapes, fmt.Sprint(call.Shape("x"), call.Shape("y"), len(fake.Out[float32](call, "y"))))
		return nil
	}})
	if err := session.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(shapes) != 1 || shapes[0] != "[1] [1] 1" {
		t.Error(shapes)
	}
}

func ExampleNewEngine() {
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
	model, _ := engine.Load("double.onnx", streaminfer.ModelOptions{})
	session, _ := model.NewSession(streaminfer.SessionOptions{})
	x, _ := streaminfer.Input[float32](session, "x")
	y, _ := streaminfer.Output[float32](session, "y")
	copy(x.Data, []float32{1, 2, 3})
	fmt.Println(session.Run(context.Background()), y.Data)
	// Output: <nil> [2 4 6]
}
