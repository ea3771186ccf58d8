module github.com/streaminfer/streaminfer/go

go 1.26
