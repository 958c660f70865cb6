package roles_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
)

// program builds the program as "make" does and gives its path.
func program(b testing.TB) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "pfdivert")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return path
}

// runProgram runs the program and gives the memory of the largest of its three
// processes, in MB.
func runProgram(b *testing.B, program string, args ...string) float64 {
	b.Helper()
	// The shell's children's usage includes that of the agents, which the program waited for.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `"$@" >/dev/null; exit $?`, "sh", program, "run"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", args, err, out)
	}
	return float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024
}

// BenchmarkRun times the whole process, from its start to its end.
func BenchmarkRun(b *testing.B) {
	exe := program(b)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"one", []string{"inet-args-tcp-to"}},
		{"args", []string{"*-args-*"}},
		{"all", nil},
		{"all-in-order", []string{"-parallel", "1"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var most float64
			for b.Loop() {
				most = max(most, runProgram(b, exe, c.args...))
			}
			b.ReportMetric(most, "MB/process")
		})
	}
}

// BenchmarkFaults times 'pfdivert faults' as a whole.
func BenchmarkFaults(b *testing.B) {
	exe := program(b)
	for b.Loop() {
		if out, err := exec.Command(exe, "faults").CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N*len(faults.On("linux", faults.All()))), "s/fault")
}

// BenchmarkCells runs all targets again and again: how many cells a second, and
// whether the last ones take longer than the first. It takes a minute or two.
func BenchmarkCells(b *testing.B) {
	exe := program(b)
	for _, rounds := range []int{15, 150, 1429} {
		b.Run(strconv.Itoa(rounds*len(matrix.Targets())), func(b *testing.B) {
			file := filepath.Join(b.TempDir(), "run.json")
			var rate float64
			for b.Loop() {
				runProgram(b, exe, "-count", strconv.Itoa(rounds), "-json", file)
				var run struct {
					Run struct {
						Rate float64 `json:"cells_per_second"`
					} `json:"run"`
				}
				text, err := os.ReadFile(file)
				if err != nil {
					b.Fatal(err)
				}
				if err := json.Unmarshal(text, &run); err != nil {
					b.Fatal(err)
				}
				rate = run.Run.Rate
			}
			b.ReportMetric(rate, "cells/s")
		})
	}
}
