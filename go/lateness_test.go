package streaminfer

import (
	"testing"
	"time"
)

// queueOf is a pool of two busy lanes, free in 4 and 6 ms, and a queue of requests of 10 ms with the given deadlines.
func queueOf(deadlines ...time.Duration) (*Pool, *poolBucket) {
	bucket := &poolBucket{service: 10 * time.Millisecond}
	p := &Pool{options: PoolOptions{Sessions: 2}, busy: 2}
	for _, left := range []time.Duration{4, 6} {
		l := &lane{since: 0, expected: left * time.Millisecond}
		l.heldBy.Store(1)
		p.lanes = append(p.lanes, l)
	}
	for i, deadline := range deadlines {
		w := &waiter{bucket: bucket, place: place{due: deadline * time.Millisecond, deadline: deadline * time.Millisecond, number: uint64(i)}}
		p.queue.push(w)
	}
	return p, bucket
}

func TestLateness(t *testing.T) {
	for name, test := range map[string]struct {
		queue    []time.Duration
		deadline time.Duration
		want     time.Duration
	}{
		"nobody waits, in time":                    {nil, 20, 0},                     // 4 ms, and 15 for itself and the margin
		"nobody waits, late":                       {nil, 18, 1},                     // 19
		"behind two":                               {[]time.Duration{30, 31}, 40, 0}, // 4 + 2 * 10 / 2 + 15 = 29
		"behind two, late":                         {[]time.Duration{20, 25}, 26, 3},
		"overtakes one that has time":              {[]time.Duration{40}, 20, 0},
		"overtakes one that has none":              {[]time.Duration{40, 23, 22}, 21, 1}, // 4 + 5 + 10, and 5 more, is 24
		"overtakes one that will be late anyway":   {[]time.Duration{40, 22, 13}, 12, 7}, // its own lateness
		"counts those that are late":               {[]time.Duration{13}, 20, 4},         // 4 + 5 + 15: until its turn comes nobody knows
		"overtakes those that have no deadline":    {nil, 30, 0},
		"equal deadlines stay in order of arrival": {[]time.Duration{24, 24}, 24, 5},
	} {
		p, bucket := queueOf(test.queue...)
		if name == "overtakes those that have no deadline" {
			for i := range 100 {
				p.queue.push(&waiter{bucket: bucket, place: place{due: time.Second, number: uint64(i)}})
			}
		}
		got := p.lateness(bucket, 0, test.deadline*time.Millisecond, false)
		if got != test.want*time.Millisecond {
			t.Errorf("%s: %v, not %v ms", name, got, int(test.want))
		}
	}
	p, bucket := queueOf()
	if got := p.lateness(bucket, 0, 10*time.Millisecond, true); got != 0 {
		t.Error("with a free lane:", got)
	}
	if got := p.lateness(bucket, 0, 9*time.Millisecond, true); got != time.Millisecond {
		t.Error("with a free lane, late:", got)
	}
}

// An estimate that keeps a free lane idle is put to the test when it is old: one request at a time, and not for longer than lanes idle.
func TestOldEstimateIsPutToTheTest(t *testing.T) {
	const ms = time.Millisecond
	p, bucket := queueOf()
	p.busy, p.idle, bucket.told = 1, p.lanes[:1], 1000*ms
	for _, step := range []struct {
		now, left time.Duration
		free      bool
		want      bool
	}{
		{1001, 9, true, false}, // the estimate is fresh
		{1099, 9, true, false},
		{1100, 9, false, false}, // nobody knows what the busy lanes are at
		{1100, 9, true, true},
		{1101, 9, true, false}, // it has been let through just now
		{1199, 1, true, false},
		{1200, 9, true, true},
	} {
		p.busy = 1
		if !step.free {
			p.busy = 2
		}
		isProbe, over, refused := p.admit(bucket, step.now*ms, (step.now+step.left)*ms)
		if isProbe != step.want || (refused == nil) != step.want || (over > 0) == step.want {
			t.Errorf("after %d ms: probe %v, over by %v, %v", step.now, isProbe, over, refused)
		}
	}
	// One with a second's time takes a lane for as long, so it comes at most every other second.
	bucket.service, bucket.told, p.busy = 2000*ms, 2000*ms, 1
	if isProbe, _, refused := p.admit(bucket, 2900*ms, 3900*ms); isProbe || refused != ErrDeadline {
		t.Error("a long request was let through after 900 ms")
	}
	if isProbe, _, _ := p.admit(bucket, 3000*ms, 4000*ms); !isProbe {
		t.Error("a long request was not let through after a second")
	}
	if isProbe, over, refused := p.admit(bucket, 3000*ms, 6000*ms); isProbe || over > 0 || refused != nil {
		t.Error("one that is in time is no probe")
	}
}

func TestWaitersKeepTheirOrder(t *testing.T) {
	var q queue[*waiter]
	var all []*waiter
	for i, due := range []time.Duration{5, 1, 3, 1, 9, 3} {
		w := &waiter{place: place{due: due, number: uint64(i)}}
		all = append(all, w)
		q.push(w)
	}
	q.remove(all[2])
	q.remove(all[4])
	for _, want := range []int{1, 3, 5, 0} {
		first := q.first()
		if first != all[want] {
			t.Fatalf("first is number %d, not %d", first.number, want)
		}
		q.remove(first)
	}
	if len(q) != 0 {
		t.Error(len(q))
	}
}
