package pipeline

// A stage's queue is a list, so that an item that is given up leaves it at once, and two channels that count: room has an
// element for every place that is taken, ready at least one for every item that no worker has come for. A stage without a
// queue has neither and takes items by hand.

// offer puts a job into the queue, or into a worker's hands, if that is possible at once.
func (s *stage[T]) offer(j *job[T]) bool {
	select {
	case s.room <- struct{}{}:
		s.push(j)
		return true
	case s.hand <- j:
		return true
	default:
		return false
	}
}

// push puts a job in the place that has been taken for it, unless it has been abandoned on its way here.
func (s *stage[T]) push(j *job[T]) {
	j.at.Store(s)
	s.mu.Lock()
	if j.state.Load() == abandoned {
		s.mu.Unlock()
		<-s.room
		return
	}
	j.queued, j.before, j.next = true, s.last, nil
	if s.last == nil {
		s.first = j
	} else {
		s.last.next = j
	}
	s.last = j
	s.stats.Queued++
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default: // there are as many as the queue has places: enough for every job
	}
}

// pop takes the first job out of the queue: nil if the one that a worker came for has been abandoned.
func (s *stage[T]) pop() *job[T] {
	s.mu.Lock()
	j := s.first
	if j != nil {
		s.unlink(j)
	}
	s.mu.Unlock()
	if j != nil {
		<-s.room
	}
	return j
}

// remove takes an abandoned job out of the queue, if it is there.
func (s *stage[T]) remove(j *job[T]) {
	s.mu.Lock()
	queued := j.queued
	if queued {
		s.unlink(j)
	}
	s.mu.Unlock()
	if !queued {
		return
	}
	select {
	case <-s.ready:
	default: // a worker is coming for it, or who put it there has not said so yet: a worker will find nothing
	}
	<-s.room
}

// unlink is called with the lock.
func (s *stage[T]) unlink(j *job[T]) {
	if j.before == nil {
		s.first = j.next
	} else {
		j.before.next = j.next
	}
	if j.next == nil {
		s.last = j.before
	} else {
		j.next.before = j.before
	}
	j.queued, j.before, j.next = false, nil, nil
	s.stats.Queued--
}
