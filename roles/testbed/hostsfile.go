package testbed

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/agent"
	"pfdivert/roles/terminal"
)

// A hosts file (-hosts) names the hosts that one run tests at once:
//
//	# kernels to compare
//	root@pfhost  name=openbsd77  LOCAL_ADDR=10.188.1.1  REMOTE_ADDR=10.188.1.2  FAKE_ADDR=10.188.2.0/24
//	tester@debian  SUDO=sudo  SSH_OPTIONS='-p 2222'
//	    LOCAL_ADDR=10.77.1.1  REMOTE_ADDR=10.77.1.2  FAKE_ADDR=10.77.2.0/24
//
// A line that begins with a word without '=' begins a host: the word is what ssh takes.
// What is NAME=VALUE belongs to the host, on its line and on those that follow.
// Quotes are as a shell's, but nothing in them is expanded. '#' begins a comment
// where a word could begin.

// maxHostsFile bounds a hosts file, in bytes, and maxHosts the hosts that one run tests.
const (
	maxHostsFile = 1 << 20
	maxHosts     = 32
)

// perHost are the variables that a host of the file can have; the environment's are for hosts
// that lack them.
var perHost = []string{
	"LOCAL_ADDR", "REMOTE_ADDR", "FAKE_ADDR", "LOCAL_ADDR6", "REMOTE_ADDR6", "FAKE_ADDR6",
	"GATEWAY_ADDR", "MIRROR_ADDR", "GATEWAY_ADDR6", "MIRROR_ADDR6", "SSH_OPTIONS", "SUDO", "filter",
}

// perKernel are the variables of a host that is a kernel to boot. kernelVariable begins it.
var perKernel = []string{"modules", "memory", "cpus", "filter"}

const kernelVariable = "kernel"

// fileHost is a host of a hosts file.
type fileHost struct {
	name, ssh string
	kernel    string // the image of a kernel to boot, in place of ssh
	set       map[string]string
	where     string // FILE:LINE
}

// variables are those that this host may have.
func (h fileHost) variables() []string {
	if h.kernel != "" {
		return perKernel
	}
	return perHost
}

// getenv is the environment for this host alone.
func (h fileHost) getenv(env func(string) string) func(string) string {
	return func(name string) string {
		if name == "REMOTE_SSH" {
			return h.ssh
		}
		if v, ok := h.set[name]; ok {
			return v
		}
		return env(name)
	}
}

// readHosts reads a hosts file.
func readHosts(name string) ([]fileHost, error) {
	const hint = "docs/remote.md shows a hosts file"
	f, err := os.Open(name)
	if err != nil {
		return nil, terminal.WithHint(fmt.Errorf("hosts file: %w", err), hint)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHostsFile+1))
	if err != nil {
		return nil, terminal.WithHint(fmt.Errorf("hosts file: %w", err), hint)
	}
	if len(text) > maxHostsFile {
		return nil, terminal.WithHint(fmt.Errorf("hosts file: %s has more than %d bytes", name, maxHostsFile),
			"make several files of it")
	}
	return parseHosts(name, string(text))
}

