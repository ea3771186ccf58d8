//go:build race

package streaminfer

// The race detector does not see memory that C allocated, nor what the device does to it. Here it is shown both: a word of
// Go memory stands for a session's inputs and one for its outputs, a goroutine for the device.

// shadow is what the race detector is shown of a session.
type shadow struct {
	inputs, outputs *uint64
	// finished is closed by the device of the request in flight; nil if there is none.
	finished chan struct{}
}

func newShadow() shadow { return shadow{inputs: new(uint64), outputs: new(uint64)} }

// begin hands the memory to the device: from now on it reads the inputs and writes the outputs.
func (s *shadow) begin() {
	finished := make(chan struct{})
	s.finished = finished
	inputs, outputs := s.inputs, s.outputs
	go func() {
		*outputs = *inputs + 1
		close(finished)
	}()
}

// end takes the memory back.
func (s *shadow) end() {
	if s.finished != nil {
		<-s.finished
		s.finished = nil
	}
}

// touched stands for the memory of one view.
type touched struct{ word *uint64 }

func (s *shadow) input() touched  { return touched{s.inputs} }
func (s *shadow) output() touched { return touched{s.outputs} }

// sink keeps reads from being optimised away.
var sink func(uint64) = func(uint64) {}

func (t touched) read() {
	if t.word != nil {
		sink(*t.word)
	}
}

func (t touched) write() {
	if t.word != nil {
		*t.word = 1
	}
}
