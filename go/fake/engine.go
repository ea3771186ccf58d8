package fake

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// NewEngine opens an engine that knows the given models. Close it like any other.
func NewEngine(models ...Model) *streaminfer.Engine {
	e := &engine{models: slices.Clone(models)}
	e.ready.L = &e.mu
	return streaminfer.NewEngine(e)
}

type engine struct {
	models []Model

	mu          sync.Mutex
	ready       sync.Cond
	completions []delivery
	closed      bool
	stats       backend.Stats
	registered  []*block

	// told are the completions of one Reap.
	told []delivery
}

// delivery is a completion on its way, and the lane that it is of; nil for a slot of a batcher.
type delivery struct {
	backend.Completion
	lane *lane
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

func (e *engine) Device() (device backend.Device, passedOver, err error) {
	return backend.Device{ID: "fake", Name: "fake", Kind: "host", Processors: runtime.NumCPU()}, nil, e.open()
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
	if strings.IndexByte(path, 0) >= 0 {
		return nil, status(streaminfer.StatusInvalidArgument, "the path %q contains a zero byte", path)
	}
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
	m, err := newModel(e, &e.models[index], options)
	if err != nil {
		return nil, err
	}
	e.count(func(s *backend.Stats) { s.Models++ })
	return m, nil
}

func (e *engine) Reap(dst []backend.Completion) (int, error) {
	e.mu.Lock()
	for len(e.completions) == 0 && !e.closed {
		e.ready.Wait()
	}
	moved := min(len(dst), len(e.completions))
	e.told = append(e.told[:0], e.completions[:moved]...)
	e.completions = slices.Delete(e.completions, 0, moved)
	e.mu.Unlock()
	for i := range e.told {
		d := &e.told[i]
		if dst[i] = d.Completion; d.lane != nil {
			d.lane.reaped(d.Sequence)
		}
	}
	clear(e.told)
	return moved, nil
}

func (e *engine) announce(d delivery) {
	e.mu.Lock()
	e.completions = append(e.completions, d)
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
