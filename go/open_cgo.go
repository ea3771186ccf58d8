//go:build linux && amd64 && cgo

package streaminfer

import (
	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/internal/capi"
)

func open(options *backend.EngineOptions) (backend.Engine, error) { return capi.Open(options) }

func devices(options *backend.EngineOptions) ([]backend.Device, error) { return capi.Devices(options) }
