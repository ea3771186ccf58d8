package main

import (
	"context"
	"fmt"
	"runtime"

	streaminfer "github.com/streaminfer/streaminfer/go"
	ort "github.com/yalue/onnxruntime_go"
)

// initialize loads ONNX Runtime.
func initialize(library string) (end func(), err error) {
	ort.SetSharedLibraryPath(library)
	if err := ort.InitializeEnvironment(); err != nil {
		return nil, err
	}
	return func() { _ = ort.DestroyEnvironment() }, nil
}

// peersOf are the ways to be compared: for one goroutine a session of its own, with tensors that stay where they are; for several
// what each library has for them: a pool here, there a session that all may call at once.
func peersOf(m model, goroutines int) ([]peer, error) {
	ways := []func(model, int) (peer, error){newSession, newFixed}
	if goroutines > 1 {
		ways = []func(model, int) (peer, error){newPool, newShared}
	}
	var peers []peer
	for _, way := range ways {
		p, err := way(m, goroutines)
		if err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// names of the one input and the one output.
func names(m model) (in, out string, err error) {
	inputs, outputs, err := ort.GetInputOutputInfo(m.path)
	if err != nil {
		return "", "", err
	}
	if len(inputs) != 1 || len(outputs) != 1 {
		return "", "", fmt.Errorf("%s has %d inputs and %d outputs, not one of each", m.path, len(inputs), len(outputs))
	}
	return inputs[0].Name, outputs[0].Name, nil
}

func load(m model) (*streaminfer.Engine, *streaminfer.Model, error) {
	engine, err := streaminfer.Open(streaminfer.EngineOptions{Device: "host", Threads: 1})
	if err != nil {
		return nil, nil, err
	}
	in, _, err := names(m)
	if err != nil {
		return nil, nil, err
	}
	model, err := engine.Load(m.path, streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{{Shapes: streaminfer.Shapes{in: m.shape}}}})
	return engine, model, err
}

// session is a Session of this module.
type session struct {
	engine  *streaminfer.Engine
	session *streaminfer.Session
	in, out []float32
}

func newSession(m model, _ int) (peer, error) {
	engine, loaded, err := load(m)
	if err != nil {
		return nil, err
	}
	in, out, err := names(m)
	if err != nil {
		return nil, err
	}
	s, err := loaded.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		return nil, err
	}
	x, err := streaminfer.Input[float32](s, in)
	if err != nil {
		return nil, err
	}
	y, err := streaminfer.Output[float32](s, out)
	return &session{engine, s, x.Data, y.Data}, err
}

func (s *session) name() string         { return "streaminfer, Session.Run" }
func (s *session) run(int) error        { return s.session.Run(context.Background()) }
func (s *session) input(int) []float32  { return s.in }
func (s *session) output(int) []float32 { return s.out }
func (s *session) close() error         { return s.engine.Close() }

// pool is a Pool of this module, with as many sessions as there are processors.
type pool struct {
	engine  *streaminfer.Engine
	pool    *streaminfer.Pool
	in, out [][]streaminfer.Tensor
	ins     [][]float32
	outs    [][]float32
}

func newPool(m model, goroutines int) (peer, error) {
	engine, loaded, err := load(m)
	if err != nil {
		return nil, err
	}
	input, output, err := names(m)
	if err != nil {
		return nil, err
	}
	lent, err := streaminfer.NewPool(loaded, streaminfer.PoolOptions{Sessions: runtime.GOMAXPROCS(0)})
	if err != nil {
		return nil, err
	}
	p := &pool{engine: engine, pool: lent}
	for range goroutines {
		in, out := make([]float32, m.in), make([]float32, m.out)
		p.ins, p.outs = append(p.ins, in), append(p.outs, out)
		p.in = append(p.in, []streaminfer.Tensor{streaminfer.NewTensor(input, in, m.shape...)})
		p.out = append(p.out, []streaminfer.Tensor{streaminfer.NewTensor(output, out)})
	}
	return p, nil
}

func (p *pool) name() string           { return "streaminfer, Pool.Infer" }
func (p *pool) run(g int) error        { return p.pool.Infer(context.Background(), p.in[g], p.out[g]) }
func (p *pool) input(g int) []float32  { return p.ins[g] }
func (p *pool) output(g int) []float32 { return p.outs[g] }
func (p *pool) close() error           { return p.engine.Close() }

// tensors of onnxruntime_go, over memory of Go's.
type tensors struct {
	in, out *ort.Tensor[float32]
}

func newTensors(m model) (tensors, error) {
	in, err := ort.NewTensor(ort.NewShape(m.shape...), make([]float32, m.in))
	if err != nil {
		return tensors{}, err
	}
	out, err := ort.NewEmptyTensor[float32](ort.NewShape(m.shape[0], int64(m.out)))
	return tensors{in, out}, err
}

func (t tensors) close() {
	_ = t.in.Destroy()
	_ = t.out.Destroy()
}

// options asks for one compute thread: the calling one.
func options() (*ort.SessionOptions, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	if err := o.SetIntraOpNumThreads(1); err != nil {
		return nil, err
	}
	return o, o.SetInterOpNumThreads(1)
}

// fixed is onnxruntime_go's AdvancedSession, whose tensors are those that it was made with.
type fixed struct {
	session *ort.AdvancedSession
	tensors tensors
}

func newFixed(m model, _ int) (peer, error) {
	in, out, err := names(m)
	if err != nil {
		return nil, err
	}
	o, err := options()
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	t, err := newTensors(m)
	if err != nil {
		return nil, err
	}
	s, err := ort.NewAdvancedSession(m.path, []string{in}, []string{out}, []ort.Value{t.in}, []ort.Value{t.out}, o)
	return &fixed{s, t}, err
}

func (f *fixed) name() string         { return "onnxruntime_go, AdvancedSession.Run" }
func (f *fixed) run(int) error        { return f.session.Run() }
func (f *fixed) input(int) []float32  { return f.tensors.in.GetData() }
func (f *fixed) output(int) []float32 { return f.tensors.out.GetData() }
func (f *fixed) close() error         { f.tensors.close(); return f.session.Destroy() }

// shared is onnxruntime_go's DynamicAdvancedSession, which takes tensors with each call and may be called by all at once.
type shared struct {
	session *ort.DynamicAdvancedSession
	tensors []tensors
	in, out [][]ort.Value
}

func newShared(m model, goroutines int) (peer, error) {
	in, out, err := names(m)
	if err != nil {
		return nil, err
	}
	o, err := options()
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	s := &shared{}
	for range goroutines {
		t, err := newTensors(m)
		if err != nil {
			return nil, err
		}
		s.tensors = append(s.tensors, t)
		s.in, s.out = append(s.in, []ort.Value{t.in}), append(s.out, []ort.Value{t.out})
	}
	s.session, err = ort.NewDynamicAdvancedSession(m.path, []string{in}, []string{out}, o)
	return s, err
}

func (s *shared) name() string           { return "onnxruntime_go, DynamicAdvancedSession" }
func (s *shared) run(g int) error        { return s.session.Run(s.in[g], s.out[g]) }
func (s *shared) input(g int) []float32  { return s.tensors[g].in.GetData() }
func (s *shared) output(g int) []float32 { return s.tensors[g].out.GetData() }

func (s *shared) close() error {
	for _, t := range s.tensors {
		t.close()
	}
	return s.session.Destroy()
}
