package streaminfer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/trace"
)

// traced returns what has been recorded; what the machine and the test's process do to it is left out.
func (w *world) traced() *trace.Trace {
	w.Helper()
	t, err := w.engine.Trace()
	w.ok(err)
	return t
}

// finds fails the test unless exactly the named problems are found. Slow requests and threads belong to the machine that
// runs the tests, so they only count when asked for.
func (w *world) finds(t *trace.Trace, names ...string) {
	w.Helper()
	var found []string
	for _, f := range trace.Diagnose(t) {
		machine := strings.HasPrefix(f.Name, "slow ") || f.Name == "thread explosion" || f.Name == "CPU throttling"
		if f.Severity == trace.Problem && (!machine || slices.Contains(names, f.Name)) {
			found = append(found, f.Name)
			w.Log(f)
		}
	}
	slices.Sort(found)
	slices.Sort(names)
	if !slices.Equal(found, names) {
		w.Fatalf("found %q, not %q", found, names)
	}
}

func TestCleanRunIsSilent(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		w.engine.SetTrace(trace.Options{API: 1, Spans: 1})
		model := w.load(affine)
		pool := w.pool(model, streaminfer.PoolOptions{Sessions: 4})
		bound := w.bound(model, streaminfer.BoundOptions{})
		var group sync.WaitGroup
		for range 16 {
			group.Go(func() {
				ctx := trace.WithLabel(context.Background(), "worker")
				r := newAffineRequest(1)
				for range 50 {
					if err := pool.Infer(ctx, r.in, r.out); err != nil {
						w.Error(err)
					}
					run := func(ctx context.Context, s *streaminfer.Session) error { return s.Run(ctx) }
					if err := errors.Join(pool.Do(ctx, run), bound.Do(ctx, run)); err != nil {
						w.Error(err)
					}
				}
			})
		}
		group.Wait()
		record := w.traced()
		w.finds(record)
		if record.Counts[trace.Submit] != record.Counts[trace.Wait] || record.Counts[trace.Submit] < 16*150 ||
			record.Counts[trace.CreatePooled] != 6 || record.Process.BoundWorkers != 1 {
			w.Errorf("%v, %+v", record.Counts, record.Process)
		}
		for _, e := range record.Events {
			if e.Kind == trace.Submit && (e.Session == 0 || e.Goroutine == 0 || e.Label != "worker" && e.Label != "" || e.At <= 0) {
				w.Fatalf("%+v", e)
			}
		}
	})
}

func TestTraceIsSampled(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(affine))
		for _, every := range []int{0, 10} {
			w.engine.SetTrace(trace.Options{API: every})
			for range 100 {
				w.ok(s.Run(context.Background()))
			}
		}
		submits := 0
		record := w.traced()
		for _, e := range record.Events {
			if e.Kind == trace.Submit {
				submits++
			}
		}
		if submits != 10 || record.Counts[trace.Submit] != 100 {
			w.Errorf("%d of %v recorded", submits, record.Counts)
		}
	})
}

func TestOverlappingUseIsFound(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		w.engine.SetTrace(trace.Options{API: 100})
		s := w.session(w.load(endless))
		w.ok(s.Submit(context.Background()))
		ended := make(chan error)
		go func() {
			err := s.Wait(context.Background())
			for errors.Is(err, streaminfer.StatusBusy) {
				err = s.Wait(context.Background())
			}
			ended <- err
		}()
		eventually(w, "two calls to meet", func() bool {
			_, err := s.Poll()
			return errors.Is(err, streaminfer.StatusBusy)
		})
		w.ok(s.Cancel())
		<-ended
		w.finds(w.traced(), "overlapping use")
	})
}

func TestUseByANonHolderIsFound(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		background := context.Background()
		for name, plant := range map[string]func(*streaminfer.Pool){
			"after Do": func(pool *streaminfer.Pool) {
				var kept *streaminfer.Session
				w.ok(pool.Do(background, func(_ context.Context, s *streaminfer.Session) error { kept = s; return nil }))
				w.is(kept.Run(background), streaminfer.StatusWrongState)
			},
			"during another's Do": func(pool *streaminfer.Pool) {
				var kept *streaminfer.Session
				var loan context.Context
				w.ok(pool.Do(background, func(ctx context.Context, s *streaminfer.Session) error { kept, loan = s, ctx; return nil }))
				w.ok(pool.Do(background, func(context.Context, *streaminfer.Session) error { return kept.Run(loan) }))
			},
			"on another thread": func(*streaminfer.Pool) {
				bound := w.bound(model, streaminfer.BoundOptions{})
				var kept *streaminfer.Session
				w.ok(bound.Do(background, func(_ context.Context, s *streaminfer.Session) error { kept = s; return nil }))
				w.is(kept.Run(background), streaminfer.StatusWrongThread)
			},
		} {
			w.engine.SetTrace(trace.Options{API: 100})
			before := w.traced().Counts[trace.Foreign]
			plant(w.pool(model, streaminfer.PoolOptions{Sessions: 1, Spares: -1}))
			record := w.traced()
			if record.Counts[trace.Foreign] != before+1 {
				w.Errorf("%s: not seen: %v", name, record.Counts)
			}
			w.finds(record, "use by a non-holder")
		}
	})
}

