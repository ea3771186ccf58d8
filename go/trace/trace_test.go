package trace

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const us = time.Microsecond

// request is a span whose parts take the given times, in the order of parts.
func request(took ...time.Duration) Span {
	s := Span{Session: 1, Service: 120 * us, Arrived: 1000 * us, Acquired: 1100 * us}
	at := s.Acquired
	for i, moment := range []*time.Duration{&s.Copied, &s.Submitted, &s.Started, &s.Inputs, &s.Computed, &s.Done, &s.Woke, &s.Ended} {
		at += took[i]
		*moment = at
	}
	return s
}

func usualParts() []time.Duration {
	return []time.Duration{5 * us, 2 * us, 3 * us, 10 * us, 70 * us, 10 * us, 15 * us, 5 * us}
}

func TestSlowPartsAreFound(t *testing.T) {
	clean := &Trace{Counts: map[Kind]uint64{}}
	for range 100 {
		clean.Spans = append(clean.Spans, request(usualParts()...))
	}
	// As long as the queue explains it a request may take any time.
	queued := request(usualParts()...)
	queued.Arrived = 0
	clean.Spans = append(clean.Spans, queued)
	if findings := Diagnose(clean); len(findings) != 0 {
		t.Fatalf("clean, but %v", findings)
	}
	for i, part := range parts {
		took := usualParts()
		took[i] += 2 * time.Millisecond
		planted := &Trace{Counts: clean.Counts, Spans: append(append([]Span(nil), clean.Spans...), request(took...))}
		planted.Spans[100+1].Label = "handler"
		findings := Diagnose(planted)
		if len(findings) != 1 || findings[0].Name != "slow "+part.name || !strings.Contains(findings[0].What, "by handler") {
			t.Errorf("%s planted, found %v", part.name, findings)
		}
	}
}

// Copies are a finding if they are large, repeated and move much together, whichever of them were recorded.
func TestPageableCopiesAreFound(t *testing.T) {
	const mib = 1 << 20
	copied := func(kind Kind, counted, recorded int, bytes int64) *Trace {
		t := &Trace{Counts: map[Kind]uint64{kind: uint64(counted)}}
		for range recorded {
			t.Events = append(t.Events, Event{Kind: kind, Session: 2, Bytes: bytes, Took: 3 * us, Label: "frames.go:12", Note: "write"})
		}
		return t
	}
	for name, test := range map[string]struct {
		trace *Trace
		want  string
	}{
		"planted":     {copied(CopyPageable, 10, 10, 7*mib), "10 of them that were recorded, of 64 KiB or more each, moved 71680 KiB in 30µs (frames.go:12)"},
		"sampled":     {copied(CopyPageable, 1600, 100, copyBytesMin), "1600 copies between"},
		"page-locked": {copied(Copy, 100, 100, 64*mib), ""},
		"few":         {copied(CopyPageable, 9, 9, 64*mib), ""},
		"small":       {copied(CopyPageable, 1e6, 1e4, copyBytesMin-1), ""},
		"light":       {copied(CopyPageable, 63, 63, mib), ""},
	} {
		findings := Diagnose(test.trace)
		if test.want == "" && len(findings) == 0 {
			continue
		}
		if len(findings) != 1 || test.want == "" || findings[0].Name != "pageable copies" || !strings.Contains(findings[0].What, test.want) {
			t.Errorf("%s: %v", name, findings)
		}
	}
}

func TestCopiesAreShownWithTheirBytes(t *testing.T) {
	events := []Event{{Kind: CopyPageable, At: us, Took: 2 * us, Session: 2, Thread: 9, Bytes: 12345}, {Kind: Submit, Session: 1}}
	var file bytes.Buffer
	if err := (&Trace{Events: events}).Write(&file); err != nil {
		t.Fatal(err)
	}
	if shown, _, _ := strings.Cut(file.String(), `"streaminfer"`); strings.Count(shown, `"bytes"`) != 1 ||
		!strings.Contains(shown, `"name":"copy pageable","ph":"X","ts":1,"dur":2,"pid":1,"tid":9,"args":{"bytes":12345,`) {
		t.Error(shown)
	}
	if read, err := Read(&file); err != nil || len(read.Events) != 2 || read.Events[0] != events[0] {
		t.Errorf("%+v, %v", read, err)
	}
}

