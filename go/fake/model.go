package fake

import (
	"math/bits"
	"slices"
	"sync"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// The library's bounds.
const (
	rankMax        = 12
	tensorBytesMax = 1 << 36
	threadsMax     = 64
	batchesMax     = 64
	eventWaitsMax  = 8
	memoryBytesMax = 1 << 36
	rowBytesMax    = 1 << 30
	rowPitchMax    = 1<<31 - 1
)

// model is a Model with its buckets.
type model struct {
	*Model
	engine   *engine
	paddings []padding
	// follows has, per output, the input axes that its open extents equal.
	follows [][]place

	mu              sync.Mutex
	buckets         []bucket
	multiprocessors int
	freed           bool
}

// place is an axis of an input; there is none if the input is below zero.
type place struct{ input, axis int }

// bucket is a backend.Bucket with the shapes of the outputs.
type bucket struct {
	inputs, outputs, values [][]int64
}

func (b *bucket) is(other backend.Bucket) bool {
	return slices.EqualFunc(b.inputs, other.Shapes, slices.Equal) && slices.EqualFunc(b.values, other.Values, slices.Equal)
}

func newModel(e *engine, described *Model, options *backend.ModelOptions) (*model, error) {
	m := &model{Model: described, engine: e, multiprocessors: options.Multiprocessors}
	if options.Precision > uint32(streaminfer.BF16) {
		return nil, status(streaminfer.StatusInvalidArgument, "there is no precision %d", options.Precision)
	}
	for _, name := range options.Overridable {
		if find(described.Inputs, name) < 0 {
			return nil, status(streaminfer.StatusInvalidArgument, "overridable %q is not an input of the model", name)
		}
	}
	if err := m.pad(options.Paddings); err != nil {
		return nil, err
	}
	if err := m.follow(); err != nil {
		return nil, err
	}
	fixed := backend.Bucket{Values: make([][]int64, len(described.Inputs))}
	for _, info := range described.Inputs {
		if info.RankOpen || info.ShapeInput || slices.Contains(info.Shape, streaminfer.Dynamic) {
			return m, nil
		}
		fixed.Shapes = append(fixed.Shapes, info.Shape)
	}
	return m, m.AddBucket(fixed)
}

// follow finds what the open extents of the outputs equal.
func (m *model) follow() error {
	for _, info := range m.Model.Outputs {
		places := make([]place, len(info.Shape))
		for axis, extent := range info.Shape {
			if places[axis] = (place{-1, 0}); extent != streaminfer.Dynamic {
				continue
			}
			name := dimName(info, axis)
			for input := range m.Model.Inputs {
				for k := range m.Model.Inputs[input].Shape {
					if name != "" && dimName(m.Model.Inputs[input], k) == name {
						places[axis] = place{input, k}
					}
				}
			}
			if places[axis].input < 0 {
				return status(streaminfer.StatusMalformed, "extent %d of output %q is open, and its DimNames name no extent of an input",
					axis, info.Name)
			}
		}
		m.follows = append(m.follows, places)
	}
	return nil
}

func dimName(info streaminfer.TensorInfo, axis int) string {
	if axis < len(info.DimNames) {
		return info.DimNames[axis]
	}
	return ""
}

// alive is called with the lock.
func (m *model) alive() error {
	if m.freed {
		return status(streaminfer.StatusStaleHandle, "the model is freed")
	}
	return nil
}

// Multiprocessors are those asked for: the fake has as many as anybody wants.
func (m *model) Multiprocessors() (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.multiprocessors, m.alive()
}

func (m *model) Inputs() ([]backend.Tensor, error)  { return m.tensors(m.Model.Inputs) }
func (m *model) Outputs() ([]backend.Tensor, error) { return m.tensors(m.Model.Outputs) }

func (m *model) tensors(infos []streaminfer.TensorInfo) ([]backend.Tensor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.alive(); err != nil {
		return nil, err
	}
	raw := make([]backend.Tensor, len(infos))
	for i, info := range infos {
		raw[i] = backend.Tensor{Name: info.Name, DType: uint32(info.DType), Shape: slices.Clone(info.Shape),
			DimNames: make([]string, len(info.Shape)), RankOpen: info.RankOpen, ShapeInput: info.ShapeInput}
		copy(raw[i].DimNames, info.DimNames)
	}
	return raw, nil
}

func (m *model) AddBucket(b backend.Bucket) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.alive(); err != nil {
		return err
	}
	if err := m.check(b); err != nil {
		return err
	}
	if !m.isEven(b.Shapes) {
		return status(streaminfer.StatusShapeMismatch, "the axes of a padding dimension have no common extent in %v", b.Shapes)
	}
	if slices.ContainsFunc(m.buckets, func(known bucket) bool { return known.is(b) }) {
		return nil
	}
	fresh := m.request(b)
	for _, tensors := range []struct {
		infos  []streaminfer.TensorInfo
		shapes [][]int64
	}{{m.Model.Inputs, fresh.inputs}, {m.Model.Outputs, fresh.outputs}} {
		for i, shape := range tensors.shapes {
			if _, fits := bytesOf(tensors.infos[i].DType, shape); !fits {
				return status(streaminfer.StatusTooLarge, "a tensor of shape %v is above the limit of %d bytes", shape, tensorBytesMax)
			}
		}
	}
	m.buckets = append(m.buckets, fresh)
	return nil
}