func TestSessionsPerRequestAreFound(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		w.engine.SetTrace(trace.Options{API: 1})
		model := w.load(affine)
		for range 10 {
			s := w.session(model)
			w.ok(s.Run(context.Background()))
			w.ok(s.Close())
		}
		w.finds(w.traced(), "sessions per request")
	})
}

func TestLeakedSessionsAreFound(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		w.engine.SetTrace(trace.Options{API: 1})
		model := w.load(affine)
		for range 3 {
			w.ok(w.session(model).Run(context.Background()))
		}
		w.settle(0)
		record := w.traced()
		w.finds(record, "leaked sessions")
		if f := trace.Diagnose(record)[0]; !strings.Contains(f.What, "3 sessions") || !strings.Contains(f.What, "worlds_test.go:") {
			w.Error(f)
		}
	})
}

func TestThreadExplosionIsFound(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("threads are counted in /proc")
	}
	inBothWorlds(t, func(w *world) {
		var started, ended sync.WaitGroup
		gate := make(chan struct{})
		for range 100 {
			started.Add(1)
			ended.Go(func() {
				runtime.LockOSThread() // and the thread ends with the goroutine
				started.Done()
				<-gate
			})
		}
		started.Wait()
		w.finds(w.traced(), "thread explosion")
		close(gate)
		ended.Wait()
	})
}

// A slow and a failed request are kept whatever is sampled, with moments in order, on the host's and the device's clock.
func TestSlowAndFailedRequestsAreKept(t *testing.T) {
	run := func(x float32) (float32, error) {
		switch {
		case x == 1:
			time.Sleep(200 * time.Millisecond)
		case x < 0:
			return 0, errPlanted
		}
		return x, nil
	}
	w, pool := fakePool(t, scalars(run), streaminfer.PoolOptions{Sessions: 1, WarmUp: 10})
	w.engine.SetTrace(trace.Options{Spans: 1 << 30})
	for _, x := range []float32{0, 0, 1, 0, -1} {
		_, err := infer(trace.WithLabel(context.Background(), "handler"), pool, x)
		if (err != nil) != (x < 0) {
			w.Fatal(err)
		}
	}
	record := w.traced()
	var slow, failed int
	for _, s := range record.Spans {
		moments := []time.Duration{s.Arrived, s.Acquired, s.Copied, s.Submitted, s.Started, s.Inputs, s.Computed, s.Done, s.Woke, s.Ended}
		switch {
		case s.Label != "handler":
			w.Errorf("%+v", s)
		case s.Error != "":
			failed++
		case s.Computed-s.Inputs >= 200*time.Millisecond:
			slow++
			fallthrough
		default:
			if !slices.IsSorted(moments) {
				w.Errorf("the moments are not in order: %v", moments)
			}
		}
	}
	if failed != 1 || slow != 1 {
		w.Errorf("%d failed, %d slow: %+v", failed, slow, record.Spans)
	}
	w.finds(record, "slow computing")
}

// The library's stamps are on Go's clock: within a tolerance for a look at two clocks.
func TestDeviceStampsAreOnTheHostsClock(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		const tolerance = 100 * time.Microsecond
		w.engine.SetTrace(trace.Options{Spans: 1})
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 1})
		r := newAffineRequest(1)
		for range 20 {
			w.ok(pool.Infer(context.Background(), r.in, r.out))
		}
		spans := w.traced().Spans
		if len(spans) != 20 {
			w.Fatal(len(spans))
		}
		for _, s := range spans {
			if s.Submitted < s.Copied-tolerance || s.Started < s.Submitted || s.Computed < s.Inputs || s.Done < s.Computed ||
				s.Woke < s.Done-tolerance || s.Ended < s.Woke {
				w.Errorf("%+v", s)
			}
		}
	})
}

