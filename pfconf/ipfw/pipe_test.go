package ipfw

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// pipeHost is an ipfw with pipes, by their numbers, as that of FreeBSD 15.1 shows them.
type pipeHost struct {
	pipes map[string]string
	ran   []string
	none  bool // the kernel has no dummynet
}

func (h *pipeHost) run(_ context.Context, c program.Command) (program.Output, error) {
	text := strings.Join(c.Argv, " ")
	switch {
	case text == "ipfw -S show":
		return program.Output{Stdout: "65535 37 5709 set 31 allow ip from any to any\n"}, nil
	case text == "ipfw set show":
		return program.Output{Stdout: "enable 0 1 2 3\n"}, nil
	case strings.HasPrefix(text, "sysctl"):
		return program.Output{Stdout: "1\n"}, nil
	case h.none && strings.Contains(text, "config"): // show prints nothing then
		return program.Output{Status: 1, Stderr: "ipfw: setsockopt(IP_DUMMYNET3): Protocol not available\n"}, nil
	}
	h.ran = append(h.ran, text)
	words := strings.Fields(strings.TrimPrefix(strings.TrimPrefix(text, "ipfw "), "-q "))
	switch number := words[1]; words[2] {
	case "show":
		return program.Output{Stdout: h.pipes[number]}, nil
	case "config":
		h.pipes[number] = "00" + number + ": unlimited        10 ms burst 0 \n"
	case "delete":
		delete(h.pipes, number)
	}
	return program.Output{}, nil
}

// A pipe is made once, recorded before, changed, and gone when the firewall is closed. One of
// others is left alone.
func TestPipe(t *testing.T) {
	ctx := t.Context()
	h := &pipeHost{pipes: map[string]string{"701": "00701: 10.000 Mbit/s 0 ms burst 0 \n"}}
	f, undos := open(t, h.run, pfconf.Inet)
	for _, lossy := range []bool{false, true} {
		if err := f.Pipe(ctx, 700, lossy); err != nil {
			t.Error(err)
		}
	}
	if err := f.Pipe(ctx, 701, true); err == nil || !strings.Contains(err.Error(), "not this program's") {
		t.Errorf("a pipe of others: %v", err)
	}
	undo := pfconf.Undo{Do: UndoPipe, Args: []string{"700"}}
	if !reflect.DeepEqual(*undos, []pfconf.Undo{undo}) {
		t.Errorf("the journal has %+v", *undos)
	}
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
	want := []string{"ipfw pipe 700 show", "ipfw pipe 700 config delay 10", "ipfw pipe 700 config plr 1",
		"ipfw pipe 701 show", "ipfw pipe 700 show", "ipfw -q pipe 700 delete"}
	if !slices.Equal(h.ran, want) {
		t.Errorf("ran %q, want %q", h.ran, want)
	}
	// What a killed run left.
	h.pipes["700"], h.ran = "00700: unlimited        10 ms burst 0 \n", nil
	for range 2 {
		if err := Restore(ctx, h.run, undo); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"ipfw pipe 700 show", "ipfw -q pipe 700 delete", "ipfw pipe 700 show"}; !slices.Equal(h.ran,
		want) {
		t.Errorf("ran %q, want %q", h.ran, want)
	}
	for _, args := range [][]string{nil, {"700 delete"}, {"x"}, {"70000"}} {
		if err := Restore(ctx, h.run, pfconf.Undo{Do: UndoPipe, Args: args}); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// A kernel without dummynet lacks it, and has none to remove.
func TestNoDummynet(t *testing.T) {
	h := &pipeHost{none: true}
	f, undos := open(t, h.run, pfconf.Inet)
	var missing interface{ Missing() string }
	if err := f.Pipe(t.Context(), 700, false); !errors.As(err, &missing) || len(*undos) != 1 {
		t.Errorf("%v, with %d undos", err, len(*undos))
	}
	if err := Restore(t.Context(), h.run, pfconf.Undo{Do: UndoPipe, Args: []string{"700"}}); err != nil {
		t.Error(err)
	}
}

// A rule with a pipe, as ipfw takes and prints it.
func TestPipeRule(t *testing.T) {
	r := divertPacket(pfconf.Inet, pfconf.In, 20000)
	r.Action, r.Pipe, r.Number = pfconf.ThroughPipe, 700, 2
	if r.Validate() == nil {
		t.Error("a pipe with a divert port is taken")
	}
	r.Divert = divertReply(pfconf.Inet, pfconf.UDP, 1).Divert
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	const want = "add 2 set 3 pipe 700 udp from 10.189.11.1 to 10.189.11.2 20000 in // regress-packet\n"
	if got := adding([]pfconf.Rule{r}, 3); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	printed := strings.Replace(want, "add 2 set 3", "00002", 1)
	if err := understood([]pfconf.Rule{r}, printed); err != nil {
		t.Error(err)
	}
	for _, wrong := range []func(*pfconf.Rule){
		func(r *pfconf.Rule) { r.Pipe = 0 },
		func(r *pfconf.Rule) {
			r.Action, r.Divert = pfconf.DivertPacket, divertPacket(pfconf.Inet, pfconf.In, 1).Divert
		},
	} {
		bad := r
		if wrong(&bad); bad.Validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
