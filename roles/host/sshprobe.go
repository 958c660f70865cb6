package host

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// probe asks a host all that is to be known of it, in one go, for a POSIX sh.
// It leaves a folder in which a program may run, which the shell removes at
// its end (the trap): that is so even when this program or the agent is killed.
// Folders whose names not all shells take alike are passed over. KEEP is
// replaced by "yes" or nothing.
const probe = `LC_ALL=C; export LC_ALL; umask 077
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/usr/bin:/bin
echo "system=$(uname -s)"
echo "machine=$(uname -m)"
echo "uid=$(id -u)"
echo "user=$(id -un)"
for t in sudo doas gzip pfctl nft kdump; do
	p=$(command -v $t) && echo "tool=$p"
done
cache=$HOME/.cache/pfdivert; keep=KEEP
for f in "$cache"/*/pfdivert; do
	test -x "$f" && echo "cached=$f"
done
dir=
trap 'test -z "$dir" || rm -rf "$dir"' 0
trap 'exit 1' 1 2 15
for base in "${keep:+$cache}" "$TMPDIR" /tmp /var/tmp "$HOME/.cache" "$HOME"; do
	case $base in
	*[!A-Za-z0-9/._@+-]*|[!/]*|'') continue ;;
	esac
	test "$base" = "$cache" && mkdir -p "$cache" 2>/dev/null
	test -d "$base" || continue
	if ! e=$(mktemp -d "$base/pfdivert-XXXXXXXXXX" 2>&1); then
		echo "no=$e"
		continue
	fi
	dir=$e
	if ! e=$(printf '#!/bin/sh\nexit 0\n' | cat 2>&1 >"$dir/try") || ! e=$(chmod 700 "$dir/try" 2>&1); then
		echo "no=$base: $e"
	elif ! e=$("$dir/try" 2>&1); then
		echo "noexec=$base"
	else
		rm -f "$dir/try"
		echo "dir=$dir"
		break
	fi
	rm -rf "$dir"
	dir=
done
`

// hostFacts is what the probe found.
type hostFacts struct {
	system, machine string // uname's
	uid             int
	user            string
	tools           map[string]string // paths by name
	cached          []string          // paths of kept binaries
	dir             string            // for the binary; empty when there is none
	no              []string          // why not, by folder
	noexec          []string          // the folders in which nothing may run
}

// ownFolder is what the probe's mktemp makes.
var ownFolder = regexp.MustCompile(`^pfdivert-[A-Za-z0-9]{10}$`)

// keptBinary is a path in the cache, in any home.
var keptBinary = regexp.MustCompile(`/\.cache/pfdivert/([0-9a-f]{64})/pfdivert$`)

// parseFacts reads what the probe printed. Another host wrote it.
func parseFacts(out string) (hostFacts, error) {
	f := hostFacts{uid: -1, tools: map[string]string{}}
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			continue
		}
		isPath := path.IsAbs(value) && plain(value)
		switch key {
		case "system":
			f.system = value
		case "machine":
			f.machine = value
		case "user":
			f.user = value
		case "uid":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return f, fmt.Errorf("the host's 'id -u' gave %q", value)
			}
			f.uid = int(n)
		case "tool":
			if isPath { // not so for an alias or a function
				f.tools[path.Base(value)] = value
			}
		case "cached":
			if isPath && keptBinary.MatchString(value) {
				f.cached = append(f.cached, value)
			}
		case "no":
			f.no = append(f.no, value)
		case "noexec":
			f.noexec = append(f.noexec, value)
		case "dir":
			if !isPath || !ownFolder.MatchString(path.Base(value)) {
				return f, fmt.Errorf("the host's 'mktemp -d' gave %q", value)
			}
			f.dir = value
		}
	}
	if f.system == "" || f.machine == "" || f.uid < 0 {
		return f, fmt.Errorf("the host answered the probe with %q", out)
	}
	return f, nil
}

// folderError says why no folder takes the binary.
func (f *hostFacts) folderError(host string) *Error {
	said := strings.Join(f.no, "; ")
	switch {
	case diskFull(said):
		return &Error{Reason: DiskFull, Host: host, Text: "the disk is full: " + said,
			hint: "make room there: the program needs 8 MB for the run"}
	case len(f.noexec) > 0:
		return &Error{Reason: NoExec, Host: host,
			Text: "programs may not run in " + strings.Join(append(f.noexec, f.no...), ", "),
			hint: "the folders are mounted noexec; name another there by TMPDIR (ssh: 'SetEnv TMPDIR=/DIR', with AcceptEnv in sshd_config), or remount one"}
	}
	return &Error{Reason: NoFolder, Host: host, Text: "no folder takes a file: " + said,
		hint: "the user needs a folder of their own to write to: /tmp, /var/tmp or their home"}
}

// diskFull tells by what a tool said whether a file found no room: ENOSPC,
// EDQUOT (strerror(3) in the C locale).
func diskFull(said string) bool {
	return strings.Contains(said, "No space left on device") || strings.Contains(said, "uota exceeded")
}