// Slow and failed requests to a batcher are kept whatever is sampled, and the slow one's cause is found.
func TestBatchedRequestsAreKept(t *testing.T) {
	w, b := fakeBatcher(t, streaminfer.BatcherOptions{Delay: long}, func(x float32) (float32, error) {
		switch {
		case x == 1: // slower than what a busy machine makes of the others
			time.Sleep(250 * time.Millisecond)
		case x < 0:
			return 0, streaminfer.StatusDriver
		}
		time.Sleep(time.Millisecond)
		return x, nil
	})
	w.engine.SetTrace(trace.Options{Spans: 1 << 30, API: 1})
	ctx := trace.WithLabel(context.Background(), "handler")
	for _, x := range []float32{0, 0, 0, 0, 0, 0, 0, 0, 1, -1} {
		if err := inferRows(ctx, b, x); (err != nil) != (x < 0) {
			w.Fatal(err)
		}
	}
	// One that is given up in a batch that forms: alone it does not fill it.
	left, giveUp := context.WithCancel(ctx)
	go func() {
		eventually(w, "a slot", func() bool { stats, _ := b.Stats(); return stats.Slots == 1 })
		giveUp()
	}()
	in, out := [1]float32{}, [1]float32{}
	err := b.Infer(left, []streaminfer.Tensor{streaminfer.NewTensor("x", in[:], 1)}, []streaminfer.Tensor{streaminfer.NewTensor("y", out[:])})
	if !errors.Is(err, context.Canceled) {
		w.Fatal(err)
	}
	record := w.traced()
	var slow, failed []trace.Span
	for _, s := range record.Spans {
		if s.Label != "handler" || s.Arrived <= 0 || s.Ended < s.Arrived {
			w.Errorf("%+v", s)
		}
		if s.Error != "" {
			failed = append(failed, s)
			continue
		}
		moments := []time.Duration{s.Arrived, s.Copied, s.Acquired, s.Submitted, s.Started, s.Inputs, s.Computed, s.Done, s.Woke, s.Ended}
		if s.Rows != 4 || s.BucketRows != 4 || s.Session == 0 || !slices.IsSorted(moments) {
			w.Errorf("%+v", s)
		}
		if s.Batch == 9 && s.Computed-s.Inputs >= time.Second {
			slow = append(slow, s)
		}
	}
	if len(slow) != 1 || len(failed) != 2 {
		w.Fatalf("slow %+v, failed %+v", slow, failed)
	}
	for _, s := range failed { // the batcher is known, and that they had left its queue
		if s.Session != slow[0].Session || s.Batch != 0 || s.Copied == 0 || s.Acquired != s.Copied || s.Acquired >= s.Ended {
			w.Errorf("%+v", s)
		}
	}
	if record.Counts[trace.Infer] != 11 || record.Counts[trace.Submit] != 0 {
		w.Errorf("%v", record.Counts)
	}
	calls := 0
	for _, e := range record.Events {
		if e.Kind == trace.Infer && e.Session != 0 && e.Goroutine != 0 && e.Label == "handler" && e.Took > 0 && (e.Note != "") == (e.Checkout == 0) {
			calls++
		}
	}
	if calls != 11 {
		w.Errorf("%d calls in %+v", calls, record.Events)
	}
	w.finds(record, "slow computing")
	named := func(f trace.Finding) bool { return strings.Contains(f.What, "by handler, in batch 9 of 4 rows") }
	if findings := trace.Diagnose(record); !slices.ContainsFunc(findings, named) {
		w.Error(findings)
	}
	stats, err := b.Stats()
	w.ok(err)
	if spans := stats.Spans; spans.Compute.Count != 9 || spans.Queue.Count != 9 || spans.Wake.Count != 9 {
		w.Errorf("%+v", spans)
	}
}

