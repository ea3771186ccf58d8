package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/streaminfer/streaminfer/go/trace"
)

// program finds the command line of the library, which lies beside it.
func program(t *testing.T) string {
	library := os.Getenv("STREAMINFER_LIBRARY")
	path := filepath.Join(filepath.Dir(library), "streaminfer")
	if _, err := os.Stat(path); library == "" || err != nil {
		if os.Getenv("STREAMINFER_REQUIRE") == "1" && library != "" {
			t.Fatal(err)
		}
		t.Skip("no program streaminfer beside STREAMINFER_LIBRARY")
	}
	return path
}

const us, ms = time.Microsecond, time.Millisecond

// request is a span whose parts take the given times, in their order.
func request(label string, took ...time.Duration) trace.Span {
	s := trace.Span{Session: 1, Label: label, Service: 120 * us, Arrived: 900 * us, Acquired: 1100 * us}
	at := s.Acquired
	for i, moment := range []*time.Duration{&s.Copied, &s.Submitted, &s.Started, &s.Inputs, &s.Computed, &s.Done, &s.Woke, &s.Ended} {
		at += took[i]
		*moment = at
	}
	return s
}

func usual() []time.Duration {
	return []time.Duration{5 * us, 2 * us, 3*us + 7, 10 * us, 70 * us, 10 * us, 15 * us, 5 * us}
}

// slow has requests that are slow in all parts, in some more than once, and some that are not to be judged.
func slow() *trace.Trace {
	t := &trace.Trace{}
	for range 9 {
		t.Spans = append(t.Spans, request("", usual()...))
	}
	for part := range usual() {
		for again := range part%3 + 1 {
			took := usual()
			took[part] += time.Duration(again+1)*1234567*time.Nanosecond + time.Duration(part)*time.Minute
			t.Spans = append(t.Spans, request([]string{"", "handler <&> \"ü\""}[again%2], took...))
		}
	}
	failed := request("failed", ms, ms, ms, ms, ms, ms, ms, ms)
	failed.Error = "device lost"
	queued := request("", usual()...)
	queued.Arrived = 0
	left := trace.Span{Arrived: us, Acquired: time.Hour, Ended: 2 * time.Hour, Service: us}
	// Batched requests copy before their batch closes; the slowest of all to wake up is one.
	took := usual()
	took[6] = 3 * time.Hour
	batched, quick := request("batched", took...), request("", usual()...)
	for _, s := range []*trace.Span{&batched, &quick} {
		s.Batch, s.Rows, s.BucketRows, s.Copied = 7, 3, 4, s.Arrived+us
	}
	t.Spans = append(t.Spans, failed, queued, left, batched, quick)
	return t
}

// events repeats an event at each of the places; an empty one has a thread alone.
func events(kind trace.Kind, session uint64, places ...string) (all []trace.Event) {
	for i, place := range places {
		all = append(all, trace.Event{Kind: kind, At: time.Duration(i+1) * 1500 * us, Session: session + uint64(i), Thread: 7 - i%2, Label: place})
	}
	return all
}

func misused() *trace.Trace {
	t := &trace.Trace{Counts: map[trace.Kind]uint64{trace.Overlap: 5, trace.Foreign: 3, trace.Create: 9, trace.Submit: 89,
		trace.Close: 3, trace.Leaked: 2}}
	t.Events = append(t.Events, events(trace.Create, 1, "a.go:1", "b.go:2", "b.go:2")...)
	t.Events = append(t.Events, events(trace.CreatePooled, 3, "c.go:3")...)
	t.Events = append(t.Events, events(trace.Overlap, 2, "y", "x", "", "", "z", "y")...)
	foreign := events(trace.Foreign, 4, "late")
	foreign[0].Note = "the session is in its pool"
	t.Events = append(t.Events, foreign...)
	t.Events = append(t.Events, events(trace.Leaked, 2, "", "", "")...)
	return t
}

// copies has recorded copies of the given sizes, of so many in all.
func copies(count uint64, bytes ...int64) *trace.Trace {
	t := &trace.Trace{Counts: map[trace.Kind]uint64{trace.CopyPageable: count, trace.Copy: 1 << 20}}
	for i, size := range bytes {
		event := events(trace.CopyPageable, 3, []string{"a.go:1", "b.go:2", "b.go:2"}[i%3])[0]
		event.Bytes, event.Took, event.Note = size, time.Duration(size)/8, "write"
		t.Events = append(t.Events, event, trace.Event{Kind: trace.Copy, Session: 4, Bytes: 1 << 30, Took: time.Second})
	}
	return t
}

