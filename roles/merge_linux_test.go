package roles

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkMerge merges 1,000 files of 172 targets and writes all reports, also with what changed
// since the last time: below 2 s of a processor, with less than 200 MB.
func BenchmarkMerge(b *testing.B) {
	dir := b.TempDir()
	last := filepath.Join(dir, "last.json")
	args := []string{"merge"}
	for _, format := range []string{"json", "html", "tap", "junit"} {
		args = append(args, "-"+format, filepath.Join(dir, "all."+format))
	}
	for i := range 1000 {
		var text strings.Builder
		fmt.Fprintf(&text, `{"run":{"kernel":"Linux 6.%d.1","system":"linux/amd64","version":"v1",`+
			`"started":"2026-03-04T05:06:07.891Z","seconds":0.1,"interrupted":false},"targets":[`, i%3)
		for j := range 172 {
			verdict := `"PASS","reason":"","detail":""`
			switch {
			case i%100 == 7 && j == i%172:
				verdict = `"FAIL","reason":"not-delivered","detail":"remote server: nothing arrived"`
			case j%4 == 3:
				verdict = `"SKIP","reason":"no-feature","detail":"CONFIG_NETFILTER_XT_TARGET_TPROXY is not set"`
			}
			if j > 0 {
				text.WriteByte(',')
			}
			fmt.Fprintf(&text, `{"name":"inet-group%d-target-%d","verdict":%s,"seconds":%.6f}`, j%12, j, verdict,
				0.001+float64(i)*1e-6)
		}
		text.WriteString("]}\n")
		name := filepath.Join(dir, fmt.Sprintf("web%d.json", i))
		if err := os.WriteFile(name, []byte(text.String()), 0o666); err != nil {
			b.Fatal(err)
		}
		args = append(args, name)
	}
	bin := program(b)
	cmd := exec.Command(filepath.Join(bin, "pfdivert"), slices.Concat([]string{"merge", "-json", last}, args[9:])...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitFail {
		b.Fatalf("%v\n%.1000s", err, out)
	}
	b.Run("first", func(b *testing.B) { benchmarkMerge(b, bin, args) })
	b.Run("against", func(b *testing.B) {
		benchmarkMerge(b, bin, slices.Concat([]string{"merge", "-against", last}, args[1:]))
	})
}

func benchmarkMerge(b *testing.B, bin string, args []string) {
	var peak int64 // in kB, see getrusage(2)
	var processor time.Duration
	for b.Loop() {
		cmd := exec.Command(filepath.Join(bin, "pfdivert"), args...)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitFail {
			b.Fatalf("%v\n%.1000s", err, out)
		}
		processor += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		peak = max(peak, int64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss))
	}
	b.ReportMetric(processor.Seconds()/float64(b.N), "processor-s/op")
	b.ReportMetric(float64(peak)/1024, "MB-peak")
}