// Requests of the same batch tell of the same batch, on the host's clock, and a trace shows it once.
func TestBatchStampsAreOnTheHostsClock(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		const tolerance = 100 * time.Microsecond
		w.engine.SetTrace(trace.Options{Spans: 1})
		b := w.batcher(w.batched(1, 4), streaminfer.BatcherOptions{Delay: long})
		for range 10 {
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() { w.ok(inferAffine(context.Background(), b, 1)) })
			}
			group.Wait()
		}
		record := w.traced()
		batches := map[uint64][]trace.Span{}
		for _, s := range record.Spans {
			if s.Error != "" {
				continue // overtaken, and tried again
			}
			batches[s.Batch] = append(batches[s.Batch], s)
			if s.Rows != 4 || s.BucketRows != 4 || s.Copied < s.Arrived || s.Acquired < s.Copied-tolerance || s.Submitted < s.Acquired-tolerance ||
				s.Started < s.Submitted || s.Computed < s.Inputs || s.Done < s.Computed || s.Woke < s.Done-tolerance || s.Ended < s.Woke {
				w.Errorf("%+v", s)
			}
		}
		if len(batches) != 10 {
			w.Fatalf("%d batches", len(batches))
		}
		for number, spans := range batches {
			for _, s := range spans {
				if len(spans) != 4 || s.Done != spans[0].Done || s.Submitted != spans[0].Submitted || s.Session != spans[0].Session {
					w.Errorf("batch %d: %+v", number, spans)
				}
			}
		}
		var file bytes.Buffer
		w.ok(record.Write(&file))
		var chrome struct {
			TraceEvents []struct{ Name, Cat, Ph string }
		}
		w.ok(json.Unmarshal(file.Bytes(), &chrome))
		counts := map[string]int{}
		for _, e := range chrome.TraceEvents {
			counts[e.Cat+" "+e.Name+" "+e.Ph]++
		}
		for name, want := range map[string]int{"batched request b": 40, "batched queue b": 40, "batched wake e": 40, "batch batch 7 b": 1, "batch compute b": 10} {
			if counts[name] != want {
				w.Errorf("%d of %q, not %d: %v", counts[name], name, want, counts)
			}
		}
	})
}

func TestTraceFile(t *testing.T) {
	t.Setenv("STREAMINFER_TRACE", "api=full")
	path := filepath.Join(t.TempDir(), "trace.json")
	t.Setenv("STREAMINFER_TRACE_FILE", path)
	w, pool := fakePool(t, scalars(func(x float32) (float32, error) { return x, nil }), streaminfer.PoolOptions{Sessions: 2})
	w.engine.SetTrace(trace.Options{API: 1, Spans: 1})
	for range 5 {
		_, err := infer(context.Background(), pool, 1)
		w.ok(err)
	}
	want := w.traced()
	w.ok(w.engine.Close())
	data, err := os.ReadFile(path)
	w.ok(err)
	read, err := trace.Read(bytes.NewReader(data))
	w.ok(err)
	if len(read.Spans) != 5 || !slices.Equal(read.Spans, want.Spans) || !slices.Equal(read.Events, want.Events) {
		w.Errorf("read %d spans and %d events of %d and %d", len(read.Spans), len(read.Events), len(want.Spans), len(want.Events))
	}
	var chrome struct {
		TraceEvents []struct {
			Name, Ph string
			TS, Dur  float64
		}
	}
	w.ok(json.Unmarshal(data, &chrome))
	counts := map[string]int{}
	for _, e := range chrome.TraceEvents {
		counts[e.Name+"/"+e.Ph]++
	}
	for name, want := range map[string]int{"request/X": 5, "compute/X": 5, "wake/X": 5, "queue/b": 5, "queue/e": 5, "create pooled/X": 3} {
		if counts[name] != want {
			w.Errorf("%d of %s, not %d", counts[name], name, want)
		}
	}
	t.Setenv("STREAMINFER_TRACE", "everything")
	if _, err := streaminfer.Open(streaminfer.EngineOptions{}); !errors.Is(err, streaminfer.StatusInvalidArgument) {
		t.Error(err)
	}
}

// The labels are the goroutine's while it is in the pool, then those of its context.
func TestProfileLabels(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 1, Name: "suite", ProfileLabels: true})
		profile := func() string {
			var text strings.Builder
			w.ok(pprof.Lookup("goroutine").WriteTo(&text, 1))
			return text.String()
		}
		const inPool, own = `{"streaminfer_pool":"suite"}`, `{"handler":"h"}`
		pprof.Do(context.Background(), pprof.Labels("handler", "h"), func(ctx context.Context) {
			w.ok(pool.Do(ctx, func(context.Context, *streaminfer.Session) error {
				if text := profile(); !strings.Contains(text, inPool) || strings.Contains(text, own) {
					w.Errorf("inside: %s", text)
				}
				return nil
			}))
			if text := profile(); strings.Contains(text, inPool) || !strings.Contains(text, own) {
				w.Errorf("outside: %s", text)
			}
		})
	})
}

func TestProfileLabelsDoNotAllocate(t *testing.T) {
	if isInstrumented {
		t.Skip("instrumented programs allocate")
	}
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 1, Name: "suite", ProfileLabels: true})
		r := newAffineRequest(1)
		if allocations := testing.AllocsPerRun(200, func() { w.ok(pool.Infer(context.Background(), r.in, r.out)) }); allocations != 0 {
			w.Errorf("%v allocations", allocations)
		}
	})
}
