package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"pfdivert/matrix/injection"
	"pfdivert/matrix/script"
)

// served is an agent in this process, and the connection to it.
type served struct {
	conn  *Conn
	input io.WriteCloser // of the agent
	stop  context.CancelFunc
	ended chan error // of Serve
}

// serve starts an agent. Its end is part of the test's.
func serve(t *testing.T, opt Options, heartbeat time.Duration) *served {
	t.Helper()
	in, input := io.Pipe()
	output, out := io.Pipe()
	s := &served{input: input, ended: make(chan error, 1)}
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	go func() {
		s.ended <- Serve(ctx, in, out, opt)
		in.Close()
		out.Close()
	}()
	var err error
	if s.conn, err = Dial(ctx, output, input, heartbeat); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.conn.Close()
		stop()
		input.Close()
	})
	return s
}

// wait returns the error with which the agent ended.
func (s *served) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		t.Fatal("the agent does not end")
		return nil
	}
}

var loopback = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)

// openServer is a step that opens a UDP server on this host.
func openServer(end string) script.Step {
	return script.Open{Socket: end, Spec: script.Datagram{Ends: script.Ends{Role: script.Server, Local: loopback}}}
}

// run has the agent carry steps out, none of which may fail.
func (s *served) run(t *testing.T, sc script.Script) []script.Outcome {
	t.Helper()
	out, err := s.conn.Script(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		if o.Err != nil {
			t.Fatalf("step %d, %s: %v", i, sc.Steps[i].Name(), o.Err)
		}
	}
	return out
}

// free reports whether the port is not in use.
func free(a netip.AddrPort) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// What can't be sent is an error of that question at once, on either end, and the next question is
// answered.
func TestUnsendable(t *testing.T) {
	noLeaks(t)
	in, input := io.Pipe()
	output, out := io.Pipe()
	a := newAgent(t.Context(), out, Options{Heartbeat: slow}, nil)
	defer a.out.stop()
	a.done["long"] = ended{log: []script.Transcript{{End: "client", Text: strings.Repeat("x", MaxFrame)}}}
	a.done["short"] = ended{log: []script.Transcript{{End: "client", Text: "x"}}}
	go func() {
		_, _ = io.WriteString(out, Magic)
		_ = a.out.send(a.hello())
		r, buf := bufio.NewReader(in), []byte(nil)
		for {
			req := new(Request)
			if readFrame(r, &buf, req) != nil {
				return
			}
			a.answer(t.Context(), req)
		}
	}()
	conn, err := Dial(t.Context(), output, input, slow)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var lost *script.LostError
	if _, err = conn.Log(ctx, "long"); err == nil || !strings.Contains(err.Error(), "can't be sent") {
		t.Errorf("a long log: %v", err)
	}
	if _, err = conn.Script(ctx, script.Script{Steps: []script.Step{nil}}); err == nil || errors.As(err, &lost) ||
		!strings.Contains(err.Error(), "can't be sent") {
		t.Errorf("a step of no kind: %v", err)
	}
	if log, err := conn.Log(ctx, "short"); err != nil || len(log) != 1 {
		t.Errorf("the next log: %v, %v", log, err)
	}
}

// However an agent ends, it has closed its sockets.
func TestServeUndoes(t *testing.T) {
	for _, c := range []struct {
		name string
		opt  Options
		end  func(t *testing.T, s *served)
		want string // in Serve's error; "" for none
	}{
		{"the end of its input", Options{Heartbeat: slow}, func(t *testing.T, s *served) { s.input.Close() }, ""},
		{"the connection's end", Options{Heartbeat: slow}, func(t *testing.T, s *served) { s.conn.Close() }, ""},
		{"a signal", Options{Heartbeat: slow}, func(t *testing.T, s *served) { s.stop() }, ""},
		{"no heartbeat", Options{Heartbeat: 50 * time.Millisecond}, func(*testing.T, *served) {},
			"no sign of life from the orchestrator for 50ms"},
		{"garbage", Options{Heartbeat: slow}, func(t *testing.T,
			s *served) {
			s.input.Write([]byte("\x00\x00\x00\x02hi"))
		}, "frame: "},
		{"half a frame", Options{Heartbeat: slow}, func(t *testing.T,
			s *served) {
			s.input.Write([]byte{0, 0, 0, 9, 1})
			s.input.Close()
		}, "unexpected EOF"},
		{"a request for nothing", Options{Heartbeat: slow}, func(t *testing.T, s *served) {
			if _, err := s.conn.call(t.Context(), &Request{}); err == nil {
				t.Error("it was answered")
			}
		}, "asks for 0 things, not one"},
		{"goodbye", Options{Heartbeat: slow}, func(t *testing.T, s *served) {
			if err := s.conn.Bye(t.Context()); err != nil {
				t.Error(err)
			}
			s.conn.Close()
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			noLeaks(t)
			s := serve(t, c.opt, slow)
			at := s.run(t, script.Script{Cell: "one", Steps: []script.Step{openServer("server")}})[0].Local
			if free(at) {
				t.Errorf("%v is free while the server has it", at)
			}
			c.end(t, s)
			err := s.wait(t)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("the agent ended with %v, want %q", err, c.want)
			}
			if !free(at) {
				t.Errorf("%v is still in use", at)
			}
			var lost *script.LostError
			if _, err := s.conn.Log(t.Context(), "one"); !errors.As(err, &lost) {
				t.Errorf("then: %v, want a lost connection", err)
			}
		})
	}
}