// bytesOf is the size of a tensor, if that is allowed.
func bytesOf(dtype streaminfer.DType, shape []int64) (bytes int64, fits bool) {
	product := uint64(dtype.Size())
	if slices.Contains(shape, 0) {
		return 0, true
	}
	for _, extent := range shape {
		high, low := bits.Mul64(product, uint64(extent))
		if product = low; high > 0 || low > tensorBytesMax {
			return 0, false
		}
	}
	return int64(product), true
}

// check finds shapes and values that the model's inputs cannot have.
func (m *model) check(b backend.Bucket) error {
	for i := range m.Model.Inputs {
		info, shape := &m.Model.Inputs[i], b.Shapes[i]
		if len(shape) > rankMax {
			return status(streaminfer.StatusInvalidArgument, "a shape has rank %d, the highest is %d", len(shape), rankMax)
		}
		for axis, extent := range shape {
			if extent < 0 {
				return status(streaminfer.StatusInvalidArgument, "extent %d of input %q is %d", axis, info.Name, extent)
			}
		}
		switch values := b.Values[i]; {
		case !info.ShapeInput && len(values) > 0:
			return status(streaminfer.StatusShapeMismatch, "%q is no shape input: a bucket gives no values for it", info.Name)
		case info.ShapeInput && (len(values) == 0 || int64(len(values)) != count(shape)):
			return status(streaminfer.StatusShapeMismatch, "%d are not the values of %q, whose shape is %v", len(values), info.Name, shape)
		}
		if info.RankOpen {
			continue
		}
		if len(shape) != len(info.Shape) {
			return status(streaminfer.StatusShapeMismatch, "input %q has rank %d, not %d", info.Name, len(info.Shape), len(shape))
		}
		for axis, extent := range shape {
			if declared := info.Shape[axis]; declared != streaminfer.Dynamic && declared != extent {
				return status(streaminfer.StatusShapeMismatch, "extent %d of input %q is %d, not %d", axis, info.Name, declared, extent)
			}
		}
	}
	return nil
}

// request is what a request of these shapes looks like, in memory of its own.
func (m *model) request(b backend.Bucket) bucket {
	own := bucket{inputs: clone(b.Shapes), values: clone(b.Values), outputs: make([][]int64, len(m.Model.Outputs))}
	m.outputShapes(own.inputs, own.outputs)
	return own
}

// outputShapes writes the shapes of the outputs, in the memory that they have.
func (m *model) outputShapes(inputs, outputs [][]int64) {
	for i, info := range m.Model.Outputs {
		outputs[i] = append(outputs[i][:0], info.Shape...)
		for axis, p := range m.follows[i] {
			if p.input >= 0 {
				outputs[i][axis] = inputs[p.input][p.axis]
			}
		}
	}
}

func clone(shapes [][]int64) [][]int64 {
	all := make([][]int64, len(shapes))
	for i := range shapes {
		all[i] = slices.Clone(shapes[i])
	}
	return all
}

func (m *model) Free() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.alive(); err != nil {
		return err
	}
	m.freed = true
	m.engine.count(func(s *backend.Stats) { s.Models-- })
	return nil
}
