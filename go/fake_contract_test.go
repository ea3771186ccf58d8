package streaminfer_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// What follows holds the fake and the library to the same answers: padding, states of a request, closed objects, mistakes.

// loadWith is load with options.
func (w *world) loadWith(name string, options streaminfer.ModelOptions) (*streaminfer.Model, error) {
	if w.isFake {
		return w.engine.LoadBytes([]byte(name), options)
	}
	return w.engine.LoadBytes(onnxFile(name), options)
}

func batchPadding() streaminfer.Padding {
	return streaminfer.Padding{Kind: streaminfer.PaddingBatch, Input: "x", Axis: 0}
}

// padded is affine with an open batch.
func (w *world) padded(buckets ...streaminfer.Bucket) *streaminfer.Model {
	w.Helper()
	model, err := w.loadWith(affine, streaminfer.ModelOptions{Buckets: buckets, Paddings: []streaminfer.Padding{batchPadding()}})
	w.ok(err)
	return model
}

func TestRequestsArePaddedToTheSmallestBucket(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.padded(batch(8), batch(2), batch(4))
		s := w.session(model)
		for _, rows := range []int64{3, 8, 1, 4, 5} {
			w.ok(s.Use(batch(rows)))
			x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
			if !slices.Equal(x.Shape, []int64{rows, 4}) || !slices.Equal(x.Strides, []int64{4, 1}) || len(x.Data) != int(4*rows) ||
				!slices.Equal(y.Shape, x.Shape) || len(y.Data) != len(x.Data) {
				w.Fatalf("%d rows: views of %v and %v, %d and %d elements", rows, x.Shape, y.Shape, len(x.Data), len(y.Data))
			}
			for i := range x.Data {
				x.Data[i] = float32(i)
			}
			w.ok(s.Run(context.Background()))
			for i, got := range y.Data {
				if got != 2*float32(i)+1 {
					w.Fatalf("%d rows: y[%d] is %v", rows, i, got)
				}
			}
		}
		w.is(s.Use(batch(9)), streaminfer.StatusNoBucket)
		w.is(s.Use(batch(0)), streaminfer.StatusNoBucket)
		w.is(s.Use(batch(-3)), streaminfer.StatusInvalidArgument)
		w.is(s.Use(streaminfer.Bucket{}), streaminfer.StatusInvalidArgument)
		_, err := model.NewSession(streaminfer.SessionOptions{Buckets: []streaminfer.Bucket{batch(3)}})
		w.is(err, streaminfer.StatusNoBucket)
		linked := w.session(model, streaminfer.Link{Input: "x", Source: s, Output: "y"})
		w.is(linked.Use(batch(3)), streaminfer.StatusNoBucket)
		w.ok(linked.Use(batch(8)))
	})
}

func TestPoolsPadRequests(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.padded(batch(2), batch(8)), streaminfer.PoolOptions{Sessions: 1})
		for _, rows := range []int64{3, 1, 8, 2} {
			r := newAffineRequest(rows)
			r.randomize()
			w.ok(pool.Infer(context.Background(), r.in, r.out))
			if !r.right() || !slices.Equal(r.out[0].Shape, []int64{rows, 4}) {
				w.Errorf("%d rows: %v of shape %v", rows, r.y, r.out[0].Shape)
			}
		}
		r := newAffineRequest(9)
		w.is(pool.Infer(context.Background(), r.in, r.out), streaminfer.StatusNoBucket)
	})
}