// Requests keep an agent alive that is impatient.
func TestServeHeartbeat(t *testing.T) {
	noLeaks(t)
	s := serve(t, Options{Heartbeat: time.Second}, 200*time.Millisecond)
	select {
	case err := <-s.ended:
		t.Errorf("it ended: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
}

// An agent that can't work says so in its hello, and ends.
func TestServeFailed(t *testing.T) {
	noLeaks(t)
	var out strings.Builder
	opt := Options{Heartbeat: slow, Hello: Hello{Failed: ErrorOf(errors.New("no lab"))}}
	if err := Serve(t.Context(), strings.NewReader(""), &out, opt); err != nil {
		t.Error(err)
	}
	w := newCable(t)
	if _, err := w.dial(t, slow, out.String()); err == nil || err.Error() != "no lab" {
		t.Errorf("dial: %v", err)
	}
}

// A cell's exchange: what arrives, what each step of a script says of a failed one,
// and the transcripts, during the cell and after it.
func TestScript(t *testing.T) {
	noLeaks(t)
	s := serve(t, Options{Heartbeat: slow}, slow)
	server := s.run(t, script.Script{Cell: "cell", Steps: []script.Step{openServer("server")}})[0].Local
	client := script.Datagram{Ends: script.Ends{Role: script.Client, Local: loopback, Remote: server}}
	taken := script.Datagram{Ends: script.Ends{Role: script.Server, Local: server}}
	dropped := script.Divert{Local: netip.MustParseAddrPort("0.0.0.0:700"), Unprivileged: true}
	steps := []script.Step{
		script.Open{Socket: "client", Spec: client},
		script.Connect{Socket: "client"},
		script.Send{Socket: "client", Data: script.ClientLine},
		script.Receive{Socket: "server"},
		script.Receive{Socket: "server"}, // nothing more: the endpoint is broken from here
		script.Send{Socket: "server", Data: script.ServerLine},
		script.Rest{Socket: "server"},
		script.Open{Socket: "second", Spec: taken},
		script.Receive{Socket: "second"},
		script.Rest{Socket: "second"},
		script.Open{Socket: "client", Spec: client},
		script.Receive{Socket: "nobody"},
		script.Open{Socket: "dropped", Spec: dropped},
		script.Counters{Label: "regress"},
		script.Lookup{},
		script.Fence{},
		script.Connected{Socket: "server"},
		script.Connected{Socket: "server", Wait: time.Millisecond}, // asked of a broken one too
		script.Close{Socket: "server"},
	}
	out, err := s.conn.Script(t.Context(), script.Script{Cell: "cell", Steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"", "", "", "", script.CodeNothing, script.CodeSkipped, "", "EADDRINUSE", script.CodeSkipped,
		script.CodeSkipped,
		script.CodeOther, script.CodeOther, script.CodeOther, script.CodeOther, script.CodeOther, script.CodeOther,
		script.CodeSkipped, "", "",
	} {
		got := ""
		if f := out[i].Err; f != nil {
			got = f.Code
		}
		if got != want {
			t.Errorf("step %d, %s %+v: fault %q (%v), want %q", i, steps[i].Name(), steps[i], got, out[i].Err, want)
		}
	}
	if m := out[3].Messages; len(m) != 1 || string(m[0].Data) != script.ClientLine || m[0].From != out[1].Local {
		t.Errorf("received %+v, the client is %v", m, out[1].Local)
	}

	during, err := s.conn.Log(t.Context(), "cell")
	if err != nil {
		t.Fatal(err)
	}
	s.run(t, script.Script{Cell: "cell", End: true})
	after, err := s.conn.Log(t.Context(), "cell")
	if err != nil {
		t.Fatal(err)
	}
	for when, log := range map[string][]script.Transcript{"during": during, "after": after} {
		var names []string
		for _, e := range log {
			names = append(names, e.End)
			if e.End == "server" && !strings.Contains(e.Text, "<<< Client") {
				t.Errorf("%s the cell: the server logged %q", when, e.Text)
			}
		}
		if len(names) != 3 {
			t.Errorf("%s the cell: logs of %q, want client, second and server", when, names)
		}
	}
	if !free(server) {
		t.Errorf("%v is in use after the cell", server)
	}
	if log, err := s.conn.Log(t.Context(), "another"); len(log) != 0 || err != nil {
		t.Errorf("of a cell that never was: %v, %v", log, err)
	}
}

// What an orchestrator gone mad can have an agent hold is bounded.
func TestBounds(t *testing.T) {
	noLeaks(t)
	s := serve(t, Options{Heartbeat: slow}, slow)
	var steps []script.Step
	for i := range maxEnds + 1 {
		steps = append(steps, openServer(fmt.Sprint(i)))
	}
	out, err := s.conn.Script(t.Context(), script.Script{Cell: "wide", Steps: steps, End: true})
	if err != nil {
		t.Fatal(err)
	}
	if out[maxEnds-1].Err != nil || out[maxEnds].Err == nil {
		t.Errorf("endpoint %d: %v, endpoint %d: %v", maxEnds, out[maxEnds-1].Err, maxEnds+1, out[maxEnds].Err)
	}
	for i := range maxDone + 1 {
		s.run(t, script.Script{Cell: fmt.Sprint(i), Steps: []script.Step{openServer("server")}, End: true})
	}
	for cell, want := range map[string]int{"wide": 0, "0": 0, "1": 1, fmt.Sprint(maxDone): 1} {
		if log, err := s.conn.Log(t.Context(), cell); len(log) != want || err != nil {
			t.Errorf("cell %s: logs %v, want %d; %v", cell, log, want, err)
		}
	}
	var b bounded
	for range 3 {
		if n, err := b.Write(make([]byte, maxLog-1)); n != maxLog-1 || err != nil {
			t.Errorf("log: %d, %v", n, err)
		}
	}
	if b.Len() != maxLog {
		t.Errorf("%d bytes of log are kept, want %d", b.Len(), maxLog)
	}
}

// Many cells at once over one connection do not disturb each other.
func TestManyAtOnce(t *testing.T) {
	noLeaks(t)
	s := serve(t, Options{Heartbeat: slow}, slow)
	const cells, rounds = 64, 8
	var all sync.WaitGroup
	for c := range cells {
		all.Go(func() {
			for r := range rounds {
				cell := fmt.Sprintf("%d.%d", c, r)
				out, err := s.conn.Script(t.Context(), script.Script{Cell: cell,
					Steps: []script.Step{openServer("server")}})
				if err != nil || out[0].Err != nil {
					t.Errorf("cell %s: %v %+v", cell, err, out)
					return
				}
				client := script.Datagram{Ends: script.Ends{Role: script.Client, Local: loopback, Remote: out[0].Local}}
				out, err = s.conn.Script(t.Context(), script.Script{Cell: cell, End: true, Steps: []script.Step{
					script.Open{Socket: "client", Spec: client}, script.Connect{Socket: "client"},
					script.Send{Socket: "client", Data: cell + "\n"}, script.Rest{Socket: "server"},
				}})
				if err != nil || len(out[3].Messages) != 1 || string(out[3].Messages[0].Data) != cell+"\n" {
					t.Errorf("cell %s: %v %+v", cell, err, out)
					return
				}
			}
		})
	}
	all.Wait()
}

// An agent ends although its orchestrator does not read.
func TestServeToDeaf(t *testing.T) {
	in, input := io.Pipe()
	output, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Serve(t.Context(), in, out, Options{Heartbeat: slow}) }()
	// The magic is written before all else; no one reads the hello.
	if _, err := io.ReadFull(output, make([]byte, len(Magic))); err != nil {
		t.Fatal(err)
	}
	input.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it does not end")
	}
	output.Close()
}

// TestBreaksNoRealHost: what breaks a host is for labs, and nothing has been done when it is
// refused.
func TestBreaksNoRealHost(t *testing.T) {
	s := serve(t, Options{Heartbeat: time.Minute, StateDir: t.TempDir()}, time.Minute)
	for _, remote := range []bool{false, true} {
		_, err := s.conn.Setup(t.Context(), script.Setup{Remote: remote,
			Break: []injection.Action{injection.Forwarding}})
		if err == nil || !strings.Contains(err.Error(), "in a lab only") {
			t.Errorf("remote %v: %v", remote, err)
		}
	}
}
