package streaminfer

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// place decides the order in a queue: what is due first, then what came first. deadline is 0 for a request that has none.
type place struct {
	due, deadline time.Duration
	number        uint64
}

func (p *place) where() *place { return p }

// dueAt is a deadline by a clock that shows now; one that is too far off for the clock is the last there is.
func dueAt(now time.Duration, deadline time.Time) time.Duration {
	return now + min(time.Until(deadline), math.MaxInt64-now)
}

// compare is below 0 if p comes after other, whose place is nearer to the end.
func (p *place) compare(other *place) int {
	return cmp.Or(cmp.Compare(other.due, p.due), cmp.Compare(other.number, p.number))
}

// queue has what waits in the order in which it is due, the first at the end, where it is taken from.
type queue[T interface{ where() *place }] []T

// at returns where a place is, or where it belongs.
func (q queue[T]) at(p *place) (index int, found bool) {
	return slices.BinarySearchFunc(q, p, func(t T, p *place) int { return t.where().compare(p) })
}

func (q *queue[T]) push(t T) {
	at, _ := q.at(t.where())
	*q = slices.Insert(*q, at, t)
}

// remove takes t out, if it is there.
func (q *queue[T]) remove(t T) (found bool) {
	at, found := q.at(t.where())
	if found {
		*q = slices.Delete(*q, at, at+1)
	}
	return found
}

func (q queue[T]) first() T { return q[len(q)-1] }
