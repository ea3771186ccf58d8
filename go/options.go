package streaminfer

import (
	"math"
	"strings"
)

// option is a count among the options of something that is made.
type option struct {
	name  string
	count int
}

// checkCounts refuses counts below zero, and those that the library's 32 bits do not hold.
func checkCounts(op string, options ...option) error {
	for _, o := range options {
		if o.count < 0 || int64(o.count) > math.MaxUint32 {
			return refusal(op, StatusInvalidArgument, "the option %s cannot be %d", o.name, o.count)
		}
	}
	return nil
}

// checkText refuses what C would take for something shorter.
func checkText(op, name, text string) error {
	if strings.IndexByte(text, 0) >= 0 {
		return refusal(op, StatusInvalidArgument, "the option %s contains a zero byte: %q", name, text)
	}
	return nil
}

// check refuses a rule that there is not.
func (a Admission) check(op string) error {
	if a > AdmitAll {
		return refusal(op, StatusInvalidArgument, "the option Admission cannot be %d", a)
	}
	return nil
}