// gram: g = x xT, float32 [2, 2], and z = x + x for x float32 [2, m], of which m may be masked with zeros.
func inBothWorldsWithGram(t *testing.T, test func(w *world, model *streaminfer.Model)) {
	options := streaminfer.ModelOptions{Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingMasked, Input: "x", Axis: 1}},
		Buckets: []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {2, 5}}}}}
	open := func(names ...string) []streaminfer.TensorInfo {
		x := tensor(names[0], streaminfer.DTypeFloat32, 2, streaminfer.Dynamic)
		return append([]streaminfer.TensorInfo{x}, slices.Repeat([]streaminfer.TensorInfo{tensor("g", streaminfer.DTypeFloat32, 2, 2)}, len(names)-1)...)
	}
	run := func(t *testing.T, isFake bool, engine *streaminfer.Engine, data []byte) {
		finish(t, engine, runtime.NumGoroutine())
		w := &world{t, isFake, engine, func() {}}
		model, err := engine.LoadBytes(data, options)
		w.ok(err)
		test(w, model)
	}
	t.Run("fake", func(t *testing.T) {
		run(t, true, fake.NewEngine(fake.Model{Name: "gram", Inputs: open("x"), Outputs: open("z", "g"), Run: func(call *fake.Call) error {
			x, g, m := fake.In[float32](call, "x"), fake.Out[float32](call, "g"), int(call.Shape("x")[1])
			for i, v := range x {
				fake.Out[float32](call, "z")[i] = 2 * v
			}
			for i := range g {
				g[i] = 0
				for k := range m {
					g[i] += x[i/2*m+k] * x[i%2*m+k]
				}
			}
			return nil
		}}), []byte("gram"))
	})
	t.Run("library", func(t *testing.T) {
		run(t, false, openLibrary(t), graph{
			nodes:  []message{node("Transpose", "t", "x"), node("MatMul", "g", "x", "t"), node("Add", "z", "x", "x")},
			inputs: []message{value("x", onnxFloat, 2, "m")}, outputs: []message{value("z", onnxFloat, 2, "m"), value("g", onnxFloat, 2, 2)},
		}.model())
	})
}

// What a request leaves unused along an inner axis has the padding's value, whatever was there, and views have gaps.
func TestUnusedPartsAreFilled(t *testing.T) {
	inBothWorldsWithGram(t, func(w *world, model *streaminfer.Model) {
		s := w.session(model)
		for _, m := range []int64{5, 3, 4, 2, 5} {
			w.ok(s.Use(streaminfer.Bucket{Shapes: streaminfer.Shapes{"x": {2, m}}}))
			x, z, g := input[float32](w, s, "x"), output[float32](w, s, "z"), output[float32](w, s, "g")
			if want := []int64{2, m}; !slices.Equal(x.Shape, want) || !slices.Equal(z.Shape, want) || len(x.Data) != 5+int(m) ||
				!slices.Equal(x.Strides, []int64{5, 1}) || !slices.Equal(z.Strides, x.Strides) || !slices.Equal(g.Shape, []int64{2, 2}) {
				w.Fatalf("views %v %v of %d, %v %v, %v", x.Shape, x.Strides, len(x.Data), z.Shape, z.Strides, g.Shape)
			}
			for k := range m {
				x.Data[k], x.Data[5+k] = 1, 2
			}
			w.ok(s.Run(context.Background()))
			if n := float32(m); !slices.Equal(g.Data, []float32{n, 2 * n, 2 * n, 4 * n}) || z.Data[m-1] != 2 || z.Data[5+m-1] != 4 {
				w.Fatalf("of %d: %v, %v", m, g.Data, z.Data)
			}
		}
		pool := w.pool(model, streaminfer.PoolOptions{Sessions: 1})
		x, z, g := []float32{1, 2, 3, 4, 5, 6}, make([]float32, 10), make([]float32, 4)
		out := []streaminfer.Tensor{streaminfer.NewTensor("z", z), streaminfer.NewTensor("g", g)}
		w.ok(pool.Infer(context.Background(), []streaminfer.Tensor{streaminfer.NewTensor("x", x, 2, 3)}, out))
		if !slices.Equal(z[:6], []float32{2, 4, 6, 8, 10, 12}) || !slices.Equal(out[0].Shape, []int64{2, 3}) || !slices.Equal(g, []float32{14, 32, 32, 77}) {
			w.Errorf("%v of shape %v, %v", z, out[0].Shape, g)
		}
	})
}

