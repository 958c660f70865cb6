package roles

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/testbed"
)

// A lab has all that the targets need.
func TestCheckSetup(t *testing.T) {
	p := reach(t, testbed.Options{})
	var out bytes.Buffer
	c := &call{IO: IO{Out: &out}, role: &checkSetupRole}
	if status, err := c.checkSetup(t.Context(), p, matrix.Targets()); status != exitOK || err != nil {
		t.Errorf("exit status %d, %v", status, err)
	}
	for _, want := range []string{"local: ", "remote: ", "  ok  inet REMOTE answers: ", "  ok  route to FAKE ",
		"  ok  nf_tables: the kernel has it\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
}

func TestWriteChecks(t *testing.T) {
	var out bytes.Buffer
	fine := writeChecks(&out, []agent.CheckItem{
		{Name: "privilege", OK: true, Detail: "root"},
		{Name: "pf", Detail: "it is switched off", Cure: "pfctl -e"},
		{Name: "way", Detail: "none"},
	})
	const want = `  ok  privilege: root
  NO  pf: it is switched off
      fix: pfctl -e
  NO  way: none
`
	if fine || out.String() != want {
		t.Errorf("%v\n%s", fine, &out)
	}
	if !writeChecks(&out, []agent.CheckItem{{Name: "privilege", OK: true}}) {
		t.Error("all is as it must be, and that is not said")
	}
}

func TestWriteLeft(t *testing.T) {
	head := agent.Head{PID: 7, Started: time.Date(2026, 11, 22, 2, 0, 0, 0, time.Local), By: "anna@laptop"}
	steps := []pfconf.Undo{{Do: "nft/table"}, {Do: "route/to", Args: []string{"10.188.2.9/32", "10.188.1.2"}}}
	for _, c := range []struct {
		name string
		left []*agent.Left
		look bool
		fine bool
		want string
	}{
		{"nothing", nil, true, true, "  nothing is left of any run\n"},
		{"alive", []*agent.Left{{Head: head, Steps: steps, Alive: true}}, true, true,
			"  agent 7, started 2026-11-22 02:00:00 by anna@laptop is at work: left alone\n"},
		{"to do", []*agent.Left{{Head: head, Steps: steps}}, true, false,
			"  agent 7, started 2026-11-22 02:00:00 by anna@laptop, was killed\n" +
				"    to do: delete the route to 10.188.2.9/32 via 10.188.1.2\n    to do: delete table inet pfdivert\n"},
		{"done", []*agent.Left{{Head: head, Steps: steps, Undone: []string{"delete it"}}}, false, true,
			"  agent 7, started 2026-11-22 02:00:00 by anna@laptop, was killed\n    done: delete it\n"},
		{"half done", []*agent.Left{{Head: head, Steps: steps, Undone: []string{"delete it"}, Err: "no"}}, false, false,
			"  agent 7, started 2026-11-22 02:00:00 by anna@laptop, was killed\n    done: delete it\n    error: no\n"},
		{"rebooted", []*agent.Left{{Head: head, Steps: steps, Rebooted: true}}, false, true,
			"  agent 7, started 2026-11-22 02:00:00 by anna@laptop, was killed; the host has been booted since: no change is left\n"},
	} {
		var out bytes.Buffer
		if fine := writeLeft(&out, c.left, c.look); fine != c.fine || out.String() != c.want {
			t.Errorf("%s: %v\n%s", c.name, fine, &out)
		}
	}
}