// A request whose batch failed, of which there are no figures, is shown among the batched ones, and as in no batch.
func TestFailedBatchedRequestsAreShownAsSuch(t *testing.T) {
	failed := Span{Session: 3, Error: "the batch failed", Arrived: 10 * us, Copied: 20 * us, Acquired: 20 * us, Ended: 50 * us}
	var file bytes.Buffer
	if err := (&Trace{Spans: []Span{failed}}).Write(&file); err != nil {
		t.Fatal(err)
	}
	for text, count := range map[string]int{`"cat":"batched"`: 6, `"batch that failed"`: 2, `"cat":"batch"`: 0, `"name":"copy out"`: 0, `"ph":"X"`: 0} {
		if got := strings.Count(file.String(), text); got != count {
			t.Errorf("%d times %s, not %d, in %s", got, text, count, file.String())
		}
	}
}

// A batched request copies its inputs before its batch closes: what it takes from then to the submission is not copying.
func TestBatchedRequestsAreJudgedFromTheirBatchOn(t *testing.T) {
	batched := func(took ...time.Duration) Span {
		s := request(took...)
		s.Batch, s.Rows, s.BucketRows, s.Label = 9, 3, 4, "handler"
		s.Copied = s.Arrived + us
		return s
	}
	took := usualParts()
	clean := []Span{batched(took...), batched(took...), batched(took...)}
	clean[1].Arrived, clean[1].Copied = 1*us, 2*us // it waited for others to come
	if findings := Diagnose(&Trace{Spans: clean}); len(findings) != 0 {
		t.Errorf("clean, but %v", findings)
	}
	took[6] += 700 * us
	planted := batched(took...)
	planted.Arrived, planted.Copied = 1*us, 2*us
	findings := Diagnose(&Trace{Spans: append(clean, planted)})
	if len(findings) != 1 || findings[0].Name != "slow waking up" || !strings.HasSuffix(findings[0].What, "by handler, in batch 9 of 3 rows") {
		t.Errorf("%v", findings)
	}
}

func TestThrottlingIsFound(t *testing.T) {
	for name, test := range map[string]struct {
		files fstest.MapFS
		want  time.Duration
	}{
		"version 2": {fstest.MapFS{"proc/self/cgroup": {Data: []byte("0::/a/b\n")},
			"sys/fs/cgroup/a/b/cpu.stat": {Data: []byte("usage_usec 9\nnr_throttled 3\nthrottled_usec 1500\n")}}, 1500 * us},
		"container": {fstest.MapFS{"proc/self/cgroup": {Data: []byte("0::/\n")},
			"sys/fs/cgroup/cpu.stat": {Data: []byte("nr_periods 9\nnr_throttled 3\nthrottled_usec 1500\n")}}, 1500 * us},
		"version 1": {fstest.MapFS{"sys/fs/cgroup/cpu/cpu.stat": {Data: []byte("nr_throttled 3\nthrottled_time 1500000\n")}}, 1500 * us},
		"nothing":   {fstest.MapFS{}, 0},
	} {
		periods, stopped := Throttling(test.files)
		if stopped != test.want || periods > 0 != (test.want > 0) {
			t.Errorf("%s: %d periods, %v", name, periods, stopped)
		}
		findings := Diagnose(&Trace{Process: Process{Throttled: stopped, ThrottledPeriods: periods}})
		if found := len(findings) == 1 && findings[0].Name == "CPU throttling"; found != (test.want > 0) {
			t.Errorf("%s: %v", name, findings)
		}
	}
}

func TestRingKeepsTheLast(t *testing.T) {
	r := NewRecorder(Options{API: 1})
	for i := range eventsMax + 10 {
		r.Event(0, Event{Kind: Submit, Session: uint64(i)})
	}
	taken := r.Take()
	if len(taken.Events) != eventsMax || taken.Events[0].Session != 10 || taken.Events[eventsMax-1].Session != eventsMax+9 ||
		taken.Counts[Submit] != eventsMax+10 {
		t.Errorf("%d events from %d to %d", len(taken.Events), taken.Events[0].Session, taken.Events[eventsMax-1].Session)
	}
}

func TestOptionsAreParsed(t *testing.T) {
	for text, want := range map[string]int{"": 0, "off": 0, "api": apiDefault, "api=full": 1, "api=50": 50} {
		if o, err := ParseOptions(text); err != nil || o.API != want {
			t.Errorf("%q: %+v, %v", text, o, err)
		}
	}
	for _, text := range []string{"api=0", "api=-1", "api=", "all", "off=1"} {
		if _, err := ParseOptions(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestForeignFilesAreRefused(t *testing.T) {
	for _, text := range []string{"", "no JSON", `{"traceEvents":[]}`} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%q is read", text)
		}
	}
	var buffer bytes.Buffer
	if err := (&Trace{}).Write(&buffer); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(&buffer); err != nil {
		t.Error(err)
	}
}