// submitAndEnd submits a request and returns when the device is done with it, which nobody has been told: a request of another
// session has waited for it.
func (w *world) submitAndEnd(s, other *streaminfer.Session, event *streaminfer.Event) {
	w.Helper()
	w.ok(s.Submit(context.Background()))
	w.ok(event.Record(s))
	w.ok(event.Wait(other))
	w.ok(other.Run(context.Background()))
}

// A request is in flight until Poll or Wait has said that it is not, also when the device is done with it.
func TestARequestEndsWhenThatIsSaid(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine, batch(1), batch(2))
		s, other := w.session(model), w.session(model)
		event, err := w.engine.NewEvent()
		w.ok(err)
		for _, learn := range []func() error{
			func() error { return s.Wait(context.Background()) },
			func() error {
				ended, err := s.Poll()
				if !ended {
					w.Error("it has ended")
				}
				return err
			},
		} {
			w.submitAndEnd(s, other, event)
			w.is(s.Use(batch(2)), streaminfer.StatusInFlight)
			_, err := s.Timings()
			w.is(err, streaminfer.StatusWrongState)
			w.is(s.Submit(context.Background()), streaminfer.StatusInFlight)
			w.ok(s.Cancel()) // too late
			_ = input[float32](w, s, "x")
			w.ok(learn())
			_, err = s.Timings()
			w.ok(err)
			w.ok(s.Use(batch(2)))
		}
	})
}

func TestClosedObjectsAreStale(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		s, source := w.session(model), w.session(model)
		event, err := w.engine.NewEvent()
		w.ok(err)
		w.ok(event.Record(s))
		w.ok(event.Close())
		w.is(event.Record(s), streaminfer.StatusStaleHandle)
		w.is(event.Wait(s), streaminfer.StatusStaleHandle)

		w.ok(source.Close())
		_, err = model.NewSession(streaminfer.SessionOptions{Links: []streaminfer.Link{{Input: "x", Source: source, Output: "y"}}})
		w.is(err, streaminfer.StatusStaleHandle)

		w.ok(model.Close())
		_, err = model.NewSession(streaminfer.SessionOptions{})
		w.is(err, streaminfer.StatusStaleHandle)
		_, err = streaminfer.NewPool(model, streaminfer.PoolOptions{})
		w.is(err, streaminfer.StatusStaleHandle)
		_, err = streaminfer.NewBatcher(model, streaminfer.BatcherOptions{})
		w.is(err, streaminfer.StatusStaleHandle)
		_, err = model.Outputs()
		w.is(err, streaminfer.StatusStaleHandle)
		_, err = model.Multiprocessors()
		w.is(err, streaminfer.StatusStaleHandle)
		w.is(model.AddBucket(batch(3)), streaminfer.StatusStaleHandle)
		w.ok(s.Run(context.Background())) // a session keeps what it needs
	})
}

func TestLinksAndEventsThatCannotBe(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine, batch(2), batch(8))
		only := func(b streaminfer.Bucket, links ...streaminfer.Link) (*streaminfer.Session, error) {
			return model.NewSession(streaminfer.SessionOptions{Buckets: []streaminfer.Bucket{b}, Links: links})
		}
		source := w.session(model)
		link := streaminfer.Link{Input: "x", Source: source, Output: "y"}
		_, err := only(batch(8), link)
		w.is(err, streaminfer.StatusShapeMismatch)
		_, err = model.NewSession(streaminfer.SessionOptions{Links: []streaminfer.Link{link, link}})
		w.is(err, streaminfer.StatusInvalidArgument)
		target := w.session(model, link)
		_, err = streaminfer.Input[float32](target, "x")
		w.is(err, streaminfer.StatusWrongState)
		w.ok(source.Use(batch(8)))
		w.ok(source.Run(context.Background()))
		w.is(target.Run(context.Background()), streaminfer.StatusWrongState)
		w.ok(target.Use(batch(8)))
		w.ok(target.Run(context.Background()))

		event, err := w.engine.NewEvent()
		w.ok(err)
		w.ok(event.Record(source))
		for range 8 {
			w.ok(event.Wait(target))
		}
		w.is(event.Wait(target), streaminfer.StatusLimitReached)
		w.ok(target.Run(context.Background()))
		w.ok(event.Wait(target))
	})
}

