package fake

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// NewEngine opens an engine that knows the given models. Close it like any other.
func NewEngine(models ...Model) *streaminfer.Engine {
	e := &engine{models: models}
	e.ready.L = &e.mu
	return streaminfer.NewEngine(e)
}

type engine struct {
	models []Model

	mu          sync.Mutex
	ready       sync.Cond
	completions []backend.Completion
	closed      bool
	stats       backend.Stats
	registered  []*block
}

func status(s streaminfer.Status, format string, args ...any) error {
	return &backend.Error{Status: int32(s), Message: fmt.Sprintf(format, args...)}
}

// count applies a change to the statistics.
func (e *engine) count(change func(*backend.Stats)) {
	e.mu.Lock()
	change(&e.stats)
	e.mu.Unlock()
}

func (e *engine) Stats() (backend.Stats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	stats := e.stats
	stats.DeviceState, stats.Completions = int(streaminfer.DeviceOK), len(e.completions)
	return stats, e.open()
}

func (e *engine) open() error {
	if e.closed {
		return status(streaminfer.StatusStaleHandle, "the engine is closed")
	}
	return nil
}

func (e *engine) Load(path string, options *backend.ModelOptions) (backend.Model, error) {
	return e.load(filepath.Base(path), options)
}

func (e *engine) LoadBytes(data []byte, options *backend.ModelOptions) (backend.Model, error) {
	return e.load(string(data), options)
}

func (e *engine) load(name string, options *backend.ModelOptions) (backend.Model, error) {
	e.mu.Lock()
	err := e.open()
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	index := slices.IndexFunc(e.models, func(m Model) bool { return m.Name == name })
	if index < 0 {
		return nil, status(streaminfer.StatusNotFound, "the fake engine has no model %q", name)
	}
	m := &model{Model: &e.models[index], engine: e, paddings: options.Paddings,
		multiprocessors: options.Multiprocessors}
	fixed := backend.Bucket{Values: make([][]int64, len(m.Model.Inputs))}
	for _, info := range m.Model.Inputs {
		fixed.Shapes = append(fixed.Shapes, info.Shape)
	}
	if !slices.ContainsFunc(fixed.Shapes, func(shape []int64) bool { return slices.Contains(shape, streaminfer.Dynamic) }) {
		if err := m.AddBucket(fixed); err != nil {
			return nil, err
		}
	}
	e.count(func(s *backend.Stats) { s.Models++ })
	return m, nil
}

func (e *engine) Reap(dst []backend.Completion) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.completions) == 0 && !e.closed {
		e.ready.Wait()
	}
	moved := copy(dst, e.completions)
	e.completions = slices.Delete(e.completions, 0, moved)
	return moved, nil
}

func (e *engine) announce(c backend.Completion) {
	e.mu.Lock()
	e.completions = append(e.completions, c)
	e.mu.Unlock()
	e.ready.Signal()
}

func (e *engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.ready.Broadcast()
	return nil
}

// model is a Model with its buckets.
type model struct {
	*Model
	engine   *engine
	paddings []backend.Padding

	mu              sync.Mutex
	buckets         []bucket
	multiprocessors int
}

// bucket is a backend.Bucket with the shapes of the outputs.
type bucket struct {
	inputs, outputs, values [][]int64
}

func (b *bucket) is(other backend.Bucket) bool {
	return slices.EqualFunc(b.inputs, other.Shapes, slices.Equal) && slices.EqualFunc(b.values, other.Values, slices.Equal)
}

// Multiprocessors are those asked for: the fake has as many as anybody wants.
func (m *model) Multiprocessors() (int, error) { return m.multiprocessors, nil }

func (m *model) Inputs() ([]backend.Tensor, error)  { return tensors(m.Model.Inputs), nil }
func (m *model) Outputs() ([]backend.Tensor, error) { return tensors(m.Model.Outputs), nil }

func tensors(infos []streaminfer.TensorInfo) []backend.Tensor {
	raw := make([]backend.Tensor, len(infos))
	for i, info := range infos {
		raw[i] = backend.Tensor{Name: info.Name, DType: uint32(info.DType), Shape: info.Shape, DimNames: info.DimNames,
			ShapeInput: info.ShapeInput}
	}
	return raw
}

func (m *model) AddBucket(b backend.Bucket) error {
	outputs, err := m.outputsFor(b)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(m.buckets, func(known bucket) bool { return known.is(b) }) {
		m.buckets = append(m.buckets, bucket{inputs: b.Shapes, outputs: outputs, values: b.Values})
	}
	return nil
}

// outputsFor are the shapes of the outputs of a request of these shapes.
func (m *model) outputsFor(b backend.Bucket) ([][]int64, error) {
	named := map[string]int64{}
	for i, info := range m.Model.Inputs {
		if len(b.Shapes[i]) != len(info.Shape) {
			return nil, status(streaminfer.StatusShapeMismatch, "input %q has rank %d, not %d", info.Name, len(info.Shape), len(b.Shapes[i]))
		}
		for axis, extent := range b.Shapes[i] {
			if declared := info.Shape[axis]; extent < 0 || declared != streaminfer.Dynamic && declared != extent {
				return nil, status(streaminfer.StatusShapeMismatch, "extent %d of input %q is %d, not %d", axis, info.Name, declared, extent)
			}
			if axis < len(info.DimNames) && info.DimNames[axis] != "" {
				named[info.DimNames[axis]] = extent
			}
		}
	}
	outputs := make([][]int64, len(m.Model.Outputs))
	for i, info := range m.Model.Outputs {
		outputs[i] = slices.Clone(info.Shape)
		for axis, extent := range info.Shape {
			if extent == streaminfer.Dynamic {
				outputs[i][axis] = named[info.DimNames[axis]]
			}
		}
	}
	return outputs, nil
}

func (m *model) Free() error {
	m.engine.count(func(s *backend.Stats) { s.Models-- })
	return nil
}
