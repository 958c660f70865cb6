package twin

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
)

// A module of the kernel with a function that it has, which /proc/kallsyms shows.
type module struct{ name, function string }

var (
	nfTables = module{"nf_tables", "nf_tables_getset"}
	ipSet    = module{"ip_set", "ip_set_dump"}
	tcpDiag  = module{"tcp_diag", "tcp_diag_dump"}
	udpDiag  = module{"udp_diag", "udp_diag_dump"}
	veth     = module{"veth", "veth_newlink"}
)

// there reports whether the kernel has a module without asking it for what the module does: that
// would load it.
func (m module) there() (bool, error) {
	loaded, err := os.ReadFile("/proc/modules")
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // a kernel that can load none has it, or says that it has not
	} else if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(loaded)) {
		if name, _, _ := strings.Cut(line, " "); name == m.name {
			return true, nil
		}
	}
	builtin, err := os.ReadFile(path.Join("/lib/modules", system().Kernel, "modules.builtin"))
	if err == nil {
		for line := range strings.Lines(string(builtin)) {
			if strings.ReplaceAll(path.Base(strings.TrimSpace(line)), "-", "_") == m.name+".ko" {
				return true, nil
			}
		}
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	// In a container, or on a system that comes without the list. Loaded ones were found above.
	symbols, err := os.Open("/proc/kallsyms")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	defer symbols.Close()
	lines := bufio.NewScanner(symbols)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 2 && f[2] == m.function {
			return true, nil
		}
	}
	return false, lines.Err()
}