// planted has a trace for each kind of finding, and for what only nearly is one.
func planted() map[string]*trace.Trace {
	submits := func(threads ...int) *trace.Trace {
		t := &trace.Trace{}
		for i, thread := range threads {
			t.Events = append(t.Events, trace.Event{Kind: trace.Submit, Session: uint64(i%2 + 1), Thread: thread})
		}
		return t
	}
	everything := slow()
	everything.Counts, everything.Events = misused().Counts, append(misused().Events, submits(1, 2, 3, 2).Events...)
	everything.Process = trace.Process{GoMaxProcs: 2, Threads: 100, EngineThreads: 3, BoundWorkers: 4, Throttled: 90*time.Minute + 7,
		ThrottledPeriods: 12}
	const mib, kib64 = 1 << 20, 64 << 10
	return map[string]*trace.Trace{
		"copies":         copies(10, 7*mib, 7*mib, 7*mib, 7*mib, 7*mib, 6*mib, 6*mib, 6*mib, 6*mib, 5*mib),
		"large copies":   copies(9, mib<<10, mib, mib, mib, mib, mib, mib, mib, mib),
		"light copies":   copies(10, 7*mib, 7*mib, 7*mib, 7*mib, 7*mib, 6*mib, 6*mib, 6*mib, 6*mib, 5*mib-1),
		"some copies":    copies(3*1024+2, kib64, kib64-1, kib64),
		"rounded copies": copies(10, 9*mib, 9*mib, 9*mib),
		"small copies":   copies(1<<20, kib64-1, kib64-1),
		"other copies":   copies(1 << 20),
		"copies untold":  copies(0, 32*mib, 32*mib),
		"nothing":        {},
		"slow":           slow(),
		"misused":        misused(),
		"migrations":     submits(1, 2, 3, 2, 0, 2),
		"stay":           submits(1, 2, 1, 2, 0, 2),
		"threads":        {Process: trace.Process{GoMaxProcs: 2, Threads: 23, EngineThreads: 3, BoundWorkers: 1}},
		"few threads":    {Process: trace.Process{GoMaxProcs: 2, Threads: 22, EngineThreads: 3, BoundWorkers: 1}},
		"throttled":      {Process: trace.Process{Throttled: 1500 * us, ThrottledPeriods: 1}},
		"pooled":         {Counts: map[trace.Kind]uint64{trace.Create: 9, trace.Submit: 90, trace.Close: 9}},
		"everything":     everything,
	}
}

// Both programs say the same of the same trace.
func TestTwinsAgree(t *testing.T) {
	twin := program(t)
	names := map[string]bool{}
	for name, record := range planted() {
		path := filepath.Join(t.TempDir(), "trace.json")
		var file bytes.Buffer
		if err := record.Write(&file); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, finding := range trace.Diagnose(record) {
			names[finding.Name] = true
		}
		agree(t, twin, name, path)
	}
	// Every kind of finding must have been planted: 8 slow parts and 8 others.
	if len(names) != 16 {
		t.Errorf("%d kinds of findings were planted: %v", len(names), names)
	}
	for name, text := range map[string]string{"empty": "", "no JSON": "trace", "a viewer's": `{"traceEvents":[]}`,
		"no object": `{"streaminfer":[]}`, "no number": `{"streaminfer":{"process":{"threads":"many"}}}`} {
		path := filepath.Join(t.TempDir(), "trace.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		agree(t, twin, name, path)
	}
	agree(t, twin, "nowhere", "/nowhere")
}

func agree(t *testing.T, twin, name, path string) {
	t.Helper()
	var ours strings.Builder
	code, _ := examine(path, &ours)
	theirs, err := exec.Command(twin, "doctor", path).Output()
	theirCode := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		theirCode = failed.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if string(theirs) != ours.String() || theirCode != code {
		t.Errorf("%s: streaminfer-doctor says (%d)\n%sstreaminfer doctor says (%d)\n%s", name, code, ours.String(), theirCode, theirs)
	}
}