// hostNames are names for columns and folders.
var hostNames = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._]{0,31}$`)

const nameHint = "name=NAME with letters, digits, '-', '.' and '_', at most 32"

// parseHosts reads the text of a hosts file; file is its name for errors, which begin
// with FILE:LINE.
func parseHosts(file, text string) (hosts []fileHost, err error) {
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) { // editors of Windows put it there
		number++
		where := fmt.Sprintf("%s:%d", file, number)
		wrong := func(hint, format string, a ...any) ([]fileHost, error) {
			return nil, terminal.WithHint(fmt.Errorf("%s: "+format, append([]any{where}, a...)...), hint)
		}
		words, err := hostWords(line)
		if err != nil {
			return wrong("close it on the same line", "%w", err)
		}
		for i, word := range words {
			name, value, isValue := strings.Cut(word, "=")
			switch {
			case isValue && i == 0 && name == kernelVariable:
				hosts = append(hosts, fileHost{kernel: value, set: map[string]string{}, where: where})
			case !isValue && i > 0:
				return wrong("NAME=VALUE, with quotes around a value with spaces; every host begins a line", "%q is no NAME=VALUE", word)
			case !isValue:
				if strings.HasPrefix(word, "-") || strings.ContainsAny(word, " \t\x00") {
					return wrong("root@pfhost", "%q is no ssh destination", word)
				}
				hosts = append(hosts, fileHost{ssh: word, set: map[string]string{}, where: where})
			case len(hosts) == 0:
				return wrong("begin with what ssh takes: root@pfhost "+word, "%s belongs to no host", name)
			case name != "name" && !slices.Contains(hosts[len(hosts)-1].variables(), name):
				known := append([]string{"name"}, hosts[len(hosts)-1].variables()...)
				return wrong(matrix.Suggest(name, known)+"known are "+strings.Join(known, ", "), "there is no %q", name)
			default:
				h := &hosts[len(hosts)-1]
				if _, twice := h.set[name]; twice {
					return wrong("every host begins with what ssh takes, or with kernel=, at a line's beginning",
						"%s is given twice for %s", name, cmp.Or(h.ssh, h.kernel))
				}
				if name == "filter" {
					if err := ValidFilter(value); err != nil {
						return wrong(agent.HintOf(err), "%w", err)
					}
				}
				h.set[name] = value
			}
		}
	}
	if len(hosts) == 0 {
		return nil, terminal.WithHint(fmt.Errorf("%s: there is no host in it", file),
			"root@pfhost LOCAL_ADDR=… REMOTE_ADDR=… FAKE_ADDR=…; docs/remote.md shows a hosts file")
	}
	return hosts, nameHosts(hosts)
}

// nameHosts gives each host its name: what the file says, else the host's part of
// what ssh takes.
func nameHosts(hosts []fileHost) error {
	named := map[string]fileHost{}
	for i := range hosts {
		h := &hosts[i]
		h.name = h.ssh[strings.LastIndexByte(h.ssh, '@')+1:]
		if h.kernel != "" {
			h.name = strings.TrimPrefix(filepath.Base(h.kernel), "vmlinuz-")
		}
		if name, ok := h.set["name"]; ok {
			h.name = name
			delete(h.set, "name")
		}
		if !hostNames.MatchString(h.name) {
			return terminal.WithHint(fmt.Errorf("%s: %q can't be the host's name in the report", h.where, h.name),
				nameHint)
		}
		if other, taken := named[h.name]; taken {
			return terminal.WithHint(fmt.Errorf("%s: %s is the name of the host of %s, too", h.where, h.name,
				other.where), "give one of them another: name=NAME")
		}
		named[h.name] = *h
	}
	return nil
}

// hostWords splits a line into words.
func hostWords(line string) (words []string, err error) {
	var word strings.Builder
	var in bool
	var mark rune // the quote that is open
	for _, r := range line {
		switch {
		case mark != 0 && r == mark:
			mark = 0
		case mark == 0 && (r == '\'' || r == '"'):
			in, mark = true, r
		case mark == 0 && strings.ContainsRune(" \t\r\n", r):
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		case mark == 0 && !in && r == '#':
			return words, nil
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if mark != 0 {
		return nil, fmt.Errorf("the quote %c is not closed", mark)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// selectHosts returns the hosts that $REMOTE_SSH names, by name or by what ssh takes, or
// all when it names none.
func selectHosts(hosts []fileHost, names string) ([]fileHost, error) {
	wanted := strings.Fields(names)
	if len(wanted) == 0 {
		return hosts, fewEnough(hosts)
	}
	var known []string
	chosen := map[string]bool{}
	for _, w := range wanted {
		found := false
		for _, h := range hosts {
			if w == h.name || h.ssh != "" && w == h.ssh {
				chosen[h.name], found = true, true
			}
			known = append(known, h.name)
		}
		if !found {
			return nil, terminal.WithHint(fmt.Errorf("REMOTE_SSH: there is no host %q in the hosts file", w),
				matrix.Suggest(w, known)+"without REMOTE_SSH all are tested")
		}
	}
	hosts = slices.DeleteFunc(slices.Clone(hosts), func(h fileHost) bool { return !chosen[h.name] })
	return hosts, fewEnough(hosts)
}

// fewEnough refuses more hosts than one run tests.
func fewEnough(hosts []fileHost) error {
	if len(hosts) <= maxHosts {
		return nil
	}
	return terminal.WithHint(fmt.Errorf("these are %d hosts, and a run tests %d at most", len(hosts), maxHosts),
		fmt.Sprintf("choose some by their names: REMOTE_SSH='%s %s'", hosts[0].name, hosts[1].name))
}

// own names what each of two hosts that clash must have of its own: a REMOTE address that lies in
// the other's FAKE prefix is as it must be, and the prefix is not.
func own(mine, other string) string {
	if strings.HasPrefix(other, "FAKE") {
		return other
	}
	return mine
}

// validateHosts looks whether the hosts can be tested at once.
func validateHosts(hosts []fileHost, targets []matrix.Target, env func(string) string) error {
	type use struct {
		what   string
		prefix netip.Prefix
		host   fileHost
	}
	var uses []use
	beyond := slices.ContainsFunc(targets, matrix.Target.Forwards) // else a run has no way to third hosts
	for _, h := range hosts {
		if h.kernel != "" {
			continue // a lab's addresses are its own
		}
		families, err := addressesFor(targets, h.getenv(env))
		var second map[pfconf.Family]matrix.Network
		if err == nil {
			second, err = secondNetworks(families, h.getenv(env))
		}
		if err != nil {
			return terminal.WithHint(fmt.Errorf("%s: %s: %w", h.where, h.name, err), agent.HintOf(err))
		}
		for _, f := range pfconf.Families {
			a, ok := families[f]
			if !ok {
				continue
			}
			names := addressNames[f]
			taken := []use{{names[1], netip.PrefixFrom(a.Remote, a.Remote.BitLen()), h}, {names[2], a.Fakes, h}}
			if mirror := second[f].Mirror; mirror.IsValid() && beyond {
				taken = append(taken, use{script.MirrorVariable(f), netip.PrefixFrom(mirror, mirror.BitLen()), h})
			}
			for _, mine := range taken {
				for _, u := range uses {
					if u.host.name != h.name && u.prefix.Overlaps(mine.prefix) {
						return terminal.WithHint(
							fmt.Errorf("%s: %s of %s is %v, and %s of %s (%s) is %v", h.where, mine.what, h.name,
								mine.prefix, u.what, u.host.name, u.host.where, u.prefix),
							fmt.Sprintf("give each host a %s of its own: LOCAL can send what is for one address to one host only",
								own(mine.what, u.what)))
					}
				}
				uses = append(uses, mine)
			}
		}
	}
	return nil
}
