module github.com/streaminfer/streaminfer/benches/go

go 1.26

require github.com/streaminfer/streaminfer/go v0.0.0

replace github.com/streaminfer/streaminfer/go => ../../go
