package streaminfer_test

import (
	"errors"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// The device that an engine has is one of those that there are.
func TestDevice(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		device, _, err := w.engine.Device()
		w.ok(err)
		if device.ID == "" || device.Name == "" || device.Kind != "host" && device.Kind != "cuda" || device.Processors < 1 {
			w.Errorf("%+v", device)
		}
		w.ok(w.engine.Close())
		if _, _, err := w.engine.Device(); err == nil {
			w.Error("a closed engine has a device")
		}
	})
}

// What kept a GPU from use is told if one was to be looked for, and only then.
func TestDeviceThatWasPassedOver(t *testing.T) {
	if err := openLibrary(t).Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"auto", "host"} {
		engine, err := streaminfer.Open(streaminfer.EngineOptions{Device: name})
		if err != nil {
			t.Fatal(err)
		}
		device, passedOver, err := engine.Device()
		if err != nil {
			t.Fatal(err)
		}
		devices, err := streaminfer.Devices(streaminfer.EngineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// The host is the last of all devices; where it is the only one there was no GPU to take.
		isAlone := name == "auto" && len(devices) == 1
		var reason *streaminfer.Error
		if isAlone != (passedOver != nil) || isAlone && (!errors.As(passedOver, &reason) || reason.Message == "") {
			t.Errorf("%s: %+v, passed over: %v", name, device, passedOver)
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
