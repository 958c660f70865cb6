package roles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"pfdivert/roles/kernel"
	"pfdivert/roles/lab/namespace"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
	"pfdivert/roles/twin"
)

const (
	doctorUsage = "[FLAGS] [-save FILE] [-kernel IMAGE] [FILE]"
	doctorHelp  = `It copies the host's network configuration (devices, addresses, routes, policy rules,
settings, the rules of nft, iptables and iptables-legacy, ipsets, listening sockets)
into a network namespace of the same kernel, puts clients and an internet around the
copy, and runs connections and datagrams through it: from clients, from the host's own
programs, from what the rules leave out, to the host's services. Where one fails the
kernel's own trace says where its packet ended. A cause is told when its absence fixes
the flow in the copy, and a fix when it does and no other flow suffers. Nothing is
changed on the host, and no packet is sent there. Reading rules needs root.

The first line says how many problems there are. Each problem begins with "bad": traffic
is lost or goes where it should not; or with "warn": it works for most traffic, or is a
guess. What the copy does not have, and so no verdict covers, is a line "note:".

A FLOW is 'tcp 192.168.1.20 -> 198.51.100.7:443', or 'tcp host mark 0xff -> …' for a
program of the host itself. FILE is what -save wrote, perhaps on another host: some
kilobytes for a bug report, without comments, hardware addresses' vendors and keys. It
is run in a user namespace, by any user; with -kernel, in a machine of QEMU that has
that kernel, so that the same host is looked at on several.

Exit status: 0 when nothing is bad, 1 when something is, 2 when it could not be read.`
)

// runDoctor runs flows in a twin of the host, or of one whose configuration was saved.
func runDoctor(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	asJSON := f.Bool("json", false, "print the problems and the flows as JSON")
	verbose := f.Bool("v", false, "print every flow, and the rules that its first packet met")
	page := f.String("html", "", "write the problems, flows and traces to this `FILE` as a page")
	traced := f.String("trace", "", "print the kernel's trace of this `FLOW` alone")
	save := f.String("save", "", "write the host's configuration to this `FILE`, and run nothing")
	pseudonyms := f.Bool("pseudonyms", false, "with -save, replace addresses by others that keep their prefixes")
	var own []twin.Flow
	var flows []string // the same as they were typed
	f.Func("flow", "run this `FLOW` too, and print the rules that it met; may be given several times", func(s string) error {
		flow, err := twin.ParseFlow(s)
		own, flows = append(own, flow), append(flows, s)
		return err
	})
	var machine testbed.Options
	kernelFlags(f, &machine)
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if f.NArg() > 1 || f.NArg() == 1 && *save != "" || *pseudonyms && *save == "" ||
		machine.Kernel != "" && *save != "" {
		return exitError, terminal.WithHint(errors.New("these arguments do not go together"), "pfdivert doctor -h")
	}
	if machine.Kernel != "" {
		return doctorOnKernel(ctx, c, f, machine, flows)
	}
	// A host may have sets of 100,000 networks, which are copied several times: memory is dearer
	// here than in the roles that meet packets.
	debug.SetGCPercent(100)
	config, status, err := doctorConfig(ctx, c, f.Arg(0))
	if err != nil || config == nil {
		return status, err
	}
	if *save != "" {
		if *pseudonyms {
			if config, err = config.Pseudonyms(); err != nil {
				return exitError, err
			}
		}
		return doctorSave(config, *save)
	}
	o := twin.Options{Flows: own, Trace: *verbose || *page != ""}
	if *traced != "" {
		flow, err := twin.ParseFlow(*traced)
		if err != nil {
			return exitError, err
		}
		o = twin.Options{Flows: []twin.Flow{flow}, Only: true, Trace: true}
	}
	for i := range o.Flows {
		if o.Flows[i], err = config.Place(o.Flows[i]); err != nil {
			return exitError, err
		}
	}
	if f.NArg() == 0 { // a snapshot has the elements of big sets that its planned flows meet
		if err := config.Ask(ctx, o.Flows); err != nil {
			return exitError, err
		}
	}
	d, err := twin.Diagnose(ctx, config, o)
	if err != nil {
		return exitError, err
	}
	p := &doctorPrinter{config: config, d: d}
	switch {
	case *asJSON:
		err = p.json(c.Out)
	case *traced != "":
		err = p.trace(c.Out)
	default:
		err = p.text(c.Out, *verbose)
	}
	if err == nil && *page != "" {
		err = writeFile(*page, p.html())
	}
	switch {
	case err != nil:
		return exitError, err
	case d.Bad():
		return exitFail, nil
	}
	return exitOK, nil
}