func TestOptionsThatCannotBe(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pad := func(change func(p *streaminfer.Padding)) streaminfer.ModelOptions {
			p := batchPadding()
			change(&p)
			return streaminfer.ModelOptions{Paddings: []streaminfer.Padding{p}}
		}
		with := func(shape ...int64) streaminfer.ModelOptions {
			return streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": shape}}}}
		}
		values := with(1, 4)
		values.Buckets[0].Values = map[string][]int64{"x": {1}}
		for name, test := range map[string]struct {
			options streaminfer.ModelOptions
			want    streaminfer.Status
		}{
			"precision":         {streaminfer.ModelOptions{Precision: 9}, streaminfer.StatusInvalidArgument},
			"overridable":       {streaminfer.ModelOptions{Overridable: []string{"nope"}}, streaminfer.StatusInvalidArgument},
			"no padding kind":   {pad(func(p *streaminfer.Padding) { p.Kind = 0 }), streaminfer.StatusInvalidArgument},
			"padding kind":      {pad(func(p *streaminfer.Padding) { p.Kind = 7 }), streaminfer.StatusInvalidArgument},
			"axis below zero":   {pad(func(p *streaminfer.Padding) { p.Axis = -1 }), streaminfer.StatusInvalidArgument},
			"axis too high":     {pad(func(p *streaminfer.Padding) { p.Axis = 2 }), streaminfer.StatusInvalidArgument},
			"axis not open":     {pad(func(p *streaminfer.Padding) { p.Axis = 1 }), streaminfer.StatusInvalidArgument},
			"padding twice":     {streaminfer.ModelOptions{Paddings: []streaminfer.Padding{batchPadding(), batchPadding()}}, streaminfer.StatusInvalidArgument},
			"values":            {values, streaminfer.StatusShapeMismatch},
			"huge bucket":       {with(1<<50, 4), streaminfer.StatusTooLarge},
			"huge product":      {with(1<<62, 4), streaminfer.StatusTooLarge},
			"open bucket":       {with(-1, 4), streaminfer.StatusInvalidArgument},
			"negative extent":   {with(-5, 4), streaminfer.StatusInvalidArgument},
			"rank":              {with(1, 4, 1), streaminfer.StatusShapeMismatch},
			"rank above twelve": {with(make([]int64, 13)...), streaminfer.StatusInvalidArgument},
		} {
			model, err := w.loadWith(affine, test.options)
			if err == nil {
				w.Errorf("%s: loaded", name)
				w.ok(model.Close())
			} else if !errors.Is(err, test.want) {
				w.Errorf("%s: %v, not %v", name, err, test.want)
			}
		}
		integers := streaminfer.ModelOptions{Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingMasked, Input: "x", Value: 0.5}}}
		_, err := w.loadWith(doubled, integers) // its axis is not open, to begin with
		w.is(err, streaminfer.StatusInvalidArgument)

		model := w.padded(batch(2))
		_, err = model.NewSession(streaminfer.SessionOptions{Threads: 65})
		w.is(err, streaminfer.StatusInvalidArgument)
		_, err = streaminfer.NewBatcher(model, streaminfer.BatcherOptions{Batches: 65})
		w.is(err, streaminfer.StatusInvalidArgument)
		_, err = w.engine.LoadBytes(nil, streaminfer.ModelOptions{})
		if err == nil {
			w.Error("nothing is a model")
		}
		_, err = w.engine.Load("a\x00b", streaminfer.ModelOptions{})
		w.is(err, streaminfer.StatusInvalidArgument)
	})
}

