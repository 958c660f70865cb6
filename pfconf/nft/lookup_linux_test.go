//go:build bpf

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/rtnetlink"
)

func lookupConfig() Config {
	c := testConfig()
	c.Engine = pfconf.BPFLookup
	return c
}

// attached counts the programs in the namespace's search for a socket.
func attached(t *testing.T, n namespace) int {
	t.Helper()
	found, err := link.QueryPrograms(link.QueryOptions{Target: int(n), Attach: ebpf.AttachSkLookup})
	check(t, err)
	return len(found.Programs)
}

// localToFake counts the routes that make FAKE local.
func localToFake(t *testing.T, n namespace) (count int) {
	t.Helper()
	n.do(t, func() {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			all, err := route(t).Routes(family, unix.RT_TABLE_LOCAL)
			check(t, err)
			count += len(slices.DeleteFunc(all, func(r rtnetlink.Route) bool {
				return !slices.Contains(testConfig().Fakes, r.Dst)
			}))
		}
	})
	return count
}

const killedLookup = "PFDIVERT_KILLED_LOOKUP"

// The program goes with a process that is killed, and the journal removes the routes. One that is
// closed leaves neither.
func TestLookupKilled(t *testing.T) {
	n := newNamespace(t)
	if os.Getenv(killedLookup) != "" { // the child
		config := lookupConfig()
		config.Interface = "lo"
		runtime.LockOSThread()
		check(t, unix.Setns(3, unix.CLONE_NEWNET))
		_, err := Open(t.Context(), config)
		check(t, err)
		fmt.Println("open")
		select {}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLookupKilled$")
	cmd.Env = append(os.Environ(), killedLookup+"=1")
	cmd.Stderr = os.Stderr
	fd, err := unix.Dup(int(n))
	check(t, err)
	ns := os.NewFile(uintptr(fd), "net")
	defer ns.Close()
	cmd.ExtraFiles = []*os.File{ns}
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	b := make([]byte, 100)
	k, err := out.Read(b)
	if err != nil || string(b[:k]) != "open\n" {
		t.Fatalf("the child said %q: %v", b[:k], err)
	}
	if got := attached(t, n); got != 1 {
		t.Errorf("%d programs while it runs, want 1", got)
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	if got := attached(t, n); got != 0 {
		t.Errorf("%d programs when it is killed, want none", got)
	}
	if got := localToFake(t, n); got != 2 {
		t.Errorf("%d routes when it is killed, want those of the two families", got)
	}
	config := lookupConfig()
	config.Interface = "lo"
	var taken *TakenError
	n.do(t, func() { _, err = Open(t.Context(), config) })
	if !errors.As(err, &taken) {
		t.Errorf("before it is cleaned up: %v", err)
	}
	n.do(t, func() {
		steps := []pfconf.Undo{{Do: undoTable}}
		for _, p := range config.Fakes {
			steps = append(steps, pfconf.Undo{Do: undoLookup, Args: []string{p.String()}})
		}
		for _, u := range append(steps, steps...) {
			check(t, Undo(t.Context(), u))
		}
	})
	f := n.open(t, config)
	if got := attached(t, n) + localToFake(t, n); got != 3 {
		t.Errorf("%d programs and routes, want 3", got)
	}
	check(t, f.Close(t.Context()))
	if got := attached(t, n) + localToFake(t, n); got != 0 {
		t.Errorf("%d programs and routes are left", got)
	}
}

// Another's program in the search is not harmed: it stays, and what it drops or leaves alone goes
// to the listener that this program's chose.
func TestLookupBesideAnother(t *testing.T) {
	a := pfconf.Inet.Loopback().As4()
	loopback4 := int32(binary.NativeEndian.Uint32(a[:])) // there they are asked about the listener itself
	for _, verdict := range []int32{0, 1} {              // SK_DROP, SK_PASS
		l := newLab(t)
		other, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup,
			License: "ISC",
			Instructions: asm.Instructions{
				asm.LoadMem(asm.R1, asm.R1, 40, asm.Word), // struct bpf_sk_lookup, local_ip4
				asm.Mov.Imm(asm.R0, 1), asm.JEq.Imm(asm.R1, loopback4, "end"), asm.Mov.Imm(asm.R0, verdict),
				asm.Return().WithSymbol("end")}})
		check(t, err)
		defer other.Close()
		theirs, err := link.AttachNetNs(int(l.remote), other)
		check(t, err)
		defer theirs.Close()
		f := l.remote.open(t, lookupConfig())
		if got := attached(t, l.remote); got != 2 {
			t.Errorf("%d programs, want 2", got)
		}
		r := toRule(pfconf.Inet, pfconf.UDP, 7021)
		var server net.PacketConn
		var client net.Conn
		l.remote.do(t, func() { server, err = net.ListenPacket("udp", r.Divert.String()) })
		check(t, err)
		defer server.Close()
		check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
		l.local.do(t, func() { client, err = net.Dial("udp", netip.AddrPortFrom(r.To, r.Port).String()) })
		check(t, err)
		defer client.Close()
		_, err = client.Write([]byte("x"))
		check(t, err)
		check(t, server.SetReadDeadline(ended()))
		_, _, err = server.ReadFrom(make([]byte, 1))
		check(t, err)
		check(t, f.Close(t.Context()))
		if got := attached(t, l.remote); got != 1 {
			t.Errorf("%d programs afterwards, want the other one", got)
		}
	}
}

// The kernel is asked for what the rules need, and what it lacks is named by each rule.
func TestLookupProbe(t *testing.T) {
	config := lookupConfig()
	if a := newNamespace(t).open(t, config).Probe(need.BPFLookup); a.Support != Yes {
		t.Errorf("%+v", a)
	}
	config.Omit = []Piece{TProxyModule}
	f := newNamespace(t).open(t, config)
	if a := f.Probe(need.BPFLookup); a.Support != No {
		t.Errorf("without the helper: %+v", a)
	}
	var missing *need.MissingError
	err := f.Change(t.Context(), []pfconf.Rule{toRule(pfconf.Inet, pfconf.TCP, 1)}, nil)
	if !errors.As(err, &missing) || missing.Feature != need.BPFLookup || !strings.Contains(err.Error(), "sk_lookup") {
		t.Errorf("a rule without the helper: %v", err)
	}
}
