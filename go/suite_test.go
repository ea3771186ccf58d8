package streaminfer_test

import (
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

func TestRunComputesInPlace(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(affine))
		x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
		if !slices.Equal(x.Shape, []int64{1, 4}) || !slices.Equal(x.Strides, []int64{4, 1}) || len(y.Data) != 4 {
			w.Fatalf("views %v and %v", x, y)
		}
		for round := range 100 {
			want := make([]float32, 4)
			for i := range x.Data {
				x.Data[i] = float32(round * i)
				want[i] = 2*x.Data[i] + 1
			}
			w.ok(s.Run(context.Background()))
			if !slices.Equal(y.Data, want) {
				w.Fatalf("round %d: got %v, want %v", round, y.Data, want)
			}
		}
		if again := input[float32](w, s, "x"); &again.Data[0] != &x.Data[0] {
			w.Error("the input has moved")
		}
		w.ok(s.Close())
		w.ok(s.Close())
		w.is(s.Run(context.Background()), streaminfer.StatusStaleHandle)
		_, err := streaminfer.Input[float32](s, "x")
		w.is(err, streaminfer.StatusStaleHandle)
	})
}

func TestIntegersAreExact(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(doubled))
		copy(input[int64](w, s, "x").Data, []int64{1 << 61, -7, 0})
		w.ok(s.Run(context.Background()))
		if got := output[int64](w, s, "y").Data; !slices.Equal(got, []int64{1 << 62, -14, 0}) {
			w.Fatal(got)
		}
	})
}

func TestModelDescribesItself(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		want := []streaminfer.TensorInfo{tensor("x", streaminfer.DTypeFloat32, streaminfer.Dynamic, 4)}
		if got := model.Inputs(); !reflect.DeepEqual(got, want) {
			w.Fatalf("got %+v, want %+v", got, want)
		}
		outputs, err := model.Outputs()
		w.ok(err)
		if len(outputs) != 1 || outputs[0].Name != "y" || outputs[0].DType != streaminfer.DTypeFloat32 {
			w.Fatalf("%+v", outputs)
		}
		w.ok(model.Close())
		w.ok(model.Close())
	})
}

func TestBuckets(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine, batch(2), batch(8))
		s := w.session(model)
		if x := input[float32](w, s, "x"); x.Shape[0] != 2 {
			w.Fatalf("the first bucket is not selected: %v", x.Shape)
		}
		w.ok(s.Use(batch(8)))
		x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
		if len(x.Data) != 32 || len(y.Data) != 32 {
			w.Fatalf("%d and %d elements", len(x.Data), len(y.Data))
		}
		x.Data[31] = 5
		w.ok(s.Run(context.Background()))
		if y.Data[31] != 11 {
			w.Fatal(y.Data[31])
		}
		w.is(s.Use(batch(3)), streaminfer.StatusNoBucket)
		w.ok(model.AddBucket(batch(3)))
		w.is(s.Use(batch(3)), streaminfer.StatusNoBucket) // made before
		w.ok(w.session(model).Use(batch(3)))
		w.is(model.AddBucket(streaminfer.Bucket{Shapes: streaminfer.Shapes{"x": {3, 5}}}), streaminfer.StatusShapeMismatch)
		w.is(model.AddBucket(streaminfer.Bucket{Shapes: streaminfer.Shapes{"x": {3}}}), streaminfer.StatusShapeMismatch)
		w.is(model.AddBucket(streaminfer.Bucket{Shapes: streaminfer.Shapes{"z": {3}}}), streaminfer.StatusInvalidArgument)

		only, err := model.NewSession(streaminfer.SessionOptions{Buckets: []streaminfer.Bucket{batch(8)}})
		w.ok(err)
		w.is(only.Use(batch(2)), streaminfer.StatusNoBucket)
		_, err = model.NewSession(streaminfer.SessionOptions{Buckets: []streaminfer.Bucket{batch(99)}})
		w.is(err, streaminfer.StatusNoBucket)
	})
}

func TestMistakesHaveTheirOwnStatus(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		_, err := w.engine.Load("/nowhere/at all.onnx", streaminfer.ModelOptions{})
		w.is(err, streaminfer.StatusNotFound)
		model := w.load(affine)
		_, err = model.NewSession(streaminfer.SessionOptions{Threads: -1})
		w.is(err, streaminfer.StatusInvalidArgument)
		_, err = model.NewSession(streaminfer.SessionOptions{Priority: streaminfer.PriorityHigh + 1})
		w.is(err, streaminfer.StatusInvalidArgument)
		s := w.session(model)
		_, err = streaminfer.Input[float32](s, "z")
		w.is(err, streaminfer.StatusInvalidArgument)
		_, err = streaminfer.Input[int64](s, "x")
		w.is(err, streaminfer.StatusShapeMismatch)
		_, err = streaminfer.Output[float32](s, "x")
		w.is(err, streaminfer.StatusInvalidArgument)
		w.is(s.Wait(context.Background()), streaminfer.StatusWrongState)
		_, err = s.Timings()
		w.is(err, streaminfer.StatusWrongState)
		w.is(s.Unbind(), streaminfer.StatusWrongState)
		w.ok(s.Run(context.Background())) // and the session is none the worse
	})
}

