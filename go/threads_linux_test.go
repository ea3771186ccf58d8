package streaminfer_test

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// Ten thousand goroutines that wait for requests cost no threads: counted in a process of its own, since Go keeps the
// threads that other tests needed.
func TestThreadsAreBounded(t *testing.T) {
	if os.Getenv("STREAMINFER_TEST_THREADS") == "1" {
		countThreads(t)
		return
	}
	openLibrary(t).Close() // or skip
	command := exec.Command(os.Args[0], "-test.run=^TestThreadsAreBounded$", "-test.v")
	command.Env = append(os.Environ(), "STREAMINFER_TEST_THREADS=1")
	output, err := command.CombinedOutput()
	t.Logf("%s", output)
	if err != nil {
		t.Fatal(err)
	}
}

func countThreads(t *testing.T) {
	const goroutines, rounds, sessions, workers, other = 10_000, 3, 8, 4, 16
	engine := openLibrary(t)
	defer engine.Close()
	w := &world{T: t, engine: engine}
	model := w.load(affine)
	pool := w.pool(model, streaminfer.PoolOptions{Sessions: sessions, QueueMax: goroutines})
	most, stop, counted := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(counted)
		for {
			tasks, err := os.ReadDir("/proc/self/task")
			if err != nil {
				t.Error(err)
			}
			most = max(most, len(tasks))
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	var group sync.WaitGroup
	for range workers {
		b := w.bound(model, streaminfer.BoundOptions{})
		for range 100 {
			group.Go(func() {
				run := func(ctx context.Context, s *streaminfer.Session) error { return s.Run(ctx) }
				if err := b.Do(context.Background(), run); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for range goroutines {
		group.Go(func() {
			r := newAffineRequest(1)
			for range rounds {
				r.randomize()
				if err := pool.Infer(context.Background(), r.in, r.out); err != nil || !r.right() {
					t.Error(err, r.y)
				}
			}
		})
	}
	group.Wait()
	close(stop)
	<-counted
	stats, err := engine.Stats()
	w.ok(err)
	bound := runtime.GOMAXPROCS(0) + stats.Threads + workers + other
	t.Logf("%d threads, at most %d are allowed; %d requests waited at once", most, bound, pool.Stats().QueuedMax)
	if most > bound {
		t.Errorf("%d threads, more than %d", most, bound)
	}
}
