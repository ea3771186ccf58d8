package main

import (
	"fmt"
	"os"
	"sync"
	"text/tabwriter"

	"github.com/streaminfer/streaminfer/examples/go/magika"
)

// nameFiles lets four goroutines, each with a session of its own, name the types of files.
func (s *stage) nameFiles(files []string) error {
	const goroutines = 4
	fmt.Printf("\nWHAT ARE THESE FILES? Magika looks at their bytes, not at their names; %d goroutines ask it.\n\n", goroutines)
	type answer struct {
		verdict   magika.Verdict
		goroutine int
		err       error
	}
	answers := make([]answer, len(files))
	next := make(chan int)
	var group sync.WaitGroup
	for goroutine := range goroutines {
		detector, err := magika.NewDetector(s.types, s.rules)
		if err != nil {
			return err
		}
		defer detector.Close()
		group.Go(func() {
			for i := range next {
				verdict, err := detector.File(s.ctx, files[i])
				answers[i] = answer{verdict, goroutine, err}
			}
		})
	}
	for i := range files {
		next <- i
	}
	close(next)
	group.Wait()

	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "  FILE\tTYPE\t\tSCORE\tGOROUTINE")
	for i, a := range answers {
		if a.err != nil {
			fmt.Fprintf(table, "  %s\t%v\n", files[i], a.err)
			continue
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%.2f\t%d\n", files[i], a.verdict.Label, a.verdict.Description, a.verdict.Score, a.goroutine)
	}
	return table.Flush()
}
