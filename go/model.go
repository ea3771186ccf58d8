package streaminfer

import (
	"runtime"
	"sync/atomic"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// Dynamic stands for an extent that the model leaves open.
const Dynamic = backend.Dynamic

// Shapes maps the names of inputs to their extents.
type Shapes map[string][]int64

// Bucket is one set of input shapes that requests are prepared for. Inputs whose shape the model fixes may be left out.
type Bucket struct {
	Shapes Shapes
	// Values are those of shape inputs: small integer inputs whose values decide shapes (see [TensorInfo]).
	Values map[string][]int64
}

// Precision is the number format that a model computes in; sums are always kept in fp32.
type Precision uint32

// The precisions. The zero value means FP32.
const (
	FP32 Precision = 1
	TF32 Precision = 2
	FP16 Precision = 3
	BF16 Precision = 4
)

// ModelOptions are the choices made when a model is loaded. The zero value is right for a model of fixed shapes.
type ModelOptions struct {
	// Buckets are the shapes to prepare for; the first is selected when a session starts. A model whose inputs all
	// have fixed shapes has that one bucket anyway; any other needs one, here or from AddBucket.
	Buckets []Bucket
	// Precision is FP32 unless set. The host device has no other.
	Precision Precision
	// Paddings are the axes along which a request may be smaller than its bucket; without, shapes are exact.
	Paddings []Padding
	// Overridable names initializers that become inputs; all others are constants.
	Overridable []string
	// Multiprocessors is how many of a GPU's multiprocessors the model's sessions run on, at least: other models that ask for
	// some get others, so that a storm on one does not slow the other down. The driver gives them in groups;
	// [Model.Multiprocessors] says how many there are. They are given back when the model is closed and its last session has ended, so
	// that a model cannot be loaded again beside itself if too few are left: StatusLimitReached. More than the GPU has are
	// StatusTooLarge. 0 means the whole GPU, which models without a number share. StatusUnsupported is what the host device
	// answers, which has none.
	Multiprocessors int
}

// PaddingKind says why an axis may be padded.
type PaddingKind uint32

// The kinds of padding.
const (
	// PaddingBatch: the axis counts independent rows, which analysis of the model proves at load.
	PaddingBatch PaddingKind = 1
	// PaddingMasked: the model masks what is padded, which is checked at load by comparing a padded with an exact run.
	PaddingMasked PaddingKind = 2
)

// Padding declares that an axis of an input may be smaller than its bucket's. The unused part is filled before the
// request starts.
type Padding struct {
	Kind PaddingKind
	// Dimension is a number of the caller's choice: axes with the same number always have the same extent.
	Dimension int
	// Input is the input's name.
	Input string
	Axis  int
	// Value fills the unused part, for example 0 in an attention mask.
	Value float64
}

// TensorInfo describes an input or output of a model.
type TensorInfo struct {
	Name  string
	DType DType
	// Shape has Dynamic where the model leaves an extent open; DimNames has the model's names for those, or "".
	Shape    []int64
	DimNames []string
	// RankOpen says that the model declares no shape; Shape is empty and says nothing.
	RankOpen bool
	// ShapeInput says that the input's values are part of a bucket's key.
	ShapeInput bool
}

// Model is one loaded ONNX file. It is immutable apart from its buckets and may be used from any goroutine.
type Model struct {
	engine  *Engine
	model   backend.Model
	token   uint64
	inputs  []TensorInfo
	outputs []TensorInfo // as of the load: for their names
	padded  []backend.Padding
	known   known
	closed  atomic.Bool
	cleanup runtime.Cleanup
}

// Load reads an ONNX file, checks it, and plans it for the buckets of the options. External data is read from the
// file's own directory only.
//
// Errors: StatusNotFound, StatusIO, StatusForbiddenPath, StatusMalformed, StatusUnsupported, StatusUnsupportedDynamic,
// StatusTooLarge, StatusShapeMismatch, StatusOutOfMemory, StatusLimitReached.
func (e *Engine) Load(path string, options ModelOptions) (*Model, error) {
	return e.load(options, func(o *backend.ModelOptions) (backend.Model, error) { return e.backend.Load(path, o) })
}

// LoadBytes is Load for a model in memory, which must not refer to external data. The library keeps a copy.
func (e *Engine) LoadBytes(data []byte, options ModelOptions) (*Model, error) {
	return e.load(options, func(o *backend.ModelOptions) (backend.Model, error) { return e.backend.LoadBytes(data, o) })
}

func (e *Engine) load(options ModelOptions, load func(*backend.ModelOptions) (backend.Model, error)) (*Model, error) {
	const op = "load"
	if err := options.check(op); err != nil {
		return nil, err
	}
	raw := backend.ModelOptions{Precision: uint32(options.Precision), Overridable: options.Overridable}
	if len(options.Paddings) == 0 {
		raw.Multiprocessors = options.Multiprocessors
	}
	m, err := e.newModel(load(&raw))
	if err != nil {
		return nil, failure(op, ExecutedNo, err)
	}
	if len(options.Paddings) > 0 {
		// The library wants to know the inputs by position, and only the loaded model tells.
		raw.Paddings, err = m.paddings(op, options.Paddings)
		raw.Multiprocessors = options.Multiprocessors
		m.Close()
		if err != nil {
			return nil, err
		}
		if m, err = e.newModel(load(&raw)); err != nil {
			return nil, failure(op, ExecutedNo, err)
		}
		m.padded = raw.Paddings
	}
	m.rememberFixed()
	for _, bucket := range options.Buckets {
		if err := m.addBucket(op, bucket); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, nil
}

func (o *ModelOptions) check(op string) error {
	for _, p := range o.Paddings {
		if err := checkCounts(op, option{"Paddings.Dimension", p.Dimension}, option{"Paddings.Axis", p.Axis}); err != nil {
			return err
		}
	}
	for _, name := range o.Overridable {
		if err := checkText(op, "Overridable", name); err != nil {
			return err
		}
	}
	return checkCounts(op, option{"Multiprocessors", o.Multiprocessors})
}

func (e *Engine) newModel(raw backend.Model, err error) (*Model, error) {
	if err != nil {
		return nil, err
	}
	m := &Model{engine: e, model: raw}
	if m.inputs, err = tensorInfos(raw.Inputs()); err == nil {
		if m.outputs, err = tensorInfos(raw.Outputs()); err == nil {
			err = adopt(e.registry, m, nil, func(token uint64) {
				m.token = token
				m.cleanup = runtime.AddCleanup(m, forgotten.free, forgotten{e.registry, token, raw})
			})
		}
	}
	if err != nil {
		_ = raw.Free()
		return nil, err
	}
	return m, nil
}

func (m *Model) paddings(op string, paddings []Padding) ([]backend.Padding, error) {
	raw := make([]backend.Padding, len(paddings))
	for i, p := range paddings {
		index, err := indexOf(op, m.inputs, "input", p.Input)
		if err != nil {
			return nil, err
		}
		raw[i] = backend.Padding{Kind: uint32(p.Kind), Dimension: uint32(p.Dimension), Input: index, Axis: p.Axis,
			Value: p.Value}
	}
	return raw, nil
}

// forgotten is what is left of an object that became unreachable without Close.
type forgotten struct {
	registry *registry
	token    uint64
	object   interface{ Free() error }
}

// freeSession is free for a session, which the trace tells of.
func (f forgotten) freeSession() {
	f.registry.recording.Event(0, trace.Event{Kind: trace.Leaked, At: backend.Now(), Session: f.token})
	f.free()
}

func (f forgotten) free() {
	f.registry.forget(f.token)
	_ = f.object.Free()
}

// Inputs describes the model's inputs. The result must not be changed.
func (m *Model) Inputs() []TensorInfo { return m.inputs }

// Outputs describes the model's outputs. Extents that are not the same in all buckets so far are Dynamic.
//
// Errors: StatusStaleHandle.
func (m *Model) Outputs() ([]TensorInfo, error) {
	infos, err := tensorInfos(m.model.Outputs())
	runtime.KeepAlive(m)
	return infos, failure("outputs", ExecutedNo, err)
}

// Multiprocessors is the number of a GPU's multiprocessors that the model's sessions run on: those asked for at load, rounded up, or all.
// It is 0 on the host device.
//
// Errors: StatusStaleHandle.
func (m *Model) Multiprocessors() (int, error) {
	count, err := m.model.Multiprocessors()
	runtime.KeepAlive(m)
	return count, failure("multiprocessors", ExecutedNo, err)
}

// AddBucket plans one more bucket. Sessions made afterwards can use it; [Model.Prepare] brings it to pools, too. It is a control
// call: it may take as long as a load. A bucket that the model has already is no error.
func (m *Model) AddBucket(bucket Bucket) error { return m.addBucket("add bucket", bucket) }

func (m *Model) addBucket(op string, bucket Bucket) error {
	ordered, err := m.order(op, bucket)
	if err != nil {
		return err
	}
	if err = m.model.AddBucket(ordered); err == nil {
		m.remember(ordered)
	}
	runtime.KeepAlive(m)
	return failure(op, ExecutedNo, err)
}

// Close releases the model. Its memory goes when its last session has been closed. Closing again does nothing.
func (m *Model) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.cleanup.Stop()
	m.engine.forget(m.token)
	return failure("close", ExecutedNo, m.model.Free())
}

// order brings a bucket into the order of the model's inputs.
func (m *Model) order(op string, bucket Bucket) (backend.Bucket, error) {
	ordered := backend.Bucket{Shapes: make([][]int64, len(m.inputs)), Values: make([][]int64, len(m.inputs))}
	for index := range m.inputs {
		ordered.Shapes[index] = m.inputs[index].Shape
	}
	for name, shape := range bucket.Shapes {
		index, err := indexOf(op, m.inputs, "input", name)
		if err != nil {
			return ordered, err
		}
		ordered.Shapes[index] = shape
	}
	for name, values := range bucket.Values {
		index, err := indexOf(op, m.inputs, "input", name)
		if err != nil {
			return ordered, err
		}
		ordered.Values[index] = values
	}
	return ordered, nil
}

func tensorInfos(raw []backend.Tensor, err error) ([]TensorInfo, error) {
	infos := make([]TensorInfo, len(raw))
	for i, t := range raw {
		infos[i] = TensorInfo{Name: t.Name, DType: DType(t.DType), Shape: t.Shape, DimNames: t.DimNames,
			RankOpen: t.RankOpen, ShapeInput: t.ShapeInput}
	}
	return infos, err
}
