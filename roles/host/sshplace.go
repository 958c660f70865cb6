package host

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// place makes sure that the program is on the host and gives its path.
func (r *Remote) place(ctx context.Context, o SSHOptions, b *binary, f *hostFacts) (string, error) {
	for _, path := range f.cached {
		if keptBinary.FindStringSubmatch(path)[1] == b.sum {
			r.Cached = true
			return path, nil
		}
	}
	if f.dir == "" {
		return "", f.folderError(r.host)
	}
	path := f.dir + "/" + binaryName
	steps := []string{"umask 077", "cd " + f.dir, "cat >new", "chmod 700 new", "mv new " + binaryName, "echo", "wc -c <" + binaryName}
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
		return "", &Error{Reason: DiskFull, Host: r.host, Text: "the disk with " + f.dir + " is full", Err: quoted(said, nil), hint: fmt.Sprintf("make room there: the program needs %d MB for the run", (b.size>>20)+1)}
	case ended != nil || readErr != nil || sendErr != nil:
		return "", &Error{Reason: Lost, Host: r.host, Text: "the program could not be copied", Err: quoted(said, errors.Join(ended, readErr, sendErr)), hint: "check the network and the disk there"}
	}
	// rc files may have said something before.
	words := strings.Fields(string(out))
	if len(words) == 0 || words[len(words)-1] != strconv.FormatInt(b.size, 10) {
		return "", &Error{Reason: WrongSum, Host: r.host, Text: fmt.Sprintf("the copied program should have %d bytes, the host says %q", b.size, out), hint: "run it again"}
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
