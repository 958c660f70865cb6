package roles

import (
	"fmt"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/kernel/splat"
)

// panicPatience is how long a machine whose agents are lost may take to say why.
const panicPatience = 10 * time.Second

// judgeKernel makes a FAIL of a target during which the tested kernel reported that something is
// wrong with itself, whatever the target's own verdict was. The kernel's log is read before each
// answer is sent; a panic ends the machine, and only its console has it.
func (p *pair) judgeKernel(r matrix.Result) matrix.Result {
	if r.Reason == matrix.Interrupted || r.Verdict == matrix.Skip {
		return r
	}
	began := time.Now().Add(-time.Duration(r.Seconds * float64(time.Second)))
	var reports []string
	for _, s := range p.hosts.Remote.Splats() {
		if !s.At.Before(began) {
			reports = append(reports, s.Text)
		}
	}
	if len(reports) == 0 && p.guest != nil && r.Verdict == matrix.Error && r.Reason == matrix.AgentLost {
		reports = p.guest.LastWords(panicPatience)
	}
	if len(reports) == 0 {
		return r
	}
	was := "PASS"
	if r.Reason != "" {
		was = fmt.Sprintf("%s (%s): %s", r.Verdict, r.Reason, r.Detail)
	}
	r.Verdict, r.Reason = matrix.Fail, matrix.KernelSplat
	r.Detail = fmt.Sprintf("the kernel's log has %q while this target was under way; else it was %s", splat.Title(reports[0]), was)
	r.Explanation = nil
	r.Transcript = append(r.Transcript, matrix.Transcript{Host: "remote", Name: matrix.KernelLog, Text: strings.Join(reports, "")})
	return r
}
