// Package gomodule proves that package streaminfer works as others get it: out of a module zip, which drops symlinks and
// holds only what lies under go/.
package gomodule

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

var version = module.Version{Path: "github.com/streaminfer/streaminfer/go", Version: "v0.1.0"}

// publish lays the module out as a proxy would serve it, and returns the proxy's address and the zip.
func publish(t *testing.T) (proxy, archive string) {
	t.Helper()
	root := t.TempDir()
	folder := filepath.Join(root, filepath.FromSlash(version.Path), "@v")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	archive = filepath.Join(folder, version.Version+".zip")
	file, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(zip.CreateFromDir(file, version, "../../go"), file.Close()); err != nil {
		t.Fatal(err)
	}
	goMod, err := os.ReadFile("../../go/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"list":                    version.Version + "\n",
		version.Version + ".info": `{"Version":"` + version.Version + `"}`,
		version.Version + ".mod":  string(goMod),
	} {
		write(t, filepath.Join(folder, name), content)
	}
	return "file://" + root, archive
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// goCommand runs the go command far away from this project, with the proxy as the only source of modules.
func goCommand(t *testing.T, folder, proxy string, environment []string, arguments ...string) string {
	t.Helper()
	command := exec.Command("go", arguments...)
	command.Dir = folder
	command.Env = append(os.Environ(), "GOPROXY="+proxy, "GONOSUMDB=*", "GONOSUMCHECK=1", "GOFLAGS=-mod=mod", "GOWORK=off",
		"GOMODCACHE="+filepath.Join(folder, "cache"))
	command.Env = append(command.Env, environment...)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
	return string(output)
}

const consumer = `package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

func main() {
	one := []streaminfer.TensorInfo{{Name: "x", DType: streaminfer.DTypeFloat32, Shape: []int64{1}}}
	engine := fake.NewEngine(fake.Model{Name: "m", Inputs: one, Outputs: one, Run: func(call *fake.Call) error {
		fake.Out[float32](call, "x")[0] = fake.In[float32](call, "x")[0] + 1
		return nil
	}})
	if os.Getenv("LIBRARY") == "1" {
		var err error
		if engine, err = streaminfer.Open(streaminfer.EngineOptions{Device: "host"}); err != nil {
			fmt.Println(errors.Is(err, streaminfer.ErrUnsupported), err)
			return
		}
		stats, err := engine.Stats()
		fmt.Println("library", stats.DeviceState, err, engine.Close())
		return
	}
	model, err := engine.Load("m", streaminfer.ModelOptions{})
	if err != nil {
		panic(err)
	}
	session, err := model.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		panic(err)
	}
	in, _ := streaminfer.Input[float32](session, "x")
	out, _ := streaminfer.Output[float32](session, "x")
	in.Data[0] = 41
	fmt.Println("fake", session.Run(context.Background()), out.Data[0], engine.Close())
}
`

func TestModuleZipWorksElsewhere(t *testing.T) {
	proxy, archive := publish(t)

	// As a dependency of somebody's program.
	folder := t.TempDir()
	t.Cleanup(func() { goCommand(t, folder, proxy, nil, "clean", "-modcache") })
	write(t, filepath.Join(folder, "main.go"), consumer)
	write(t, filepath.Join(folder, "go.mod"), "module example.org/consumer\n\ngo 1.26\n")
	goCommand(t, folder, proxy, nil, "get", version.Path+"@"+version.Version)
	goCommand(t, folder, proxy, nil, "build", "-o", "program", ".")
	for _, c := range []struct{ environment, want string }{
		{"LIBRARY=0", "fake <nil> 42 <nil>"},
		{"LIBRARY=1", "library 1 <nil> <nil>"},
	} {
		if c.environment == "LIBRARY=1" && os.Getenv("STREAMINFER_LIBRARY") == "" {
			if os.Getenv("STREAMINFER_REQUIRE") == "1" {
				t.Error("STREAMINFER_LIBRARY is not set")
			}
			continue
		}
		program := exec.Command(filepath.Join(folder, "program"))
		program.Env = append(os.Environ(), c.environment)
		output, err := program.CombinedOutput()
		if err != nil || strings.TrimSpace(string(output)) != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.environment, output, err, c.want)
		}
	}
	// Where there is no cgo or another system, everything still builds and Open says so.
	goCommand(t, folder, proxy, []string{"CGO_ENABLED=0"}, "build", "-o", "program", ".")
	program := exec.Command(filepath.Join(folder, "program"))
	program.Env = append(os.Environ(), "LIBRARY=1")
	if output, err := program.CombinedOutput(); err != nil || !strings.HasPrefix(string(output), "true ") {
		t.Errorf("without cgo: %q, %v", output, err)
	}
	goCommand(t, folder, proxy, []string{"GOOS=darwin", "GOARCH=arm64"}, "build", ".", version.Path+"/...")

	// And its own tests, unpacked.
	unpacked := filepath.Join(t.TempDir(), "module")
	if err := zip.Unzip(unpacked, version, archive); err != nil {
		t.Fatal(err)
	}
	goCommand(t, unpacked, proxy, nil, "test", "./...")
}