func TestInFlight(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(endless))
		w.ok(s.Submit(context.Background()))
		if ended, err := s.Poll(); ended || err != nil {
			w.Fatalf("in flight: %v, %v", ended, err)
		}
		w.is(s.Submit(context.Background()), streaminfer.StatusInFlight)
		w.is(s.Run(context.Background()), streaminfer.StatusInFlight)
		w.ok(s.Cancel())
		w.is(s.Wait(context.Background()), streaminfer.StatusCancelled)
	})
}

func TestSubmitPollWait(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(slow))
		ended, err := s.Poll()
		if !ended || err != nil {
			w.Fatalf("idle: %v, %v", ended, err)
		}
		x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
		x.Data[1], x.Data[len(x.Data)-1] = 3, 4
		w.ok(s.Submit(context.Background()))
		w.ok(s.Wait(context.Background()))
		if ended, err := s.Poll(); !ended || err != nil {
			w.Fatalf("ended: %v, %v", ended, err)
		}
		if y.Data[1] != 3 || y.Data[len(y.Data)-1] != 4 {
			w.Fatal("wrong result")
		}
		timings, err := s.Timings()
		w.ok(err)
		if timings.Compute <= 0 || timings.Queue < 0 {
			w.Fatalf("%+v", timings)
		}
	})
}

func TestManyGoroutinesShareAModel(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine, batch(1), batch(4))
		var group sync.WaitGroup
		for worker := range 16 {
			group.Go(func() {
				s, err := model.NewSession(streaminfer.SessionOptions{})
				if err != nil {
					w.Error(err)
					return
				}
				defer s.Close()
				random := rand.New(rand.NewPCG(1, uint64(worker)))
				for range 50 {
					if err := s.Use(batch([]int64{1, 4}[random.IntN(2)])); err != nil {
						w.Error(err)
						return
					}
					x, _ := streaminfer.Input[float32](s, "x")
					y, _ := streaminfer.Output[float32](s, "y")
					for i := range x.Data {
						x.Data[i] = float32(random.IntN(1000))
					}
					if err := s.Run(context.Background()); err != nil {
						w.Error(err)
						return
					}
					for i := range y.Data {
						if y.Data[i] != 2*x.Data[i]+1 {
							w.Errorf("worker %d: %v became %v", worker, x.Data[i], y.Data[i])
							return
						}
					}
				}
			})
		}
		group.Wait()
	})
}

func TestLinkChainsModelsOnTheDevice(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		first := w.session(model)
		second := w.session(model, streaminfer.Link{Input: "x", Source: first, Output: "y"})
		x, y := input[float32](w, first, "x"), output[float32](w, second, "y")
		for round := range 20 {
			x.Data[2] = float32(round)
			w.ok(first.Submit(context.Background()))
			w.ok(second.Run(context.Background()))
			w.ok(first.Wait(context.Background()))
			if want := 2*(2*float32(round)+1) + 1; y.Data[2] != want {
				w.Fatalf("round %d: got %v, want %v", round, y.Data[2], want)
			}
		}
		_, err := model.NewSession(streaminfer.SessionOptions{Links: []streaminfer.Link{{Input: "z", Source: first, Output: "y"}}})
		w.is(err, streaminfer.StatusInvalidArgument)
		wrong := w.session(w.load(doubled))
		_, err = model.NewSession(streaminfer.SessionOptions{Links: []streaminfer.Link{{Input: "x", Source: wrong, Output: "y"}}})
		w.is(err, streaminfer.StatusShapeMismatch)
	})
}

func TestLinkToItselfIsState(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(counter), streaminfer.Link{Input: "state", Output: "next"})
		x, next := input[float32](w, s, "x"), output[float32](w, s, "next")
		x.Data[0] = 3
		for round := range 5 {
			w.ok(s.Run(context.Background()))
			if want := float32(3 * (round + 1)); next.Data[0] != want {
				w.Fatalf("round %d: got %v, want %v", round, next.Data[0], want)
			}
		}
	})
}

func TestEventOrdersSessions(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		before, after := w.session(w.load(slow)), w.session(w.load(affine))
		event, err := w.engine.NewEvent()
		w.ok(err)
		w.is(event.Wait(after), streaminfer.StatusNotRecorded)
		w.ok(before.Submit(context.Background()))
		w.ok(event.Record(before))
		w.ok(event.Wait(after))
		w.ok(after.Run(context.Background()))
		if ended, err := before.Poll(); !ended || err != nil {
			w.Fatalf("the second request did not wait for the first: %v, %v", ended, err)
		}
		w.ok(event.Close())
		w.ok(event.Close())
	})
}
