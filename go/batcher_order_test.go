package streaminfer

import "testing"

// Rows that are given back between a request's attempt and its place in the queue are not missed: nobody would wake it.
func TestRowsGivenBackMeanwhileAreNotMissed(t *testing.T) {
	b := &Batcher{options: BatcherOptions{QueueMax: 2}}
	tickets := [3]*ticket{}
	for i := range tickets {
		tickets[i] = &ticket{batcher: b, number: uint64(i), turn: make(chan struct{}, 1)}
	}
	vacated, isFirst := b.look(tickets[0])
	b.vacate()
	if queued, err := b.enqueue(tickets[0], "infer", vacated, isFirst); queued || err != nil || !isFirst {
		t.Errorf("queued %v, %v", queued, err)
	}
	vacated, isFirst = b.look(tickets[0])
	if queued, err := b.enqueue(tickets[0], "infer", vacated, isFirst); !queued || err != nil {
		t.Errorf("not queued, %v", err)
	}
	// Who is not the first is woken by the first, whatever has been given back.
	vacated, isFirst = b.look(tickets[1])
	b.vacate()
	if queued, err := b.enqueue(tickets[1], "infer", vacated, isFirst); !queued || err != nil || isFirst {
		t.Errorf("queued %v, %v", queued, err)
	}
	if queued, err := b.enqueue(tickets[2], "infer", b.vacated, false); queued || err == nil {
		t.Error("one more than may wait is queued")
	}
	for i, turns := range []int{1, 0} {
		if len(tickets[i].turn) != turns {
			t.Errorf("%d turns for ticket %d", len(tickets[i].turn), i)
		}
	}
	b.leaveQueue(tickets[0])
	if len(tickets[0].turn) != 0 || len(tickets[1].turn) != 1 {
		t.Error("the turn has not passed on")
	}
}
