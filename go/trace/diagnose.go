package trace

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Severity says how a finding is to be taken.
type Severity int

const (
	// Note: worth knowing, nothing to mend.
	Note Severity = iota
	// Problem: it costs latency, memory or correctness.
	Problem
)

// Finding is one thing that Diagnose has found.
type Finding struct {
	// Severity says whether there is something to mend.
	Severity Severity
	// Name is short and always the same for the same kind of finding, such as "overlapping use".
	Name string
	// What happened, and what to Change.
	What, Change string
}

// String returns the finding as a paragraph.
func (f Finding) String() string {
	kind := "note"
	if f.Severity == Problem {
		kind = "PROBLEM"
	}
	return fmt.Sprintf("%s: %s: %s. %s", kind, f.Name, f.What, f.Change)
}

// The bounds from which on something is a finding.
const (
	// slackMax is what a request may take beyond its queueing and its bucket's usual service time.
	slackMax = 500 * time.Microsecond
	// A service that makes createdMin sessions or more and runs fewer than requestsMin requests on each makes one per request.
	createdMin, requestsMin = 8, 10
	// threadsOther is what Go and the C library may have besides processors, the library's threads and bound workers.
	threadsOther = 16
)

// Diagnose reports what a trace shows, problems first. An empty result means that it shows nothing wrong.
func Diagnose(t *Trace) []Finding {
	var findings []Finding
	for _, detect := range []func(*Trace) []Finding{overlaps, foreigners, waits, creates, leaks, pageable, threads, throttling, migrations} {
		findings = append(findings, detect(t)...)
	}
	sort.SliceStable(findings, func(i, j int) bool { return findings[i].Severity > findings[j].Severity })
	return findings
}

func of(t *Trace, kind Kind) (events []Event) {
	for _, e := range t.Events {
		if e.Kind == kind {
			events = append(events, e)
		}
	}
	return events
}

// where names the places at which events happened, the most frequent first.
func where(events []Event) string {
	counts := map[string]int{}
	for _, e := range events {
		place := e.Label
		if place == "" {
			place = fmt.Sprintf("thread %d", e.Thread)
		}
		counts[place]++
	}
	places := make([]string, 0, len(counts))
	for place := range counts {
		places = append(places, place)
	}
	sort.Slice(places, func(i, j int) bool {
		return counts[places[i]] > counts[places[j]] || counts[places[i]] == counts[places[j]] && places[i] < places[j]
	})
	if len(places) > 3 {
		places = append(places[:3], "others")
	}
	return strings.Join(places, ", ")
}

func overlaps(t *Trace) []Finding {
	events := of(t, Overlap)
	if len(events) == 0 {
		return nil
	}
	e := events[0]
	return []Finding{{Problem, "overlapping use",
		fmt.Sprintf("%d calls found another goroutine in a call on the same session, first session %d at %v (%s)", t.Counts[Overlap],
			e.Session, e.At, where(events)),
		"A session serves one goroutine at a time: give each worker its own, or lend them from a Pool"}}
}

func foreigners(t *Trace) []Finding {
	events := of(t, Foreign)
	if len(events) == 0 {
		return nil
	}
	e := events[0]
	return []Finding{{Problem, "use by a non-holder",
		fmt.Sprintf("%d calls came from somebody who did not hold the session, first session %d at %v (%s; %s)", t.Counts[Foreign],
			e.Session, e.At, where(events), e.Note),
		"Do not keep a session or its views after the function of Pool.Do or Bound.Do has returned, nor use a bound one elsewhere"}}
}

// creates finds sessions made per request.
func creates(t *Trace) []Finding {
	created, gone, submitted := t.Counts[Create], t.Counts[Close]+t.Counts[Leaked], t.Counts[Submit]
	if created < createdMin || gone < created/2 || submitted >= created*requestsMin {
		return nil
	}
	return []Finding{{Problem, "sessions per request",
		fmt.Sprintf("%d sessions were made for %d requests (%s)", created, submitted, where(of(t, Create))),
		"Making one takes memory, threads and a replay, far longer than a request: make them once, with a Pool"}}
}

func leaks(t *Trace) []Finding {
	events := of(t, Leaked)
	if len(events) == 0 {
		return nil
	}
	made := map[uint64]Event{}
	for _, e := range append(of(t, Create), of(t, CreatePooled)...) {
		made[e.Session] = e
	}
	var sources []Event
	for _, e := range events {
		if source, ok := made[e.Session]; ok {
			sources = append(sources, source)
		}
	}
	what := fmt.Sprintf("%d sessions were forgotten without Close", t.Counts[Leaked])
	if len(sources) > 0 {
		what += ", made at " + where(sources)
	}
	return []Finding{{Problem, "leaked sessions", what,
		"The garbage collector does not see how much memory a session has and may come late: close each when done with it"}}
}

func threads(t *Trace) []Finding {
	p := t.Process
	most := p.GoMaxProcs + p.EngineThreads + p.BoundWorkers + threadsOther
	if p.Threads <= most {
		return nil
	}
	return []Finding{{Problem, "thread explosion",
		fmt.Sprintf("the process has %d threads, where %d processors, %d of the library and %d bound workers explain %d", p.Threads,
			p.GoMaxProcs, p.EngineThreads, p.BoundWorkers, most),
		"Goroutines that block in C or in system calls take a thread each, which Go keeps: bound them before the call"}}
}

func throttling(t *Trace) []Finding {
	p := t.Process
	if p.ThrottledPeriods == 0 {
		return nil
	}
	return []Finding{{Problem, "CPU throttling",
		fmt.Sprintf("the control group's CPU quota stopped the process for %v in %d periods", p.Throttled, p.ThrottledPeriods),
		"Set GOMAXPROCS, and the sessions' threads, so that together they fit the quota; or raise the quota, or drop the limit"}}
}

// migrations notes sessions that changed threads without anything being wrong.
func migrations(t *Trace) []Finding {
	thread, moved := map[uint64]int{}, map[uint64]bool{}
	for _, e := range t.Events {
		if e.Kind != Submit || e.Thread == 0 {
			continue
		}
		if last, ok := thread[e.Session]; ok && last != e.Thread {
			moved[e.Session] = true
		}
		thread[e.Session] = e.Thread
	}
	if len(moved) == 0 {
		return nil
	}
	return []Finding{{Note, "sessions change threads",
		fmt.Sprintf("%d of %d sessions were used from more than one thread, one after the other", len(moved), len(thread)),
		"That is how goroutines are. On a GPU a Bound worker saves the device's context switch, if its work is several calls"}}
}
