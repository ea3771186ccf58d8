package fake

import (
	"sync"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// event is a mark that can be moved.
type event struct {
	engine *engine

	mu              sync.Mutex
	recorded, freed bool
	mark            mark
}

func (e *engine) NewEvent() (backend.Event, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.open(); err != nil {
		return nil, err
	}
	e.stats.Events++
	return &event{engine: e}, nil
}

// enter locks the event for one call with a context.
func (e *event) enter(c backend.Context) (*lane, error) {
	e.mu.Lock()
	l, ok := c.(*lane)
	var err error
	switch {
	case e.freed:
		err = status(streaminfer.StatusStaleHandle, "the event is freed")
	case !ok || l.engine != e.engine:
		err = status(streaminfer.StatusInvalidArgument, "event and context belong to different engines")
	}
	if err != nil {
		e.mu.Unlock()
	}
	return l, err
}

func (e *event) Record(c backend.Context) error {
	l, err := e.enter(c)
	if err != nil {
		return err
	}
	defer e.mu.Unlock()
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	e.recorded, e.mark = true, l.last()
	return nil
}

func (e *event) Wait(c backend.Context) error {
	l, err := e.enter(c)
	if err != nil {
		return err
	}
	defer e.mu.Unlock()
	if !e.recorded {
		return status(streaminfer.StatusNotRecorded, "the event has not been recorded")
	}
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if len(l.waits) == eventWaitsMax {
		return status(streaminfer.StatusLimitReached, "a request waits for at most %d events", eventWaitsMax)
	}
	l.waits = append(l.waits, e.mark)
	return nil
}

func (e *event) Free() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.freed {
		return status(streaminfer.StatusStaleHandle, "the event is freed")
	}
	e.freed = true
	e.engine.count(func(s *backend.Stats) { s.Events-- })
	return nil
}
