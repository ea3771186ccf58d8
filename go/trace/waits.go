package trace

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// part is a stage of a request in which time can be lost.
type part struct {
	name, change string
	took         func(*Span) time.Duration
}

var parts = []part{
	{"copying inputs", "Write in place with Pool.Do, or hand over less", func(s *Span) time.Duration { return ready(s) - s.Acquired }},
	{"submitting", "The device had no permit left or the call was descheduled: fewer sessions over all pools, or fewer busy threads",
		func(s *Span) time.Duration { return s.Submitted - ready(s) }},
	{"waiting for the device", "More requests are on the device than it runs at once: fewer sessions, so that they queue by deadline",
		func(s *Span) time.Duration { return s.Started - s.Submitted }},
	{"moving inputs", "Smaller inputs, or a model that takes them in a smaller type", func(s *Span) time.Duration { return s.Inputs - s.Started }},
	{"computing", "The device is shared or slowed: other processes, throttling, more sessions than processors",
		func(s *Span) time.Duration { return s.Computed - s.Inputs }},
	{"moving outputs", "Smaller outputs: let the model reduce them", func(s *Span) time.Duration { return s.Done - s.Computed }},
	{"waking up", "The goroutine was runnable and found no processor: fewer busy goroutines, garbage collections or processes on these processors",
		func(s *Span) time.Duration { return s.Woke - s.Done }},
	{"copying outputs", "Read in place with Pool.Do, or ask for fewer outputs", func(s *Span) time.Duration { return s.Ended - s.Woke }},
}

// ready is when the inputs were in place and the request could be submitted. A batched request copies while it is still queueing.
func ready(s *Span) time.Duration { return max(s.Copied, s.Acquired) }

// waits finds requests that took longer than their queueing and usual service explain, and in which part they did.
func waits(t *Trace) []Finding {
	var normal, slow []*Span
	for k := range t.Spans {
		switch s := &t.Spans[k]; {
		case s.Woke == 0 || s.Service == 0 || s.Error != "":
		case excess(s) > slackMax:
			slow = append(slow, s)
		default:
			normal = append(normal, s)
		}
	}
	usual := medians(normal)
	counts, worst := make([]int, len(parts)), make([]*Span, len(parts))
	for _, s := range slow {
		cause, lost := 0, time.Duration(-1)
		for i := range parts {
			if more := parts[i].took(s) - usual[i]; more > lost {
				cause, lost = i, more
			}
		}
		counts[cause]++
		if worst[cause] == nil || excess(s) > excess(worst[cause]) {
			worst[cause] = s
		}
	}
	var findings []Finding
	for i, count := range counts {
		if count == 0 {
			continue
		}
		w := worst[i]
		findings = append(findings, Finding{Problem, "slow " + parts[i].name,
			fmt.Sprintf("%d of %d recorded requests took over %v longer than queue and service time, most of it %s; the worst %v (%v of it there, usually %v)%s",
				count, len(normal)+len(slow), slackMax, parts[i].name, excess(w), parts[i].took(w), usual[i], by(w)), parts[i].change})
	}
	sort.SliceStable(findings, func(i, j int) bool { return findings[i].What > findings[j].What })
	return findings
}

// medians of what each part takes, 0 if there are no spans.
func medians(spans []*Span) []time.Duration {
	usual := make([]time.Duration, len(parts))
	if len(spans) == 0 {
		return usual
	}
	all := make([]time.Duration, len(spans))
	for i := range parts {
		for k, s := range spans {
			all[k] = parts[i].took(s)
		}
		slices.Sort(all)
		usual[i] = all[len(all)/2]
	}
	return usual
}

// by says whose request it was, and which batch it ran in.
func by(s *Span) (text string) {
	if s.Label != "" {
		text = ", by " + s.Label
	}
	if s.Batch != 0 {
		text += fmt.Sprintf(", in batch %d of %d rows", s.Batch, s.Rows)
	}
	return text
}

// excess is the time that neither the queue nor the bucket's usual service time explains.
func excess(s *Span) time.Duration { return s.Ended - s.Acquired - s.Service }
