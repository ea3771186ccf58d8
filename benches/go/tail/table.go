package main

import (
	"fmt"
	"io"
)

func heading(text io.Writer) {
	fmt.Fprintf(text, "%-9s %-8s %-13s %10s %9s %10s %10s %10s %10s %11s\n", "model", "way", "loop", "goroutines", "n", "requests/s",
		"P50 us", "P99 us", "P99.9 us", "max us")
}

func number(value float64) string {
	if value == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", value)
}

func row(text io.Writer, r *result) {
	loop := r.Loop
	if r.Load > 0 {
		loop += fmt.Sprintf(" %.0f%%", 100*r.Load)
	}
	fmt.Fprintf(text, "%-9s %-8s %-13s %10d %9d %10.0f %10s %10s %10s %11s", r.Model, r.Way, loop, r.Goroutines, r.N, r.Rate,
		number(r.P50), number(r.P99), number(r.P999), number(r.Max))
	if r.Deadline > 0 {
		fmt.Fprintf(text, "  in time; %d refused on arrival, P99 of that %s us; %d when they had waited, %s us; %d failed", r.Refused,
			number(r.RefusedP99), r.Expired, number(r.ExpiredP99), r.Failed)
	}
	if r.Recovery != nil {
		fmt.Fprintf(text, "; normal again after %.2f s", *r.Recovery)
	}
	if r.Batch != nil {
		fmt.Fprintf(text, "  %.1f rows a batch, most in %d, which takes %.0f us", r.Batch.RowsMean, r.Batch.Modal, r.Batch.Service)
	}
	fmt.Fprintln(text)
}

// figure has three digits.
func figure(value float64) string {
	if value >= 100 {
		return fmt.Sprintf("%.0f", value)
	}
	return fmt.Sprintf("%.3g", value)
}

// claim is something that is asked of the figures.
type claim struct {
	what, asked string
	got         float64
	unit        string
	holds       bool
}

// claims compares the figures that there are with what is asked of them.
func claims(o *options, had map[cell]result, model string) (all []claim) {
	find := func(way, loop string, load float64, goroutines int) *result {
		var found *result
		for c, r := range had {
			if c.Model == model && c.settings == o.settings() && c.Way == way && c.Loop == loop && c.Load == load &&
				c.Goroutines == goroutines && (loop != "open" || (c.Deadline > 0) == (load > 1)) && (found == nil || c.Samples > found.Samples) {
				found = &r
			}
		}
		return found
	}
	most := func(what string, top, bottom, limit float64, unit string) {
		if top > 0 && bottom > 0 {
			all = append(all, claim{what, fmt.Sprintf("<= %g", limit), top / bottom, unit, top/bottom <= limit})
		}
	}
	least := func(what string, top, bottom, limit float64) {
		if top > 0 && bottom > 0 {
			all = append(all, claim{what, fmt.Sprintf(">= %g", limit), top / bottom, "", top/bottom >= limit})
		}
	}
	pool, bound, one := find("pool", "closed", 0, 16), find("bound", "closed", 0, 16), find("pool", "closed", 0, 1)
	if pool != nil {
		most("pool, 16 goroutines: P99 / P50", pool.P99, pool.P50, 1.3, "")
	}
	if pool != nil && bound != nil {
		most("pool, 16 goroutines: P50 / bound's P50", pool.P50, bound.P50, 1.05, "")
		least("pool, 16 goroutines: requests/s / bound's", pool.Rate, bound.Rate, 0.95)
	}
	if open := find("pool", "open", 0.8, 1024); open != nil && one != nil {
		most("pool at 80 % of its peak: P99 / P50 of one goroutine", open.P99, one.P50, 3, "")
	}
	if open := find("batch", "open", 0.8, 1024); open != nil && open.Batch != nil {
		most("batch at 80 % of its peak: P99 / service time of the modal bucket", open.P99, open.Batch.Service, 3, "")
	}
	for _, way := range []string{"pool", "batch"} {
		if over := find(way, "open", 2, 1024); over != nil {
			least(way+" at twice its peak: in time / peak", over.Rate, peak(had, over.cell), 0.9)
			most(way+" at twice its peak: P99 of a refusal on arrival", over.RefusedP99, 1, 1000, " us")
		}
	}
	for _, way := range []string{"pool", "batch"} {
		if after := find(way, "recovery", 2, 1024); after != nil && after.Recovery != nil {
			got := *after.Recovery
			all = append(all, claim{way + " after twice its peak: normal again", "<= 5", got, " s", got >= 0 && got <= 5})
		}
	}
	return all
}

// summary sets each figure beside what is asked of it.
func summary(text io.Writer, o *options, had map[cell]result) {
	for _, model := range []string{"bert-base", "minilm", "mlp"} {
		all := claims(o, had, model)
		if len(all) == 0 {
			continue
		}
		fmt.Fprintf(text, "\n%-68s %10s %12s %6s\n", model+" on "+o.device+", "+o.precision, "asked", "got", "holds")
		for _, c := range all {
			holds := "no"
			if c.holds {
				holds = "yes"
			}
			fmt.Fprintf(text, "%-68s %10s %12s %6s\n", c.what, c.asked, figure(c.got)+c.unit, holds)
		}
	}
}
