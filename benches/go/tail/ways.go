package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// inputsKept are the random inputs that a workload has, and requests choose from.
const inputsKept = 64

var errWrong = errors.New("an output differs from that of a session nobody else used")

// workload is a model with random requests and what must come out.
type workload struct {
	model  *streaminfer.Model
	bucket streaminfer.Bucket
	inputs [inputsKept][]streaminfer.Tensor
	output string
	wanted [inputsKept][]float32
}

// shapes of the requests: the images of the MLP one at a time, sentences of 128 tokens.
var shapes = map[string]streaminfer.Shapes{
	"mlp":    {"input": {1, 784}},
	"minilm": {"input_ids": {1, 128}, "attention_mask": {1, 128}, "token_type_ids": {1, 128}},
}

func loadModel(engine *streaminfer.Engine, folder, name string) (*workload, error) {
	w := &workload{bucket: streaminfer.Bucket{Shapes: shapes[name]}}
	var err error
	w.model, err = engine.Load(filepath.Join(folder, name+".onnx"), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{w.bucket}})
	if err != nil {
		return nil, err
	}
	outputs, err := w.model.Outputs()
	if err != nil {
		return nil, err
	}
	w.output = outputs[0].Name
	s, err := w.model.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	random := rand.New(rand.NewPCG(3, 4))
	for k := range w.inputs {
		for _, info := range w.model.Inputs() {
			w.inputs[k] = append(w.inputs[k], randomTensor(random, info, w.bucket.Shapes[info.Name]))
		}
		got, err := runOn(context.Background(), s, w, k)
		if err != nil {
			return nil, err
		}
		w.wanted[k] = slices.Clone(got)
	}
	return w, nil
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
func runOn(ctx context.Context, s *streaminfer.Session, w *workload, k int) ([]float32, error) {
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

// check compares bit by bit: equal programs give equal results.
func (w *workload) check(k int, got []float32) error {
	if !slices.EqualFunc(got, w.wanted[k], func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
		return errWrong
	}
	return nil
}

func (w *workload) runAndCheck(ctx context.Context, s *streaminfer.Session) error {
	k := rand.IntN(inputsKept)
	got, err := runOn(ctx, s, w, k)
	if err != nil {
		return err
	}
	return w.check(k, got)
}

// way is one way to share the device.
type way interface {
	// worker returns what the goroutine of this number does for one request.
	worker(number int) func(context.Context) error
	close()
}

func newWay(w *workload, c cell, sessions int) (way, int, error) {
	switch c.Way {
	case "pool":
		p, err := streaminfer.NewPool(w.model, streaminfer.PoolOptions{Sessions: sessions, QueueMax: max(c.Goroutines, 1024)})
		return &pooled{w, p}, sessions, err
	case "bound":
		b := &bound{w: w}
		for range min(c.Goroutines, sessions) {
			worker, err := streaminfer.NewBound(w.model, streaminfer.BoundOptions{QueueMax: max(c.Goroutines, 1024)})
			if err != nil {
				b.close()
				return nil, 0, err
			}
			b.workers = append(b.workers, worker)
		}
		return b, len(b.workers), nil
	case "shared":
		s, err := w.model.NewSession(streaminfer.SessionOptions{})
		return &shared{w: w, session: s}, 1, err
	case "request":
		return &perRequest{w}, c.Goroutines, nil
	}
	return nil, 0, fmt.Errorf("no way %q", c.Way)
}

type pooled struct {
	w    *workload
	pool *streaminfer.Pool
}

func (p *pooled) worker(int) func(context.Context) error {
	got := make([]float32, len(p.w.wanted[0]))
	out := []streaminfer.Tensor{streaminfer.NewTensor(p.w.output, got)}
	return func(ctx context.Context) error {
		k := rand.IntN(inputsKept)
		if err := p.pool.Infer(ctx, p.w.inputs[k], out); err != nil {
			return err
		}
		return p.w.check(k, got)
	}
}

func (p *pooled) close() { _ = p.pool.Close() }

type bound struct {
	w       *workload
	workers []*streaminfer.Bound
}

func (b *bound) worker(number int) func(context.Context) error {
	worker := b.workers[number%len(b.workers)]
	return func(ctx context.Context) error { return worker.Do(ctx, b.w.runAndCheck) }
}

func (b *bound) close() {
	for _, worker := range b.workers {
		_ = worker.Close()
	}
}

type shared struct {
	w       *workload
	mu      sync.Mutex
	session *streaminfer.Session
}

func (s *shared) worker(int) func(context.Context) error {
	return func(ctx context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.w.runAndCheck(ctx, s.session)
	}
}

func (s *shared) close() { _ = s.session.Close() }

type perRequest struct{ w *workload }

func (p *perRequest) worker(int) func(context.Context) error {
	return func(ctx context.Context) error {
		s, err := p.w.model.NewSession(streaminfer.SessionOptions{})
		if err != nil {
			return err
		}
		defer s.Close()
		return p.w.runAndCheck(ctx, s)
	}
}

func (p *perRequest) close() {}
