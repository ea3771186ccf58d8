package streaminfer

import "strconv"

// Status is the kind of a failure, grouped by what the caller can do about it. A Status is itself an error, the
// target for errors.Is. The numbers are those of the C ABI and never change their meaning.
type Status int32

// The calling program is wrong: mend the call.
const (
	// StatusInvalidArgument: an argument is null, out of range or inconsistent.
	StatusInvalidArgument Status = 100
	// StatusInvalidHandle: the handle was never issued by this library.
	StatusInvalidHandle Status = 101
	// StatusStaleHandle: the handle was valid once and has been freed.
	StatusStaleHandle Status = 102
	// StatusWrongType: the handle belongs to another noun.
	StatusWrongType Status = 103
	// StatusWrongThread: the context is bound to another thread.
	StatusWrongThread Status = 104
	// StatusWrongState: the object is in a state in which this call makes no sense.
	StatusWrongState Status = 105
	// StatusBusy: another thread is inside a call on this object.
	StatusBusy Status = 106
	// StatusInFlight: the context already has a request in flight.
	StatusInFlight Status = 107
	// StatusNotRecorded: the event has not been recorded yet.
	StatusNotRecorded Status = 108
	// StatusNoBucket: no prepared bucket has these shapes and shape-input values.
	StatusNoBucket Status = 109
	// StatusShapeMismatch: shape, rank or element type differs from what the model declares.
	StatusShapeMismatch Status = 110
)

// The model or its file is at fault: mend the model.
const (
	// StatusNotFound: there is no such file.
	StatusNotFound Status = 200
	// StatusIO: the file could not be read.
	StatusIO Status = 201
	// StatusForbiddenPath: the path leads outside the model's directory or is not a plain file.
	StatusForbiddenPath Status = 202
	// StatusMalformed: the file is not a well-formed ONNX model.
	StatusMalformed Status = 203
	// StatusUnsupported: the model uses something this library does not support.
	StatusUnsupported Status = 204
	// StatusUnsupportedDynamic: an extent depends on tensor data.
	StatusUnsupportedDynamic Status = 205
	// StatusTooLarge: the model exceeds a bound of the library.
	StatusTooLarge Status = 206
)

// Not now: try again, later or elsewhere.
const (
	// StatusAgain: the device's in-flight permits are out.
	StatusAgain Status = 300
	// StatusLimitReached: a bound on live objects is reached.
	StatusLimitReached Status = 301
	// StatusOutOfMemory: memory could not be had.
	StatusOutOfMemory Status = 302
	// StatusTimeout: the time ran out before the request ended; it goes on, the context is draining. Of calls that only wait, such as
	// Drain: the time ran out.
	StatusTimeout Status = 303
	// StatusCancelled: the request was cancelled.
	StatusCancelled Status = 304
	// StatusExpired: the deadline passed before the request was started.
	StatusExpired Status = 305
	// StatusDraining: the context's last request was given up and the device has not finished it.
	StatusDraining Status = 306
)

// The device.
const (
	// StatusNoDevice: there is no such device, or no driver for it.
	StatusNoDevice Status = 400
	// StatusDriver: a driver call failed; the native code is in the error.
	StatusDriver Status = 401
	// StatusDeviceLost: the device had a fatal fault; this process can no longer use it.
	StatusDeviceLost Status = 402
)

// The library.
const (
	// StatusInternal: a defect in the library.
	StatusInternal Status = 500
	// StatusPanicked: a panic was caught at the border; the object is poisoned.
	StatusPanicked Status = 501
	// StatusPoisoned: an earlier panic poisoned this object: free it.
	StatusPoisoned Status = 502
)

var statusNames = map[Status]string{
	StatusInvalidArgument:    "invalid argument",
	StatusInvalidHandle:      "invalid handle",
	StatusStaleHandle:        "stale handle",
	StatusWrongType:          "wrong type",
	StatusWrongThread:        "wrong thread",
	StatusWrongState:         "wrong state",
	StatusBusy:               "busy",
	StatusInFlight:           "in flight",
	StatusNotRecorded:        "not recorded",
	StatusNoBucket:           "no bucket",
	StatusShapeMismatch:      "shape mismatch",
	StatusNotFound:           "not found",
	StatusIO:                 "io",
	StatusForbiddenPath:      "forbidden path",
	StatusMalformed:          "malformed",
	StatusUnsupported:        "unsupported",
	StatusUnsupportedDynamic: "unsupported dynamic",
	StatusTooLarge:           "too large",
	StatusAgain:              "again",
	StatusLimitReached:       "limit reached",
	StatusOutOfMemory:        "out of memory",
	StatusTimeout:            "timeout",
	StatusCancelled:          "cancelled",
	StatusExpired:            "expired",
	StatusDraining:           "draining",
	StatusNoDevice:           "no device",
	StatusDriver:             "driver",
	StatusDeviceLost:         "device lost",
	StatusInternal:           "internal",
	StatusPanicked:           "panicked",
	StatusPoisoned:           "poisoned",
}

// String returns the status in words.
func (s Status) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return "status " + strconv.Itoa(int(s))
}

// Error makes a Status a target for errors.Is.
func (s Status) Error() string { return "streaminfer: " + s.String() }
