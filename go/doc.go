// Package streaminfer runs neural networks from ONNX files with a predictable latency.
//
// An [Engine] is one opened device, a [Model] one ONNX file whose weights are loaded once, and a [Session] one lane of
// execution: its own ordered stream, its own input and output memory and a prepared replay of the whole request. Each
// worker of a service owns a Session; Sessions share the weights. Sharing few sessions among many goroutines is what a [Pool] is for.
//
//	engine, err := streaminfer.Open(streaminfer.EngineOptions{})
//	model, err := engine.Load("mlp.onnx", streaminfer.ModelOptions{
//		Buckets: []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"input": {1, 784}}}},
//	})
//	session, err := model.NewSession(streaminfer.SessionOptions{})
//	input, err := streaminfer.Input[float32](session, "input")
//	output, err := streaminfer.Output[float32](session, "logits")
//	copy(input.Data, pixels)  // written in place: the memory the device reads
//	err = session.Run(ctx)    // no allocation, no copy at the border
//	fmt.Println(output.Data)  // read in place
//
// The names, element types and shapes of a model's tensors are what [Model.Inputs] and [Model.Outputs] say, and what the command
// "streaminfer inspect" prints. Open takes the first GPU, or the host if there is none; [Devices] lists them. Closing the engine closes all
// that was made from it.
//
// # Shapes
//
// Everything is planned for concrete shapes before the first request. A [Bucket] is one set of input shapes; a model
// whose shapes are all fixed has one bucket of its own. [Session.Use] selects another prepared bucket.
//
// # Goroutines and threads
//
// Engine, Model, Event and Batcher may be used by any number of goroutines. A Session serves one goroutine at a time and may
// move between them; two that meet get [StatusBusy]. [Session.Bind] ties a Session to the calling goroutine and that
// goroutine to its thread, which saves the device's context switch on every call. [Session.Cancel] and Close are safe at
// any time, from anywhere.
//
// A [Bound] is such a worker ready made: a goroutine with a thread and a session of its own, to which others send functions.
//
// Run reads the completion record for a while, for requests of up to a millisecond to their end as long as processors are idle, and
// then sleeps until the engine's one reaper goroutine wakes it, so a waiting goroutine costs no thread. A bound Session may block its
// thread instead. [SessionOptions].SpinBudget says otherwise.
//
// # Pools
//
// A service has more goroutines than a device has room for. A [Pool] lends a fixed number of sessions to any number of
// goroutines: [Pool.Infer] copies a request in and out, [Pool.Do] lends the session itself. What finds all sessions busy
// waits in a bounded queue, the earliest deadline first, and a deadline that cannot be met is refused at once, while
// there still is time to answer something else. Give each request a context with a deadline, and size the pool for the
// device: more sessions than it can run at a time make every request slower and none faster.
//
//	pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{Sessions: 8})
//	in := []streaminfer.Tensor{streaminfer.NewTensor("input", pixels, 1, 784)}
//	out := []streaminfer.Tensor{streaminfer.NewTensor("logits", scores)} // scores, of 10, are written to
//	err = pool.Infer(ctx, in, out)
//	if errors.Is(err, streaminfer.ErrDeadline) || errors.Is(err, streaminfer.ErrQueueFull) { ... } // overload: it has not run
//
// A request that was refused has not run, so it may be sent elsewhere or answered with less. Sending it again at once adds to the overload.
//
// A new version of a model is served by a new pool: warm it, exchange the pointer to it, and [Pool.Drain] and Close the old
// one. A request that meets a pool that drains gets [ErrPoolClosed] and can be repeated; no other notices. A Batcher has no Drain, and
// Close gives up the requests in it: exchange the pointer to it, too, and close the old one when the last Infer on it has returned.
//
// Package pipeline connects pools, functions and models that are linked on the device by bounded queues.
//
// # Batches
//
// A device computes several requests at once at the price of little more than one. A [Batcher] merges requests of many
// goroutines into batches: [Batcher.Infer] copies a request into rows of a batch that forms, and the batch runs when it is full,
// after a delay, or in time for the earliest deadline in it. Requests that find all batches taken wait in a bounded queue, the
// earliest deadline first, and those that cannot be in time are refused at once, as by a pool. Load the model with a padding of kind [PaddingBatch] and with a bucket for each batch size that is to
// have a replay of its own:
//
//	rows := func(n int64) streaminfer.Bucket { return streaminfer.Bucket{Shapes: streaminfer.Shapes{"input": {n, 784}}} }
//	model, err := engine.Load("mlp.onnx", streaminfer.ModelOptions{
//		Buckets:  []streaminfer.Bucket{rows(1), rows(8), rows(32)},
//		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "input", Axis: 0}},
//	})
//	batcher, err := streaminfer.NewBatcher(model, streaminfer.BatcherOptions{})
//	err = batcher.Infer(ctx, in, out) // as with a pool
//
// # Which of them
//
// Begin with a Pool: it answers as soon as the device can. Take a Batcher where more requests come than the device can serve one by
// one, for they then wait for each other anyway. Take a Bound for work of several calls that belong together, or that a library
// wants on one thread, and a Session of one's own where a goroutine is the worker already. All of them share the model's weights, and
// several can be used at once: each has as much of the device as it has sessions or batches.
//
// # Memory of one's own
//
// A program whose requests arrive in buffers of its own need not copy them: [Engine.NewPinned] takes memory, [Register] lends a
// slice, and a session made with [SessionOptions].Attachments reads and writes tensors there. [Engine.NewPitched] takes rows of
// device memory, to keep data there. Copies between those and pinned or registered memory are several times as fast on a GPU as those
// from and to any other slice, which a trace calls pageable.
//
//	buffer, err := streaminfer.Register(engine, frames) // []float32 that begins with a page
//	session, err := model.NewSession(streaminfer.SessionOptions{
//		Attachments: []streaminfer.Attachment{{Input: "input", Memory: buffer}},
//	})
//
// # What is wrong when it is slow
//
// [Pool.Stats] and [Batcher.Stats] have histograms of where the time of requests goes. [Engine.Trace] has the slow and failed requests, and, once
// STREAMINFER_TRACE=api or [Engine.SetTrace] asks for it, the calls on sessions and the copies to and from device memory; package
// trace says in words what is wrong with them and what to change, as does the command streaminfer-doctor with a trace that was written to a file.
//
// # Giving up
//
// When ctx ends, Run returns an error that wraps ctx.Err() at once. If that was a deadline the status is [StatusExpired], which is
// [ErrDeadline], for a request that had not been started, and [StatusTimeout] for one that had: errors.Is with context.DeadlineExceeded
// finds both. But after a request had been started the device may still be at work on the
// Session's memory: the Session is draining and its views must not be touched. The next Run waits for the device first;
// [Session.Drain] does only that, so that new inputs can be written. Close is always safe: the memory is released when
// the device has finished with it.
//
// # Misuse
//
// A View's Data must not be touched after its Session is closed. On the host device that is a fault, of which debug.SetPanicOnFault
// makes a panic: the memory is gone, and what comes after does not get its addresses until 1,024 more sessions, or 4 GiB of their
// inputs and outputs, are closed, or memory runs out. On a GPU the memory serves the next session of about its size.
//
// A View's Data must not be touched while its Session's request is in flight, either. In programs built with the tag
// streaminfer_debug writing to an input then is a fault, on the host device and for sessions; it costs two system calls a
// request. The race detector cannot see that: the memory is not Go's. [View.Write], [View.Read] and [View.Touch] let it: in
// programs built with -race it then reports what is touched too early or too late as a data race with the device. Sessions of a
// pool refuse calls while nobody holds them.
//
// # Errors
//
// Every failure of the library is an [*Error]. Its [Status] matches with errors.Is:
//
//	if errors.Is(err, streaminfer.StatusNoBucket) { ... }
//
// and Error.Executed says whether the request may have run, so whether a retry is safe where running twice matters.
//
// # The shared library
//
// The package loads libstreaminfer.so in [Open]: the path in [EngineOptions], else the environment variable
// STREAMINFER_LIBRARY, else the executable's directory and its ../lib, else the system's loader. An error names every
// path that was tried. With the build tag streaminfer_pkgconfig the library is linked at build time instead, as
// pkg-config describes it. Without cgo, or elsewhere than on linux/amd64, Open returns [ErrUnsupported]; package fake
// works everywhere and needs no library.
package streaminfer
