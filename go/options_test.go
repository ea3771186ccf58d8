package streaminfer_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/pipeline"
)

// refuses fails the test unless err says which option cannot be.
func (w *world) refuses(err error, option string) {
	w.Helper()
	if failure, ok := errors.AsType[*streaminfer.Error](err); !ok || failure.Status != streaminfer.StatusInvalidArgument ||
		!strings.Contains(failure.Message, option) {
		w.Errorf("option %s: %v", option, err)
	}
}

// tooMany are counts that are none, or that the library would take for others.
var tooMany = []int{-1, math.MinInt, math.MaxInt, 1 << 32, 1<<32 + 1}

func TestOptionsAreRefusedByName(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine, batch(1))
		pool := func(o streaminfer.PoolOptions) error {
			p, err := streaminfer.NewPool(model, o)
			if err == nil {
				w.ok(p.Close())
			}
			return err
		}
		batcher := func(o streaminfer.BatcherOptions) error { _, err := streaminfer.NewBatcher(model, o); return err }
		load := func(o streaminfer.ModelOptions) error {
			_, err := w.engine.LoadBytes(onnxFile(affine), o)
			return err
		}
		for _, n := range tooMany {
			_, err := model.NewSession(streaminfer.SessionOptions{Threads: n})
			w.refuses(err, "Threads")
			w.refuses(pool(streaminfer.PoolOptions{Sessions: n}), "Sessions")
			if n > 0 {
				w.refuses(pool(streaminfer.PoolOptions{Sessions: 1, Spares: n}), "Spares")
			}
			w.refuses(pool(streaminfer.PoolOptions{Sessions: 1, Session: streaminfer.SessionOptions{Threads: n}}), "Threads")
			w.refuses(batcher(streaminfer.BatcherOptions{Batches: n}), "Batches")
			w.refuses(batcher(streaminfer.BatcherOptions{Threads: n}), "Threads")
			w.refuses(load(streaminfer.ModelOptions{Multiprocessors: n}), "Multiprocessors")
			padding := streaminfer.Padding{Kind: streaminfer.PaddingBatch, Input: "x"}
			padding.Axis = n
			w.refuses(load(streaminfer.ModelOptions{Paddings: []streaminfer.Padding{padding}}), "Axis")
			padding.Axis, padding.Dimension = 0, n
			w.refuses(load(streaminfer.ModelOptions{Paddings: []streaminfer.Padding{padding}}), "Dimension")
			_, err = streaminfer.NewBound(model, streaminfer.BoundOptions{QueueMax: n})
			w.refuses(err, "QueueMax")
		}
		w.is(pool(streaminfer.PoolOptions{Sessions: 1 << 20}), streaminfer.StatusLimitReached)
		w.refuses(pool(streaminfer.PoolOptions{Sessions: 1, Admission: 9}), "Admission")
		w.refuses(batcher(streaminfer.BatcherOptions{Admission: 9}), "Admission")
		w.refuses(batcher(streaminfer.BatcherOptions{Delay: -1}), "Delay")
		w.refuses(load(streaminfer.ModelOptions{Overridable: []string{"w\x00x"}}), "Overridable")
		_, err := w.engine.NewPitched(2, 2, 1<<32+4)
		w.refuses(err, "elementBytes")
		b := w.bound(model, streaminfer.BoundOptions{QueueMax: math.MaxUint32}) // as good as no bound
		w.ok(b.Close())
		w.ok(pool(streaminfer.PoolOptions{Sessions: 1, Spares: math.MinInt, QueueMax: math.MaxInt}))
		stage := pipeline.Stage[int]{Workers: math.MaxInt}
		stage.New = func() (func(_ context.Context, _ int) error, func() error, error) { return nil, nil, errPlanted }
		if _, err := pipeline.New(stage); err == nil || errors.Is(err, errPlanted) {
			w.Error(err)
		}
	})
}

func TestEngineOptionsThatCannotBe(t *testing.T) {
	w := &world{T: t}
	open := func(o streaminfer.EngineOptions) error {
		e, err := streaminfer.Open(o)
		if err == nil {
			w.ok(e.Close())
		}
		return err
	}
	for _, n := range tooMany {
		w.refuses(open(streaminfer.EngineOptions{Threads: n}), "Threads")
		w.refuses(open(streaminfer.EngineOptions{InFlightMax: n}), "InFlightMax")
		w.refuses(open(streaminfer.EngineOptions{SessionsMax: n}), "SessionsMax")
	}
	w.refuses(open(streaminfer.EngineOptions{Device: "host\x00cuda:7"}), "Device")
	w.refuses(open(streaminfer.EngineOptions{Library: "a\x00b"}), "Library")
	_, err := streaminfer.Devices(streaminfer.EngineOptions{Library: "a\x00b"})
	w.refuses(err, "Library")
}
