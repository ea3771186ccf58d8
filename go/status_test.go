package streaminfer_test

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

var (
	goStatus = regexp.MustCompile(`(?m)^\tStatus(\w+) +Status = (\d+)$`)
	cStatus  = regexp.MustCompile(`(?m)^#define (SI_\w+) (\d+)$`)
	statuses = regexp.MustCompile(`(?s)\nconst char \*si_status_name`)
)

// Every failure of the header is a Status of the same name and number, and the other way round.
func TestStatusesAreTheHeaders(t *testing.T) {
	source, err := os.ReadFile("status.go")
	if err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile("internal/capi/streaminfer.h")
	if err != nil {
		t.Fatal(err)
	}
	squeeze := func(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }
	inGo := map[string]int{}
	for _, match := range goStatus.FindAllStringSubmatch(string(source), -1) {
		inGo[squeeze(match[1])], _ = strconv.Atoi(match[2])
	}
	// The statuses stand before si_status_name, and start with SI_OK.
	section := string(header[:statuses.FindIndex(header)[0]])
	section = section[strings.Index(section, "#define SI_OK "):]
	failures := 0
	for _, match := range cStatus.FindAllStringSubmatch(section, -1) {
		name, number := squeeze(strings.TrimPrefix(match[1], "SI_")), match[2]
		code, _ := strconv.Atoi(number)
		if code < 100 || name == "errormessagebytes" {
			continue
		}
		failures++
		if inGo[name] != code {
			t.Errorf("%s is %d in C and %d in Go", match[1], code, inGo[name])
		}
		if text := streaminfer.Status(code).String(); strings.HasPrefix(text, "status ") {
			t.Errorf("%s has no name in Go", match[1])
		}
	}
	if failures != len(inGo) || failures < 30 {
		t.Errorf("%d failures in C, %d in Go", failures, len(inGo))
	}
}

func TestErrorsMatchByStatus(t *testing.T) {
	var err error = &streaminfer.Error{Op: "run", Status: streaminfer.StatusAgain, Message: "all permits are out"}
	if !errors.Is(err, streaminfer.StatusAgain) || errors.Is(err, streaminfer.StatusBusy) {
		t.Error("errors.Is does not go by status")
	}
	if want := "streaminfer: run: all permits are out (again)"; err.Error() != want {
		t.Errorf("%q, not %q", err, want)
	}
	if text := streaminfer.Status(999).String(); text != "status 999" {
		t.Error(text)
	}
}