// Shapes are copied: the caller's slices are the caller's again.
func TestBucketsAreCopied(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		shape := []int64{2, 4}
		buckets := []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": shape}}}
		model, err := w.loadWith(affine, streaminfer.ModelOptions{Buckets: buckets})
		w.ok(err)
		shape[0] = 8
		s := w.session(model)
		if x := input[float32](w, s, "x"); x.Shape[0] != 2 {
			w.Errorf("the bucket has become %v", x.Shape)
		}
		w.ok(s.Use(batch(2)))
		w.ok(model.AddBucket(streaminfer.Bucket{Shapes: streaminfer.Shapes{"x": shape}}))
		shape[0] = 3
		w.ok(w.session(model).Use(batch(8)))
	})
}

func TestMemoriesThatCannotBe(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		_, err := w.engine.NewPinned(math.MaxInt)
		w.is(err, streaminfer.StatusTooLarge)
		_, err = w.engine.NewPitched(math.MaxInt, math.MaxInt, 4)
		w.is(err, streaminfer.StatusTooLarge)
		_, err = w.engine.NewLinear(1<<40, 1<<40)
		w.is(err, streaminfer.StatusTooLarge)
		_, err = w.engine.NewLinear(1<<35, 16)
		w.is(err, streaminfer.StatusTooLarge)
		_, err = w.engine.NewLinear(math.MaxInt, 16)
		w.is(err, streaminfer.StatusTooLarge)
		memory, err := w.engine.NewLinear(4, 16)
		w.ok(err)
		for _, r := range []streaminfer.Rectangle{{Pitch: math.MaxInt}, {Rows: 3, Pitch: math.MaxInt/2 + 1}, {Rows: math.MaxInt},
			{Row: math.MaxInt, Rows: 1}, {Byte: math.MaxInt, Bytes: 1}, {Bytes: math.MaxInt}, {Pitch: 17}} {
			w.is(memory.Write(r, make([]byte, 64)), streaminfer.StatusInvalidArgument)
		}
		w.ok(memory.Write(streaminfer.Rectangle{Rows: 3, Pitch: 24}, make([]byte, 64)))
		w.ok(memory.Close())

		pinned, err := w.engine.NewPinned(256)
		w.ok(err)
		_, err = w.load(affine).NewSession(streaminfer.SessionOptions{
			Attachments: []streaminfer.Attachment{{Input: "x", Memory: pinned, Offset: math.MaxInt - 63}}})
		w.is(err, streaminfer.StatusInvalidArgument)
		w.ok(pinned.Close())
	})
}

// A delay of any length ends in time for a deadline.
func TestBatcherWithTheLongestDelay(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.padded(batch(8)), streaminfer.BatcherOptions{Delay: math.MaxInt64})
		r := newAffineRequest(1)
		for budget := 100 * time.Millisecond; ; budget *= 2 {
			ctx, cancel := context.WithTimeout(context.Background(), budget)
			err := b.Infer(ctx, r.in, r.out)
			cancel()
			if err == nil {
				return
			}
			if budget > 20*time.Second {
				w.Fatal(err)
			}
		}
	})
}

func TestNegativeExtentsOfABatchedRequest(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.padded(batch(8)), streaminfer.BatcherOptions{})
		r := newAffineRequest(1)
		r.in[0].Shape = []int64{-1, -4}
		w.is(b.Infer(context.Background(), r.in, r.out), streaminfer.StatusInvalidArgument)
	})
}

// A fake model that is described wrongly is refused when it is loaded.
func TestFakeOutputsFollowInputs(t *testing.T) {
	for name, names := range map[string][]string{"none": nil, "unknown": {"k"}} {
		x := tensor("x", streaminfer.DTypeFloat32, streaminfer.Dynamic)
		y := streaminfer.TensorInfo{Name: "y", DType: streaminfer.DTypeFloat32, Shape: []int64{streaminfer.Dynamic}, DimNames: names}
		engine := fake.NewEngine(fake.Model{Name: "m", Inputs: []streaminfer.TensorInfo{x}, Outputs: []streaminfer.TensorInfo{y}})
		_, err := engine.Load("m", streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {4}}}}})
		if !errors.Is(err, streaminfer.StatusMalformed) || !strings.Contains(err.Error(), `"y"`) {
			t.Errorf("%s: %v", name, err)
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}
}
