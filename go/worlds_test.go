package streaminfer_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// The suite's models, each written twice: in Go for the fake and in ONNX for the library.
const (
	// affine: y = 2 x + 1 for x float32 [n, 4].
	affine = "affine"
	// slow copies x float32 [1024, 1024] to y, and takes about a hundred milliseconds for it.
	slow = "slow"
	// endless is slow, but for many seconds: its requests are given up. On the fake they end when the world is released.
	endless = "endless"
	// heavy: y = x w w w ... for x float32 [n, 1024], some ten milliseconds. On the fake its requests end when the world is released.
	heavy = "heavy"
	// counter: next = state + x, float32 [1] each.
	counter = "counter"
	// doubled: y = x + x for x int64 [3].
	doubled = "doubled"
)

// A request that was given up drains when its step has ended, of some ten milliseconds on the library.
const slowSide, slowSteps, slowTime, endlessSteps, heavySteps = 1024, 8, 100 * time.Millisecond, 1000, 200

func tensor(name string, dtype streaminfer.DType, shape ...int64) streaminfer.TensorInfo {
	info := streaminfer.TensorInfo{Name: name, DType: dtype, Shape: shape, DimNames: make([]string, len(shape))}
	for axis, extent := range shape {
		if extent == streaminfer.Dynamic {
			info.DimNames[axis] = "n"
		}
	}
	return info
}

// fakes are the models of the suite in Go. Requests of endless end when released is closed.
func fakes(released <-chan struct{}) []fake.Model {
	const f32 = streaminfer.DTypeFloat32
	type tensors = []streaminfer.TensorInfo
	return []fake.Model{{
		Name:   affine,
		Inputs: tensors{tensor("x", f32, streaminfer.Dynamic, 4)}, Outputs: tensors{tensor("y", f32, streaminfer.Dynamic, 4)},
		Run: func(call *fake.Call) error {
			y := fake.Out[float32](call, "y")
			for i, x := range fake.In[float32](call, "x") {
				y[i] = 2*x + 1
			}
			return nil
		},
	}, {
		Name:   slow,
		Inputs: tensors{tensor("x", f32, slowSide, slowSide)}, Outputs: tensors{tensor("y", f32, slowSide, slowSide)},
		Run: func(call *fake.Call) error {
			time.Sleep(slowTime)
			copy(fake.Out[float32](call, "y"), fake.In[float32](call, "x"))
			return nil
		},
	}, {
		Name:   endless,
		Inputs: tensors{tensor("x", f32, slowSide, slowSide)}, Outputs: tensors{tensor("y", f32, slowSide, slowSide)},
		Run: func(*fake.Call) error { <-released; return nil },
	}, {
		Name:   heavy,
		Inputs: tensors{tensor("x", f32, streaminfer.Dynamic, slowSide)}, Outputs: tensors{tensor("y", f32, streaminfer.Dynamic, slowSide)},
		Run: func(*fake.Call) error { <-released; return nil },
	}, {
		Name:    counter,
		Inputs:  tensors{tensor("x", f32, 1), tensor("state", f32, 1)},
		Outputs: tensors{tensor("next", f32, 1)},
		Run: func(call *fake.Call) error {
			fake.Out[float32](call, "next")[0] = fake.In[float32](call, "state")[0] + fake.In[float32](call, "x")[0]
			return nil
		},
	}, {
		Name:   doubled,
		Inputs: tensors{tensor("x", streaminfer.DTypeInt64, 3)}, Outputs: tensors{tensor("y", streaminfer.DTypeInt64, 3)},
		Run: func(call *fake.Call) error {
			y := fake.Out[int64](call, "y")
			for i, x := range fake.In[int64](call, "x") {
				y[i] = 2 * x
			}
			return nil
		},
	}}
}

func onnxFile(name string) []byte {
	switch name {
	case affine:
		return graph{
			nodes:        []message{node("Mul", "m", "x", "two"), node("Add", "y", "m", "one")},
			initializers: []message{initializer("two", []int64{1}, []float32{2}), initializer("one", []int64{1}, []float32{1})},
			inputs:       []message{value("x", onnxFloat, "n", 4)}, outputs: []message{value("y", onnxFloat, "n", 4)},
		}.model()
	case slow, endless, heavy:
		steps, rows := slowSteps, any(slowSide)
		switch name {
		case endless:
			steps = endlessSteps
		case heavy:
			steps, rows = heavySteps, "n"
		}
		identity := make([]float32, slowSide*slowSide)
		for i := range slowSide {
			identity[i*slowSide+i] = 1
		}
		g := graph{
			initializers: []message{initializer("w", []int64{slowSide, slowSide}, identity)},
			inputs:       []message{value("x", onnxFloat, rows, slowSide)},
			outputs:      []message{value("y", onnxFloat, rows, slowSide)},
		}
		from := "x"
		for step := range steps {
			to := fmt.Sprintf("s%d", step)
			if step == steps-1 {
				to = "y"
			}
			g.nodes = append(g.nodes, node("MatMul", to, from, "w"))
			from = to
		}
		return g.model()
	case counter:
		return graph{
			nodes:  []message{node("Add", "next", "state", "x")},
			inputs: []message{value("x", onnxFloat, 1), value("state", onnxFloat, 1)}, outputs: []message{value("next", onnxFloat, 1)},
		}.model()
	case doubled:
		return graph{
			nodes:  []message{node("Add", "y", "x", "x")},
			inputs: []message{value("x", onnxInt64, 3)}, outputs: []message{value("y", onnxInt64, 3)},
		}.model()
	}
	panic("no model " + name)
}

