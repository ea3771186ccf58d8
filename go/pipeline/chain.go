package pipeline

import (
	"context"
	"errors"
	"slices"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// Link is one model of a [Chain].
type Link struct {
	// Model is the model; all of a chain are of one engine.
	Model *streaminfer.Model
	// Inputs names the inputs that are outputs of the model before: input name to output name. The first model has none.
	Inputs map[string]string
	// Options of the session; its Links are made from Inputs.
	Options streaminfer.SessionOptions
}

// Chain is one session of each of several models, linked on the device: what one computes is what the next reads, and
// visits no host memory in between. One goroutine at a time may use it. All its models are in flight at once: with an
// EngineOptions.InFlightMax below their number Run always is StatusAgain.
type Chain struct {
	sessions []*streaminfer.Session
}

// NewChain makes the sessions. All models must be of one engine and their buckets must match in order.
//
// Errors: as for streaminfer's Model.NewSession.
func NewChain(links ...Link) (*Chain, error) {
	c := &Chain{}
	for i, l := range links {
		options := l.Options
		options.Links = nil
		for input, output := range l.Inputs {
			if i == 0 {
				return nil, errors.New("pipeline: the first model of a chain has no model before it")
			}
			options.Links = append(options.Links, streaminfer.Link{Input: input, Source: c.sessions[i-1], Output: output})
		}
		s, err := l.Model.NewSession(options)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		c.sessions = append(c.sessions, s)
	}
	return c, nil
}

// Session returns the session of the i-th model, to write inputs and read outputs. They must not be in flight.
func (c *Chain) Session(i int) *streaminfer.Session { return c.sessions[i] }

// Run submits all models in order and waits for the last: the device goes from one to the next without the host. When
// it fails, or ctx ends first, what is left is given up; the next Run waits for the device.
//
// Errors: as for streaminfer's Session.Run. StatusAgain means that the device had no permit for one of the models, which may
// pass, unless there are fewer permits than models.
func (c *Chain) Run(ctx context.Context) error {
	for i, s := range c.sessions {
		if err := s.Submit(ctx); err != nil {
			c.giveUp(c.sessions[:i])
			return err
		}
	}
	// The last one's end is the end of all; to wait for it first means to wait once.
	for i := len(c.sessions) - 1; i >= 0; i-- {
		if err := c.sessions[i].Wait(ctx); err != nil {
			c.giveUp(c.sessions)
			return err
		}
	}
	return nil
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// giveUp leaves nothing in flight, the last model's first, so that none waits for one that will not come.
func (c *Chain) giveUp(sessions []*streaminfer.Session) {
	for _, s := range slices.Backward(sessions) {
		_ = s.Cancel()
		_ = s.Wait(ended) // takes note that the request has ended; without one it is StatusWrongState
	}
}

// Close frees the sessions, the last first. Closing again does nothing.
func (c *Chain) Close() error {
	var failures []error
	for _, s := range slices.Backward(c.sessions) {
		failures = append(failures, s.Close())
	}
	return errors.Join(failures...)
}

// Linked is a stage of linked models: each worker owns a chain. use writes the item's inputs, calls the chain's Run and
// reads the outputs.
func Linked[T any](name string, workers int, use func(ctx context.Context, c *Chain, item T) error, links ...Link) Stage[T] {
	return Stage[T]{Name: name, Workers: workers, New: func() (func(context.Context, T) error, func() error, error) {
		c, err := NewChain(links...)
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context, item T) error {
			for _, s := range c.sessions { // the views are the device's until it has finished with what was given up
				if err := s.Drain(ctx); err != nil {
					return err
				}
			}
			return use(ctx, c, item)
		}, c.Close, nil
	}}
}
