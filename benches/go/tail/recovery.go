package main

import (
	"cmp"
	"slices"
	"time"
)

// After an overload, seconds that are watched, and the requests of which each window of them has. A window is normal if nobody in it
// is refused and nine tenths of it are no later than the P99 before the overload; so many in a row are the end of it.
const (
	recoveryMax   = 6
	windowSize    = 100
	windowsInARow = 3
	normalLoad    = 0.5
)

// recover goes from half the peak to the cell's load, as long as a cell lasts, and back.
func (l *traffic) recover(r *result) error {
	over, normal := l.phases[0].rate, normalLoad*l.phases[0].rate/l.Load
	first, second := l.duration, 2*l.duration
	l.phases = []phase{{normal, l.duration}, {over, l.duration}, {normal, time.Hour}}
	l.duration, l.samples, l.traced = second+recoveryMax*time.Second, 0, true
	got, err := l.run()
	if err != nil {
		return err
	}
	r.fill(got)
	slices.SortFunc(got.moments, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	var before []time.Duration
	var after []moment
	for _, m := range got.moments {
		switch {
		case m.at < first && m.isGood:
			before = append(before, m.took)
		case m.at > second:
			after = append(after, m)
		}
	}
	seconds := -1.0
	if len(before) > 0 {
		slices.Sort(before)
		usual := before[len(before)*99/100]
		r.Normal = micros(usual)
		if at, ok := normalFrom(after, usual); ok {
			seconds = (at - second).Seconds()
		}
	}
	r.Recovery = &seconds
	return nil
}

// normalFrom is the moment from which on several windows in a row are normal.
func normalFrom(after []moment, usual time.Duration) (from time.Duration, ok bool) {
	row := 0
	for window := range slices.Chunk(after, windowSize) {
		if len(window) < windowSize || !isNormal(window, usual) {
			row = 0
			continue
		}
		if row++; row == 1 {
			from = window[0].at
		}
		if row == windowsInARow {
			return from, true
		}
	}
	return 0, false
}

func isNormal(window []moment, usual time.Duration) bool {
	late := 0
	for _, m := range window {
		if !m.isGood {
			return false
		}
		if m.took > usual {
			late++
		}
	}
	return late <= len(window)/10
}
