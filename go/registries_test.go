package streaminfer

import (
	"testing"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// emptyEngine has nothing.
type emptyEngine struct{ backend.Engine }

func (emptyEngine) Stats() (backend.Stats, error) { return backend.Stats{}, nil }
func (emptyEngine) Close() error                  { return nil }

// Whether memory is page-locked is asked of engines that are open; a closed one is kept by nothing.
func TestClosedEnginesAreForgotten(t *testing.T) {
	e := NewEngine(emptyEngine{})
	r := e.registry
	if _, kept := registries.Load(r); !kept {
		t.Error("an open engine is not known")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, kept := registries.Load(r); kept {
		t.Error("a closed engine is kept")
	}
}
