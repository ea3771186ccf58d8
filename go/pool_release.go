package streaminfer

import (
	"context"
	"errors"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// release gives a lane back after a request, which ended with err.
func (p *Pool) release(ctx context.Context, l *lane, bucket *poolBucket, err error) {
	now := backend.Now()
	p.record(ctx, l, now, err)
	p.mu.Lock()
	if err == nil {
		if l.isProbe {
			bucket.service = now - l.since // what was known before is no longer so
		}
		bucket.observe(now - l.since)
		bucket.told = now
		p.stats.Succeeded++
		p.stats.count(bucket != &p.direct, l)
	} else {
		p.count(err)
		if failed, ok := errors.AsType[*Error](err); ok && failed.ranOut() {
			bucket.lengthen(now - l.since)
			bucket.told = now
		}
	}
	p.giveBack(l)
	p.mu.Unlock()
}

// putBack gives a lane back that was not used.
func (p *Pool) putBack(l *lane) {
	p.mu.Lock()
	p.giveBack(l)
	p.mu.Unlock()
}

// count sorts a failure. It is called with the lock.
func (p *Pool) count(err error) {
	failed, ok := errors.AsType[*Error](err)
	switch {
	case ok && failed.ranOut():
		p.stats.Expired++
	case ok && failed.Status == StatusCancelled:
		p.stats.Cancelled++
	default:
		p.stats.Failed++
	}
}

// giveBack decides what becomes of a lane whose request has ended. It is called with the lock, by the lane's holder.
func (p *Pool) giveBack(l *lane) {
	p.busy--
	l.heldBy.Store(0)
	switch {
	case p.closed:
		p.settleQuiet()
		return
	case l.session.broken():
		p.background.Add(1)
		go p.replace(l)
	case l.session.draining:
		l.heldBy.Store(byPool)
		p.draining++
		p.background.Add(1)
		go p.awaitDrained(l)
	default:
		p.swap(l)
		p.idle = append(p.idle, l)
	}
	p.dispatch()
}

// swap puts the session in place that is to replace the lane's. It is called with the lock; the lane is nobody's.
func (p *Pool) swap(l *lane) {
	if l.next == nil {
		return
	}
	old := l.session
	l.adopt(l.next)
	l.next = nil
	l.swapped()
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		_ = old.Close()
	}()
}

// awaitDrained waits until the device has left the memory of a request that was given up.
func (p *Pool) awaitDrained(l *lane) {
	defer p.background.Done()
	err := l.session.Drain(p.lifetime)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining--
	l.heldBy.Store(0)
	if p.closed {
		p.settleQuiet()
		return
	}
	if err != nil {
		p.background.Add(1)
		go p.replace(l)
	} else {
		p.swap(l)
		p.idle = append(p.idle, l)
	}
	p.dispatch()
}

// broken reports whether the session can serve no more: it is closed, or a panic or its last user poisoned it, or another goroutine
// is still in it. It is called by its holder.
func (s *Session) broken() bool { return s.state.Load() != stateIdle || s.poisoned }

// replace makes a new session for a lane that lost its own.
func (p *Pool) replace(l *lane) {
	defer p.background.Done()
	_ = l.session.Close()
	for pause := replacePauseMin; ; pause = min(2*pause, replacePauseMax) {
		s, err := p.model.newSession(p.options.Session, trace.CreatePooled, &l.heldBy)
		p.mu.Lock()
		if err == nil && !p.closed {
			l.adopt(s)
			p.stats.Replaced++
			p.swap(l)
			p.idle = append(p.idle, l)
			p.dispatch()
			p.mu.Unlock()
			return
		}
		if p.closed {
			p.mu.Unlock()
			if s != nil {
				_ = s.Close()
			}
			return
		}
		if hopeless(err) {
			p.lose(l, err)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-p.lifetime.Done():
			return
		}
	}
}

// hopeless says that no session can be made any more: engine or model are closed, or the device is lost.
func hopeless(err error) bool {
	return errors.Is(err, StatusStaleHandle) || errors.Is(err, StatusDeviceLost)
}

// lose takes a lane out for good. Without lanes the pool refuses everything. It is called with the lock.
func (p *Pool) lose(l *lane, why error) {
	for i := range p.lanes {
		if p.lanes[i] == l {
			p.lanes = append(append([]*lane(nil), p.lanes[:i]...), p.lanes[i+1:]...)
			break
		}
	}
	if l.next != nil {
		l.swapped()
	}
	if len(p.lanes) == 0 {
		if errors.Is(why, StatusStaleHandle) {
			why = errPoolEnded
		}
		if p.refusing == nil {
			p.refusing = why
		}
		p.flush(why)
	}
	p.settleQuiet()
}

// warmUp runs each bucket a few times on every session, so that memory has been touched and service times are known.
func (p *Pool) warmUp() {
	if p.options.WarmUp < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(p.lifetime, warmUpTimeMax)
	defer cancel()
	for round := range p.options.WarmUp {
		for _, b := range *p.buckets.Load() {
			for i := range p.lanes {
				if ctx.Err() != nil {
					return
				}
				// Time is measured on one session, as if it were alone; the traffic will tell the rest.
				p.warm(ctx, b, i == 0 && round > 0)
			}
		}
	}
}

// warm runs a bucket on the session that was idle longest. What zeros make fail is left to fail with real requests.
func (p *Pool) warm(ctx context.Context, b *poolBucket, measured bool) {
	p.mu.Lock()
	if len(p.idle) == 0 {
		p.mu.Unlock()
		return
	}
	l := p.idle[0]
	p.idle = append(p.idle[:0], p.idle[1:]...)
	p.hold(l, b, backend.Now())
	p.mu.Unlock()
	l.selected = false
	s := l.session
	started := backend.Now()
	err := func() error {
		if err := s.enter("warm up"); err != nil {
			return err
		}
		defer s.leave()
		if err := s.context.Shape(b.Bucket); err != nil {
			return err
		}
		if err := s.submit(ctx, "warm up"); err != nil {
			return err
		}
		return s.wait(ctx, "warm up")
	}()
	p.mu.Lock()
	if err == nil && measured {
		b.observe(backend.Now() - started)
		b.told = backend.Now()
		b.served--
	}
	p.giveBack(l)
	p.mu.Unlock()
}
