package streaminfer_test

import (
	"context"
	"fmt"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// Two workers whose requests must come in order: the second one starts on the device when the first has ended, and no
// goroutine waits in between.
func ExampleEvent() {
	engine, model := double() // streaminfer.Open and Engine.Load, in a program
	defer engine.Close()
	var sessions [2]*streaminfer.Session
	for i := range sessions {
		session, err := model.NewSession(streaminfer.SessionOptions{})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer session.Close()
		sessions[i] = session
	}
	first, second := sessions[0], sessions[1]
	event, err := engine.NewEvent()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer event.Close()

	ctx := context.Background()
	for _, step := range []func() error{
		func() error { return first.Submit(ctx) },
		func() error { return event.Record(first) }, // behind what first has been given
		func() error { return event.Wait(second) },  // second's next request comes behind the mark
		func() error { return second.Run(ctx) },
	} {
		if err := step(); err != nil {
			fmt.Println(err)
			return
		}
	}
	ended, err := first.Poll()
	fmt.Println(ended, err)
	// Output: true <nil>
}

// A service's health check: whether the device works, and what there is on it.
func ExampleEngine() {
	engine, model := double() // streaminfer.Open and Engine.Load, in a program
	defer engine.Close()
	pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{Sessions: 2, Spares: -1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	stats, err := engine.Stats()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(stats.DeviceState == streaminfer.DeviceOK, stats.Models, stats.Sessions)
	// Output: true 1 2
}
