module github.com/streaminfer/streaminfer/examples/go

go 1.26

require golang.org/x/text v0.30.0

require github.com/streaminfer/streaminfer/go v0.0.0

replace github.com/streaminfer/streaminfer/go => ../../go
