package host

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// fullError is that the folder of the probe has no room for the program.
type fullError struct{ error }

// placed is place, which tries the other folders when one is full.
func (r *Remote) placed(ctx context.Context, o SSHOptions, p *privilege, b *binary, f *hostFacts) (string, error) {
	var none []string
	for {
		path, err := r.place(ctx, o, b, f)
		var full fullError
		if !errors.As(err, &full) {
			return path, err
		}
		none = append(none, f.dir[:strings.LastIndexByte(f.dir, '/')])
		if f, err = r.look(ctx, o, p, none...); err != nil {
			return "", err
		}
	}
}

// place makes sure that the program is on the host and gives its path. It returns a fullError when
// the folder of the probe has no room for it.
func (r *Remote) place(ctx context.Context, o SSHOptions, b *binary, f *hostFacts) (string, error) {
	for _, path := range f.cached {
		if keptBinary.FindStringSubmatch(path)[1] == b.sum {
			r.Cached = true
			return path, nil
		}
	}
	if f.dir == "" {
		f.size = b.size
		return "", f.folderError(r.host)
	}
	if o.Doing != nil {
		o.Doing("copying the program to " + o.Destination)
	}
	path := f.dir + "/" + binaryName
	steps := []string{"umask 077", "cd " + f.dir, "cat >new", "chmod 700 new", "mv new " + binaryName, "echo",
		"wc -c <" + binaryName}
	if f.tools["gzip"] != "" {
		steps[2] = f.tools["gzip"] + " -dc >new"
	}
	// The probe made its folder in the cache if that takes one.
	if cache, ok := strings.CutSuffix(f.dir[:strings.LastIndexByte(f.dir, '/')], "/.cache/pfdivert"); ok && o.Keep {
		kept := cache + "/.cache/pfdivert/" + b.sum
		path = kept + "/" + binaryName
		steps = append(steps, "mkdir -p "+kept, "mv -f "+binaryName+" "+path)
	}
	l, err := r.master.command(ctx, "env", "LC_ALL=C", "sh", "-c", strings.Join(steps, " && "))
	if err != nil {
		return "", err
	}
	defer end(l)
	sent := &counter{w: l.Write}
	sendErr := send(sent, b, f.tools["gzip"] != "")
	l.Write.Close()
	out, readErr := io.ReadAll(io.LimitReader(l.Read, maxNoise))
	ended := l.Wait(ctx)
	r.Sent = sent.n
	said := l.Stderr()
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case diskFull(said):
		return "", fullError{quoted(said, nil)}
	case ended != nil || readErr != nil || sendErr != nil:
		return "", &Error{Reason: Lost, Host: r.host, Text: "the program could not be copied",
			Err: quoted(said, errors.Join(ended, readErr, sendErr)), hint: "check the network and the disk there"}
	}
	// rc files may have said something before.
	words := strings.Fields(string(out))
	if len(words) == 0 || words[len(words)-1] != strconv.FormatInt(b.size, 10) {
		return "", &Error{Reason: WrongSum, Host: r.host,
			Text: fmt.Sprintf("the copied program should have %d bytes, the host says %q", b.size,
				out), hint: "run it again"}
	}
	return path, nil
}

// send writes the program to a host.
func send(w io.Writer, b *binary, zip bool) error {
	f, err := os.Open(b.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if !zip {
		_, err = io.Copy(w, f)
		return err
	}
	// The compressor writes some 240 bytes at a time, which ssh would make a
	// packet each.
	big := bufio.NewWriterSize(w, 32<<10)
	z, err := gzip.NewWriterLevel(big, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, f); err != nil {
		return err
	}
	return errors.Join(z.Close(), big.Flush())
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// probe asks a host all that is to be known of it, in one go, for a POSIX sh.
// It leaves a folder in which a program may run, which the shell removes at
// its end (the trap): that is so even when this program or the agent is killed.
// Folders whose names not all shells take alike are passed over. 'command -v'
// does not find the tools: a busybox that has them built in prints no path. KEEP
// is replaced by "yes" or nothing, FULL by folders in which there is no room.
const probe = `LC_ALL=C; export LC_ALL; umask 077
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/usr/bin:/bin
echo "system=$(uname -s)"
echo "machine=$(uname -m)"
echo "uid=$(id -u)"
echo "user=$(id -un)"
echo "$PATH" | tr : '\n' | while read -r d; do
	for t in sudo doas gzip pfctl nft kdump; do
		test -f "$d/$t" && test -x "$d/$t" && echo "tool=$d/$t"
	done
done
cache=$HOME/.cache/pfdivert; keep=KEEP
test -z "$dir" || rm -rf "$dir"
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
	case ' FULL ' in
	*" $base "*)
		echo "no=$base: No space left on device"
		continue
	esac
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
	size            int64             // of the program
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
			if _, earlier := f.tools[path.Base(value)]; isPath && !earlier {
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

// otherFolder is how a user names another folder on a host.
const otherFolder = "name another folder there: SSH_OPTIONS='-o SetEnv=TMPDIR=/DIR', with 'AcceptEnv TMPDIR' in its sshd_config"

// folderError says why no folder takes the binary.
func (f *hostFacts) folderError(host string) *Error {
	said := strings.Join(f.no, "; ")
	switch {
	case diskFull(said):
		return &Error{Reason: DiskFull, Host: host, Text: "the disk is full: " + said,
			hint: fmt.Sprintf("make room there: the program needs %d MB for the run; or %s", f.size>>20+1, otherFolder)}
	case len(f.noexec) > 0:
		return &Error{Reason: NoExec, Host: host,
			Text: "programs may not run in " + strings.Join(append(f.noexec, f.no...), ", "),
			hint: "the folders are mounted noexec: remount one; or " + otherFolder}
	}
	return &Error{Reason: NoFolder, Host: host, Text: "no folder takes a file: " + said,
		hint: "the user needs a folder of their own to write to: /tmp, /var/tmp or their home; or " + otherFolder}
}

// diskFull tells by what a tool said whether a file found no room: ENOSPC,
// EDQUOT (strerror(3) in the C locale).
func diskFull(said string) bool {
	return strings.Contains(said, "No space left on device") || strings.Contains(said, "uota exceeded")
}
