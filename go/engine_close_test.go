package streaminfer_test

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
	"github.com/streaminfer/streaminfer/go/trace"
)

// Close meets whatever is being made. The race detector tells if it finds something half made; the collector frees what is forgotten.
func TestEngineCloseMeetsWhatIsBeingMade(t *testing.T) {
	makers := map[string]func(*streaminfer.Engine, *streaminfer.Model) error{
		"session": func(_ *streaminfer.Engine, m *streaminfer.Model) error {
			_, err := m.NewSession(streaminfer.SessionOptions{})
			return err
		},
		"pool": func(_ *streaminfer.Engine, m *streaminfer.Model) error {
			p, err := streaminfer.NewPool(m, streaminfer.PoolOptions{Sessions: 2, WarmUp: -1})
			if err == nil {
				// A session that was closed while it was lent is replaced, beside all else.
				_ = p.Do(context.Background(), func(_ context.Context, s *streaminfer.Session) error { return s.Close() })
				err = p.Close()
			}
			return err
		},
		"bound": func(_ *streaminfer.Engine, m *streaminfer.Model) error {
			b, err := streaminfer.NewBound(m, streaminfer.BoundOptions{})
			if err == nil {
				err = b.Close()
			}
			return err
		},
		"model": func(e *streaminfer.Engine, m *streaminfer.Model) error {
			_, err := e.LoadBytes([]byte(affine), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{batch(1)}})
			return err
		},
		"batcher": func(_ *streaminfer.Engine, m *streaminfer.Model) error {
			_, err := streaminfer.NewBatcher(m, streaminfer.BatcherOptions{})
			return err
		},
		"event":  func(e *streaminfer.Engine, _ *streaminfer.Model) error { _, err := e.NewEvent(); return err },
		"memory": func(e *streaminfer.Engine, _ *streaminfer.Model) error { _, err := e.NewPinned(64); return err },
	}
	for name, open := range map[string]func(*testing.T) (*streaminfer.Engine, []byte){
		"fake":    func(*testing.T) (*streaminfer.Engine, []byte) { return fake.NewEngine(fakes(nil)...), []byte(affine) },
		"library": func(t *testing.T) (*streaminfer.Engine, []byte) { return openLibrary(t), onnxFile(affine) },
	} {
		for what, make := range makers {
			if what == "model" && name == "library" {
				continue // its LoadBytes is of the fake's models
			}
			t.Run(name+"/"+what, func(t *testing.T) {
				for range 10 {
					engine, file := open(t)
					engine.SetTrace(trace.Options{API: 1})
					model, err := engine.LoadBytes(file, streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{batch(1)},
						Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x"}}})
					if err != nil {
						t.Fatal(err)
					}
					var group, started sync.WaitGroup
					for range 4 {
						started.Add(1)
						group.Go(func() {
							for i := 0; ; i++ {
								err := make(engine, model)
								if i == 0 {
									started.Done()
								}
								if err != nil && !errors.Is(err, streaminfer.StatusStaleHandle) {
									t.Error(err)
								}
								if err != nil {
									return
								}
							}
						})
					}
					started.Wait()
					if err := engine.Close(); err != nil {
						t.Error(err)
					}
					group.Wait()
				}
				runtime.GC()
			})
		}
	}
}

// Who comes to the pool of an engine that is closed can go elsewhere, as from a pool that is closed.
func TestPoolOfAClosedEngineIsClosed(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 2})
		r := newAffineRequest(1)
		w.ok(pool.Infer(context.Background(), r.in, r.out))
		w.ok(w.engine.Close())
		for range 3 {
			err := pool.Infer(context.Background(), r.in, r.out)
			w.is(err, streaminfer.StatusStaleHandle)
			if !errors.Is(err, streaminfer.ErrPoolClosed) || w.executed(err) != streaminfer.ExecutedNo {
				w.Error(err)
			}
		}
	})
}

// A copy is collected, and so closed, with the original: vet is to tell of it.
func TestVetTellsOfCopies(t *testing.T) {
	for _, kind := range []reflect.Type{reflect.TypeFor[streaminfer.Engine](), reflect.TypeFor[streaminfer.Bound]()} {
		isLocked := false
		for i := range kind.NumField() {
			_, locks := reflect.PointerTo(kind.Field(i).Type).MethodByName("Lock")
			_, unlocks := reflect.PointerTo(kind.Field(i).Type).MethodByName("Unlock")
			isLocked = isLocked || locks && unlocks
		}
		if !isLocked {
			t.Errorf("a copy of %v goes unnoticed", kind)
		}
	}
}