// doctorOnKernel has another kernel replay a snapshot, and this program tell there what it found.
func doctorOnKernel(ctx context.Context, c *call, f *flag.FlagSet, machine testbed.Options,
	flows []string) (int, error) {
	if f.NArg() == 0 {
		return exitError, terminal.WithHint(errors.New("a kernel replays a saved configuration, and no FILE is named"),
			"pfdivert doctor -save FILE, and then pfdivert doctor -kernel "+machine.Kernel+" FILE")
	}
	snapshot, err := os.ReadFile(f.Arg(0))
	if err != nil {
		return exitError, err
	}
	var words []string
	for _, text := range flows {
		words = append(words, "-flow="+text)
	}
	page := f.Lookup("html").Value.String()
	if page != "" {
		if err := f.Set("html", kernel.OutputPath); err != nil {
			return exitError, err
		}
	}
	var output bytes.Buffer
	status, err := c.onKernel(ctx, f, machine, kernel.Job{Arguments: append(words, kernel.InputPath), Input: snapshot,
		Output: &output})
	if err == nil && page != "" && output.Len() > 0 {
		err = writeFile(page, output.String())
	}
	if err != nil {
		return exitError, err
	}
	return status, nil
}

// doctorConfig reads the host, or a file. A file is replayed by another process of this program
// that has no privilege outside of a namespace; its exit status is returned, with no configuration.
func doctorConfig(ctx context.Context, c *call, file string) (*twin.Snapshot, int, error) {
	if file == "" {
		config, err := twin.Read(ctx)
		if err != nil {
			return nil, exitError, err
		}
		if len(config.Unread) > 0 {
			return nil, exitError, terminal.WithHint(fmt.Errorf("could not read %s",
				strings.Join(config.Unread, "; ")), "start it as root (sudo or doas)")
		}
		return config, exitOK, nil
	}
	if !twin.Enclosed() {
		cmd, err := twin.Enclose(ctx, append([]string{"doctor"}, c.args...))
		if err != nil {
			return nil, exitError, err
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.In, c.Out, c.Err
		if err := cmd.Run(); cmd.ProcessState == nil {
			return nil, exitError, namespace.Explain(err)
		}
		return nil, cmd.ProcessState.ExitCode(), nil
	}
	r, err := os.Open(file)
	if err != nil {
		return nil, exitError, err
	}
	defer r.Close()
	config, err := twin.Load(r)
	return config, exitOK, err
}

// doctorSave writes a snapshot, with the rights of its owner alone.
func doctorSave(config *twin.Snapshot, file string) (int, error) {
	w, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return exitError, err
	}
	err = config.Save(w)
	if e := w.Close(); err == nil {
		err = e
	}
	if err != nil {
		return exitError, err
	}
	return exitOK, nil
}

func writeFile(file, text string) error { return os.WriteFile(file, []byte(text), 0o644) }

// doctorPrinter writes what was found.
type doctorPrinter struct {
	config *twin.Snapshot
	d      *twin.Diagnosis
}

