package streaminfer

import (
	"runtime"
	"sync"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// loan is registered memory: a slice of the program's that, if it is Go's, stays where it is until no device uses it any more.
type loan struct {
	backend.Memory
	pinner runtime.Pinner

	mu sync.Mutex
	// users are the attachments of sessions that are not closed. When there are none and it is freed, the device alone is waited for.
	users        int
	freed, ended bool
}

// Nobody tells when the device has finished with memory: it is looked at from time to time.
const memoryPauseMin, memoryPauseMax = time.Millisecond, 100 * time.Millisecond

func (l *loan) attach(call func(backend.Memory) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := call(l.Memory)
	if err == nil {
		l.users++
	}
	return err
}

// letGo ends what one attachment of a session began, when that session is closed.
func (l *loan) letGo() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users--
	_ = l.settle()
}

// Free ends the loan, now or when the sessions that use the memory are closed and their device has finished.
func (l *loan) Free() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.freed = true
	return l.settle()
}

// settle ends a loan that is freed once there are no users, and no device. It is called with the lock.
func (l *loan) settle() error {
	if !l.freed || l.users > 0 {
		return nil
	}
	if !l.isInUse() {
		return l.end()
	}
	go func() {
		for pause := memoryPauseMin; l.isInUse(); pause = min(2*pause, memoryPauseMax) {
			time.Sleep(pause)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		_ = l.end()
	}()
	return nil
}

func (l *loan) isInUse() bool {
	info, err := l.Info()
	return err == nil && info.Attached > 0
}

// end is called with the lock, once.
func (l *loan) end() error {
	err := l.Memory.Free()
	l.pinner.Unpin()
	l.ended = true
	return err
}

func (l *loan) hasEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}
