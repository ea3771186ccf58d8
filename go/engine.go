package streaminfer

import (
	"os"
	"runtime"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// EngineOptions are the choices made when an engine is opened. The zero value opens the best device there is with the
// library found as the package comment says.
type EngineOptions struct {
	// Device is "auto", "host", "cuda:0" or a GPU's UUID; empty means "auto".
	Device string
	// Library is the path of libstreaminfer.so; empty means to look for it.
	Library string
	// Threads is the number of host threads that a session computes with unless its own options say otherwise; 0 means 1.
	Threads int
	// InFlightMax bounds the requests in flight on the device, on a GPU those of all engines of the process; one more gets StatusAgain.
	// Sessions that are linked are in flight together: with a smaller number than it has models, a chain never runs (package pipeline).
	// 0: no limit other than the number of sessions. If it is smaller than all sessions together, pools compete for permits, in no
	// order: a pool's request that finds none tries again until its context ends.
	InFlightMax int
	// SessionsMax bounds the live sessions, those of batchers and the rows of their largest batches included; 0 means 4096.
	SessionsMax int
	// MemoryBytesMax bounds what weights, sessions and memories (but registered ones) may take together; 0 means no bound.
	MemoryBytesMax uint64
}

// DeviceInfo describes a device.
type DeviceInfo struct {
	// ID is what EngineOptions.Device takes, Name the maker's name for the device, Kind "host" or "cuda".
	ID, Name, Kind string
	// Processors are the CPUs this process may use, or a GPU's multiprocessors.
	Processors int
	// MemoryBytes is the device's memory in all.
	MemoryBytes uint64
}

// DeviceState says whether a device can be used.
type DeviceState int

// The states of a device.
const (
	DeviceOK DeviceState = 1
	// DeviceSuspect had a fault that may be its last.
	DeviceSuspect DeviceState = 2
	// DeviceDead is lost for this process.
	DeviceDead DeviceState = 3
)

// EngineStats are the live objects of an engine and what they hold, at one moment.
type EngineStats struct {
	DeviceState DeviceState
	// Models, Sessions, Events and Batchers are alive: those included that are closed and still in use. The sessions that a
	// batcher runs its batches on count, too.
	Models, Sessions, Events, Batchers int
	// Memories are alive: those included that are closed while a session uses them.
	Memories int
	// Threads is the number of threads that the library runs for this engine.
	Threads int
	// InFlight counts requests in flight, Completions those announced and not yet delivered.
	InFlight, Completions int
	// WeightsBytes are held by models, and RetainedBytes for the files of those loaded from memory.
	WeightsBytes, RetainedBytes uint64
	// ArenaBytes, and PinnedBytes for inputs and outputs, are held by sessions.
	ArenaBytes, PinnedBytes uint64
	// MemoryBytes are held by memories; RegisteredBytes are the program's own, which are registered.
	MemoryBytes, RegisteredBytes uint64
	// Requests have ended since the engine was opened; Failures of them failed, expired or were cancelled.
	Requests, Failures uint64
}

// Engine is one opened device. Its methods may be called from any goroutine.
type Engine struct {
	_ noCopy
	*registry
	cleanup runtime.Cleanup
}

// Open finds the library, checks that it is the one this package was written for, and opens a device. Close the engine
// when done with it.
//
// Errors: [ErrUnsupported], [*LibraryError], StatusNoDevice, StatusInvalidArgument.
func Open(options EngineOptions) (*Engine, error) {
	if _, err := trace.ParseOptions(os.Getenv("STREAMINFER_TRACE")); err != nil {
		return nil, refusal("open", StatusInvalidArgument, "STREAMINFER_TRACE: %v", err)
	}
	if err := options.check("open"); err != nil {
		return nil, err
	}
	opened, err := open(options.backend())
	if err != nil {
		return nil, failure("open", ExecutedNo, err)
	}
	return NewEngine(opened), nil
}

// NewEngine wraps a backend, which only this module can make: Open and package fake use it.
func NewEngine(b backend.Engine) *Engine {
	spinnersMax.Store(int32(runtime.GOMAXPROCS(0) - 1))
	e := &Engine{registry: newRegistry(b)}
	e.cleanup = runtime.AddCleanup(e, closeRegistry, e.registry)
	return e
}

// Devices describes the devices of this machine: those an engine can be opened on. Of the options only Library counts.
func Devices(options EngineOptions) ([]DeviceInfo, error) {
	if err := options.check("devices"); err != nil {
		return nil, err
	}
	raw, err := devices(options.backend())
	if err != nil {
		return nil, failure("devices", ExecutedNo, err)
	}
	infos := make([]DeviceInfo, len(raw))
	for i, d := range raw {
		infos[i] = DeviceInfo(d)
	}
	return infos, nil
}

// Device describes the device that was opened, which "auto" has chosen. passedOver says why that is the host: what kept a
// GPU from use; nil if none was passed over. A service whose GPU is gone finds it here, and may serve on or not.
func (e *Engine) Device() (device DeviceInfo, passedOver, err error) {
	raw, reason, err := e.backend.Device()
	runtime.KeepAlive(e)
	if err != nil {
		return DeviceInfo{}, nil, failure("device", ExecutedNo, err)
	}
	return DeviceInfo(raw), failure("open a GPU", ExecutedNo, reason), nil
}

// Stats counts what is alive.
func (e *Engine) Stats() (EngineStats, error) {
	raw, err := e.backend.Stats()
	runtime.KeepAlive(e)
	if err != nil {
		return EngineStats{}, failure("stats", ExecutedNo, err)
	}
	return EngineStats{DeviceState: DeviceState(raw.DeviceState), Models: raw.Models, Sessions: raw.Contexts,
		Events: raw.Events, Batchers: raw.Batchers, Threads: raw.Threads, InFlight: raw.InFlight, Completions: raw.Completions,
		WeightsBytes: raw.WeightsBytes, RetainedBytes: raw.RetainedBytes, ArenaBytes: raw.ArenaBytes, PinnedBytes: raw.PinnedBytes,
		Memories: raw.Memories, MemoryBytes: raw.MemoryBytes, RegisteredBytes: raw.RegisteredBytes,
		Requests: raw.Requests, Failures: raw.Failures}, nil
}

// Close closes the engine with all its sessions, models, events and memories, and waits for its goroutine to end. Requests in
// flight are cancelled; their memory is released when the device has finished with it. Closing again does nothing.
func (e *Engine) Close() error {
	e.cleanup.Stop()
	traced := e.writeTrace()
	if err := failure("close", ExecutedNo, e.registry.close()); err != nil {
		return err
	}
	return traced
}

func (o *EngineOptions) check(op string) error {
	for name, text := range map[string]string{"Device": o.Device, "Library": o.Library} {
		if err := checkText(op, name, text); err != nil {
			return err
		}
	}
	return checkCounts(op, option{"Threads", o.Threads}, option{"InFlightMax", o.InFlightMax}, option{"SessionsMax", o.SessionsMax})
}

func (o *EngineOptions) backend() *backend.EngineOptions {
	return (*backend.EngineOptions)(o)
}
