//go:build race

package streaminfer_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// The misuses are planted in processes of their own, which the race detector must end.
func TestRaceDetectorSeesViewsInFlight(t *testing.T) {
	misuses := map[string]func(w *world, s *streaminfer.Session, x, y streaminfer.View[float32]){
		"none": func(*world, *streaminfer.Session, streaminfer.View[float32], streaminfer.View[float32]) {},
		"none after draining": func(w *world, s *streaminfer.Session, _, _ streaminfer.View[float32]) {
			w.ok(s.Cancel())
			w.release()
			if err := s.Wait(context.Background()); err != nil { // nil if it had ended
				w.is(err, streaminfer.StatusCancelled)
			}
			// Nobody calls Drain: that the views can be had says that the device is done.
			eventually(w, "the device to be done", func() bool { _, err := streaminfer.Output[float32](s, "y"); return err == nil })
			input[float32](w, s, "x").Write([]float32{1})
			output[float32](w, s, "y").Touch()
		},
		"input written": func(_ *world, _ *streaminfer.Session, x, _ streaminfer.View[float32]) {
			x.Write([]float32{1})
		},
		"output read": func(_ *world, _ *streaminfer.Session, _, y streaminfer.View[float32]) {
			y.Read(make([]float32, 1))
		},
		"touched while draining": func(w *world, s *streaminfer.Session, x, _ streaminfer.View[float32]) {
			w.ok(s.Cancel())
			x.Touch()
		},
	}
	if name := os.Getenv("STREAMINFER_TEST_MISUSE"); name != "" {
		inBothWorlds(t, func(w *world) {
			s := w.session(w.load(affine))
			x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
			x.Write([]float32{1, 2, 3, 4})
			w.ok(s.Submit(context.Background()))
			misuses[name](w, s, x, y)
			_ = s.Wait(context.Background())
			w.ok(s.Drain(context.Background()))
			x.Write([]float32{1, 2, 3, 4})
			y.Read(make([]float32, 4))
		})
		return
	}
	for name := range misuses {
		for _, kind := range []string{"fake", "library"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				if kind == "library" {
					openLibrary(t).Close() // or skip
				}
				command := exec.Command(os.Args[0], "-test.run=^TestRaceDetectorSeesViewsInFlight$/^"+kind+"$")
				command.Env = append(os.Environ(), "STREAMINFER_TEST_MISUSE="+name, "GORACE=halt_on_error=1")
				output, err := command.CombinedOutput()
				if found := strings.Contains(string(output), "DATA RACE"); found == strings.HasPrefix(name, "none") || found != (err != nil) {
					t.Errorf("found: %v, %v\n%s", found, err, output)
				}
			})
		}
	}
}
