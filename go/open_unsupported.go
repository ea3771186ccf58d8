//go:build !linux || !amd64 || !cgo

package streaminfer

import "github.com/streaminfer/streaminfer/go/internal/backend"

func open(*backend.EngineOptions) (backend.Engine, error) { return nil, ErrUnsupported }

func devices(*backend.EngineOptions) ([]backend.Device, error) { return nil, ErrUnsupported }
