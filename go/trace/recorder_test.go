package trace

import "testing"

// The zero Recorder is one that records what the zero Options say.
func TestZeroRecorder(t *testing.T) {
	var r Recorder
	sampled := 0
	for range 2 * spansDefault {
		if r.Sampled() {
			sampled++
		}
	}
	r.Event(1, Event{Kind: Bind})
	for i := range spansMax + 3 {
		r.Span(&Span{Session: uint64(i)})
	}
	taken := r.Take()
	if sampled != 2 || len(taken.Events) != 0 || len(taken.Spans) != spansMax || taken.Spans[0].Session != 3 {
		t.Errorf("%d sampled, %d events, %d spans", sampled, len(taken.Events), len(taken.Spans))
	}
	r.Set(Options{API: 1})
	r.Event(1, Event{Kind: Bind})
	if taken := r.Take(); len(taken.Events) != 1 || taken.Counts[Bind] != 1 {
		t.Errorf("%+v", taken.Counts)
	}
}
