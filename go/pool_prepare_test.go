package streaminfer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// heldPool is a pool of one session, which is lent out until release is called.
func (w *world) heldPool(model *streaminfer.Model) (pool *streaminfer.Pool, release func()) {
	w.Helper()
	pool = w.pool(model, streaminfer.PoolOptions{Sessions: 1, Spares: -1})
	lent, gate, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = pool.Do(context.Background(), func(context.Context, *streaminfer.Session) error { close(lent); <-gate; return nil })
	}()
	<-lent
	return pool, func() { close(gate); <-done }
}

// started runs f and returns what it will have returned.
func started(f func() error) (ended chan error) {
	ended = make(chan error, 1)
	go func() { ended <- f() }()
	return ended
}

// returns is what a call returned that has started.
func (w *world) returns(what string, ended chan error) (err error) {
	w.Helper()
	eventually(w, what+" to return", func() bool {
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	})
	return err
}

func (w *world) sessions() int {
	w.Helper()
	stats, err := w.engine.Stats()
	w.ok(err)
	return stats.Sessions
}

func TestPrepareHeedsItsContextWhileAnotherIsAtIt(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		_, release := w.heldPool(model)
		other := w.pool(model, streaminfer.PoolOptions{Sessions: 1, Spares: -1, PlanMax: 1})
		before := w.sessions()
		first := started(func() error { return model.Prepare(context.Background(), batch(2)) })
		eventually(w, "the first Prepare to wait for the session", func() bool { return w.sessions() > before })

		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		second := started(func() error { return model.Prepare(ctx, batch(3)) })
		w.is(w.returns("the second Prepare", second), streaminfer.StatusTimeout)

		// A pool that plans shapes by itself is closed while it waits for the other one.
		r := newAffineRequest(4)
		w.is(other.Infer(context.Background(), r.in, r.out), streaminfer.ErrNoBucket)
		w.ok(w.returns("Close", started(other.Close)))

		release()
		w.ok(w.returns("the first Prepare", first))
	})
}

func TestPreparePassesOverAPoolThatIsClosed(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		held, release := w.heldPool(model)
		other := w.pool(model, streaminfer.PoolOptions{Sessions: 1, Spares: -1})
		before := w.sessions()
		prepared := started(func() error { return model.Prepare(context.Background(), batch(2)) })
		eventually(w, "Prepare to wait for the session", func() bool { return w.sessions() > before })
		w.ok(w.returns("Close", started(held.Close)))
		release()
		w.ok(w.returns("Prepare", prepared))
		r := newAffineRequest(2)
		r.randomize()
		if err := other.Infer(context.Background(), r.in, r.out); err != nil || !r.right() {
			w.Errorf("the other pool does not know the new bucket: %v", err)
		}
		if err := held.Infer(context.Background(), r.in, r.out); !errors.Is(err, streaminfer.ErrPoolClosed) && !errors.Is(err, streaminfer.ErrNoBucket) {
			w.Error(err)
		}
	})
}