// heading is the first line.
func (p *doctorPrinter) heading() string {
	text := count(len(p.d.Problems), "problem")
	if len(p.d.Problems) == 0 {
		text = fmt.Sprintf("no problem found in %s", count(len(p.d.Results), "flow"))
	}
	if !p.d.Diverts {
		text = "no rule diverts to a program; " + text
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p *doctorPrinter) text(w io.Writer, verbose bool) error {
	var b strings.Builder
	fmt.Fprintln(&b, p.heading())
	if verbose || len(p.d.Problems) > 0 {
		fmt.Fprintln(&b, "clients, addresses of the internet and ports that neither the host nor its rules name are invented stand-ins")
	}
	for _, x := range p.d.Problems {
		fmt.Fprintf(&b, "\n%-4s  %s\n", x.Severity, x.What)
		say := func(word, text string) {
			for i, line := range strings.Split(text, "\n") {
				if i > 0 {
					word = ""
				} else if word != "" {
					word += ":"
				}
				if line != "" {
					fmt.Fprintf(&b, "      %-7s%s\n", word, line)
				}
			}
		}
		say("why", x.Why)
		say("seen", strings.Join(x.Seen, "\n"))
		say("check", x.Check)
		say("fix", x.Fix)
		say("price", x.Price)
		say("or", x.Narrow)
	}
	told := slices.Clone(p.d.Results)
	if !verbose {
		told = slices.DeleteFunc(told, func(r twin.FlowResult) bool { return r.Flow.Kind != twin.Given })
	}
	if len(told) > 0 {
		fmt.Fprintln(&b)
		for _, r := range told {
			fmt.Fprintf(&b, "%-9s %s: %s\n", r.Outcome, r.Flow.ID, p.receiver(r))
			if path, ok := p.d.Paths[r.Flow.ID]; ok {
				for _, line := range p.config.Story(path) {
					fmt.Fprintf(&b, "          %s\n", line)
				}
			}
		}
	}
	if verbose {
		for _, text := range p.d.Willed {
			fmt.Fprintf(&b, "refused on purpose: %s\n", text)
		}
	}
	for _, text := range p.d.Notes {
		fmt.Fprintf(&b, "note: %s\n", text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// receiver says who got a flow.
func (p *doctorPrinter) receiver(r twin.FlowResult) string {
	switch r.Reached {
	case twin.AtSocket:
		s := p.config.Sockets[r.Socket]
		return strings.TrimSpace(fmt.Sprintf("%s %s %v", s.Comm, s.Proto, s.Local))
	case twin.Internet:
		return "the internet, by " + r.Out
	case twin.ClientAt:
		return "someone behind " + r.Out
	}
	return strings.TrimSpace("no one " + r.Error)
}

// trace writes each packet with all rules that it met.
func (p *doctorPrinter) trace(w io.Writer) error {
	var b strings.Builder
	for _, r := range p.d.Results {
		fmt.Fprintf(&b, "%s: %s, %s\n", r.Flow.ID, r.Outcome, p.receiver(r))
		for _, line := range p.config.Trace(p.d.Paths[r.Flow.ID]) {
			fmt.Fprintln(&b, line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// doctorFlow is a flow in JSON.
type doctorFlow struct {
	ID      string `json:"flow"`
	Kind    string `json:"kind"`
	Outcome string `json:"outcome"`
	Reached string `json:"reached"`
}

func (p *doctorPrinter) json(w io.Writer) error {
	out := struct {
		Problems []twin.Problem `json:"problems"`
		Flows    []doctorFlow   `json:"flows"`
		Refused  []string       `json:"refused"`
		Notes    []string       `json:"notes"`
	}{p.d.Problems, []doctorFlow{}, p.d.Willed, p.d.Notes}
	for _, r := range p.d.Results {
		out.Flows = append(out.Flows, doctorFlow{r.Flow.ID, string(r.Flow.Kind), string(r.Outcome), p.receiver(r)})
	}
	for _, list := range []*[]string{&out.Refused, &out.Notes} {
		if *list == nil {
			*list = []string{}
		}
	}
	if out.Problems == nil {
		out.Problems = []twin.Problem{}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(out)
}