// world is one of the two things the suite runs on.
type world struct {
	*testing.T
	isFake bool
	engine *streaminfer.Engine
	// release lets requests of endless that were given up drain, which on the library they do by themselves.
	release func()
}

// inBothWorlds runs a test on the fake and on the library, there on the device that STREAMINFER_DEVICE names, or the host. Without
// a library that half is skipped, unless STREAMINFER_REQUIRE=1 says that there must be one.
func inBothWorlds(t *testing.T, test func(w *world)) {
	t.Run("fake", func(t *testing.T) {
		before := runtime.NumGoroutine()
		released := make(chan struct{})
		release := sync.OnceFunc(func() { close(released) })
		engine := fake.NewEngine(fakes(released)...)
		finish(t, engine, before)
		t.Cleanup(release)
		test(&world{t, true, engine, release})
	})
	t.Run("library", func(t *testing.T) {
		before := runtime.NumGoroutine()
		engine := openLibrary(t)
		finish(t, engine, before)
		test(&world{t, false, engine, func() {}})
	})
}

// device is what the library's half of the suite runs on.
func device() string { return cmp.Or(os.Getenv("STREAMINFER_DEVICE"), "host") }

// needsHost skips a test of what only the host device promises.
func needsHost(t *testing.T) {
	if device() != "host" {
		t.Skip("the host device alone does this")
	}
}

func openLibrary(t testing.TB) *streaminfer.Engine {
	t.Helper()
	engine, err := streaminfer.Open(streaminfer.EngineOptions{Device: device()})
	if err != nil {
		if os.Getenv("STREAMINFER_REQUIRE") == "1" {
			t.Fatal(err)
		}
		if _, missing := errors.AsType[*streaminfer.LibraryError](err); missing || errors.Is(err, streaminfer.ErrUnsupported) {
			t.Skip("no library: STREAMINFER_LIBRARY can name one")
		}
		t.Fatal(err)
	}
	return engine
}

// finish closes the engine after the test, twice, and then no goroutine may be left.
func finish(t testing.TB, engine *streaminfer.Engine, before int) {
	t.Cleanup(func() {
		for range 2 {
			if err := engine.Close(); err != nil {
				t.Errorf("closing the engine: %v", err)
			}
		}
		eventually(t, "its goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
		if t.Failed() {
			buffer := make([]byte, 1<<16)
			t.Logf("%s", buffer[:runtime.Stack(buffer, true)])
		}
	})
}

// eventually waits for something that needs no help, for as long as a loaded machine may take.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func batch(n int64) streaminfer.Bucket {
	return streaminfer.Bucket{Shapes: streaminfer.Shapes{"x": {n, 4}}}
}

func (w *world) load(name string, buckets ...streaminfer.Bucket) *streaminfer.Model {
	w.Helper()
	file := []byte(name)
	if !w.isFake {
		file = onnxFile(name)
	}
	if name == affine && buckets == nil {
		buckets = []streaminfer.Bucket{batch(1)}
	}
	model, err := w.engine.LoadBytes(file, streaminfer.ModelOptions{Buckets: buckets})
	if err != nil {
		w.Fatal(err)
	}
	return model
}

func (w *world) session(model *streaminfer.Model, links ...streaminfer.Link) *streaminfer.Session {
	w.Helper()
	session, err := model.NewSession(streaminfer.SessionOptions{Links: links})
	if err != nil {
		w.Fatal(err)
	}
	return session
}

func input[T streaminfer.Element](w *world, s *streaminfer.Session, name string) streaminfer.View[T] {
	w.Helper()
	view, err := streaminfer.Input[T](s, name)
	if err != nil {
		w.Fatal(err)
	}
	return view
}

func output[T streaminfer.Element](w *world, s *streaminfer.Session, name string) streaminfer.View[T] {
	w.Helper()
	view, err := streaminfer.Output[T](s, name)
	if err != nil {
		w.Fatal(err)
	}
	return view
}

// is fails the test unless err has the status, and a sentence.
func (w *world) is(err error, status streaminfer.Status) {
	w.Helper()
	failure, ok := errors.AsType[*streaminfer.Error](err)
	if !ok || !errors.Is(err, status) {
		w.Fatalf("got %v, want %v", err, status)
	}
	if strings.TrimSpace(failure.Message) == "" {
		w.Fatalf("%v has no message", failure)
	}
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}
