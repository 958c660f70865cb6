package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/roles/host"
)

// The names of the guest's ports.
const (
	LocalPort  = "pfdivert.local"
	RemotePort = "pfdivert.remote"
	ErrorPort  = "pfdivert.stderr"
)

// Options say which kernel to boot, and how.
type Options struct {
	Kernel  string // its image
	Modules string // where its modules are; empty where it is to be found or all is built in
	Memory  int    // in MB
	CPUs    int
	// Single is lab.Config's.
	Single bool
	// Dist are folders with this program for other systems.
	Dist []string
	// job is what Run has the guest do; nil for a lab.
	job *Job
}

// Guest is a virtual machine that runs a kernel, and the agents of a lab in it.
type Guest struct {
	Image         *Image
	Console       *Console
	Local, Remote *host.Process
	// Emulated: the processor is, and slow.
	Emulated bool
	memory   int // in MB
}

// BootSilence is how long a kernel that boots may print nothing; a test shortens it. An emulated
// s390x has taken 40 seconds, with pauses of 5.
var BootSilence = time.Minute

// bootPatience is how long a kernel may take to come up in all.
const bootPatience = 10 * time.Minute

// Boot starts a kernel. The agents have not said hello yet: see Booting. The end of ctx kills it.
// Where the machine has KVM and nothing comes of it, the processor is emulated.
func Boot(ctx context.Context, o Options) (*Guest, error) {
	if o.Memory < 32 || o.Memory > 1<<20 || o.CPUs < 1 || o.CPUs > 256 {
		return nil, &Error{Text: fmt.Sprintf("%d MB of memory and %d processors: there is no such machine", o.Memory,
			o.CPUs), Cure: "256 MB and 1 processor suffice"}
	}
	image, err := ReadImage(o.Kernel)
	if err != nil {
		return nil, err
	}
	if accelerated(image.Arch) {
		g, err := boot(ctx, image, o, false)
		if err != nil || g.speaks(ctx) {
			return g, err
		}
		g.Local.Kill()
		if err := g.Local.Wait(ctx); ctx.Err() != nil {
			return nil, err
		}
	}
	return boot(ctx, image, o, true)
}

// kvmPatience is how long a kernel may take to its first line where KVM runs it: a real one takes
// less than a second. /dev/kvm may be there and not work, as in a virtual machine.
const kvmPatience = 5 * time.Second

// speaks reports whether the kernel has begun to print.
func (g *Guest) speaks(ctx context.Context) bool {
	late := time.NewTimer(kvmPatience)
	defer late.Stop()
	select {
	case <-g.Console.begun:
		return true
	case <-late.C:
	case <-g.Local.Ended():
	case <-ctx.Done():
	}
	return false
}

// boot starts the kernel once.
func boot(ctx context.Context, image *Image, o Options, emulated bool) (*Guest, error) {
	m, ok := machines[image.Arch]
	if !ok {
		return nil, &Error{Text: fmt.Sprintf("kernel %s is for %s", o.Kernel, image.Arch),
			Cure: "there is no machine of that kind to be started here"}
	}
	initramfs, err := openInitramfs(image, o)
	if err != nil {
		return nil, err
	}
	defer initramfs.Close()
	qemu, err := exec.LookPath(m.qemu)
	if err != nil {
		return nil, &Error{Text: "boot the kernel", Err: err,
			Cure: "install QEMU for " + image.Arch + ", which has " + m.qemu}
	}
	var ours, theirs [4]*os.File
	defer func() {
		for _, f := range append(theirs[:], ours[:]...) {
			if f != nil {
				f.Close()
			}
		}
	}()
	for i := range ours {
		if ours[i], theirs[i], err = channel(); err != nil {
			return nil, err
		}
	}
	var conns [4]*net.UnixConn
	for i, f := range ours {
		c, err := net.FileConn(f)
		if err != nil {
			return nil, err
		}
		conns[i] = c.(*net.UnixConn)
	}
	g := &Guest{Image: image, Emulated: emulated, memory: o.Memory}
	cmd := exec.Command(qemu, o.arguments(m, emulated)...)
	// They are 3 and more. What QEMU says is the console's first line.
	cmd.ExtraFiles = []*os.File{theirs[0], theirs[1], theirs[2], theirs[3], initramfs}
	cmd.Stdout, cmd.Stderr = theirs[3], theirs[3]
	if g.Local, g.Remote, err = host.Guest(ctx, cmd, conns[0], conns[1], conns[2]); err != nil {
		for _, c := range conns {
			c.Close()
		}
		return nil, fmt.Errorf("start %s: %w", m.qemu, err)
	}
	g.Console = readConsole(conns[3])
	return g, nil
}

// arguments are QEMU's. The channels are its descriptors 3 to 6, and 7 is the initramfs.
func (o Options) arguments(m machine, emulated bool) []string {
	args := append([]string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"}, m.args...)
	switch {
	case !emulated:
		args = append(args, "-accel", "kvm", "-cpu", "host")
	case m.cpu != "":
		args = append(args, "-accel", "tcg", "-cpu", m.cpu)
	default:
		args = append(args, "-accel", "tcg")
	}
	args = append(args, "-m", strconv.Itoa(o.Memory), "-smp", strconv.Itoa(o.CPUs),
		"-chardev", "socket,id=console,fd=6")
	args = append(args, m.serial...)
	args = append(args, "-device", "virtio-serial-"+m.bus)
	for i, name := range []string{LocalPort, RemotePort, ErrorPort} {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", name, 3+i),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", name, name))
	}
	words := []string{"console=" + m.tty, "panic=-1"}
	if m.line != "" {
		words = append(words, m.line)
	}
	words = append(words, "--", GuestRole)
	if o.Single {
		words = append(words, "-single")
	}
	return append(args, "-kernel", o.Kernel, "-initrd", "/dev/fd/7", "-append", strings.Join(words, " "))
}

// channel makes a pair of connected sockets.
func channel() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return os.NewFile(uintptr(fds[0]), "guest's channel"), os.NewFile(uintptr(fds[1]), "guest's end of a channel"), nil
}

// openInitramfs makes the guest's initramfs in a file that has no name any more.
func openInitramfs(image *Image, o Options) (*os.File, error) {
	f, err := os.CreateTemp("", "pfdivert-initramfs-")
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	err = o.writeInitramfs(f, image)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// writeInitramfs writes the initramfs for a kernel.
func (o Options) writeInitramfs(w io.Writer, image *Image) error {
	path, err := host.Program("linux", image.Arch, o.Dist)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	if Static && isDynamic(program) {
		return &Error{Text: path + " needs libraries, which an initramfs has not",
			Cure: "build it without: CGO_ENABLED=0 go build, or make"}
	}
	have := contents{program: program}
	if have.modules, have.loaded, err = o.modules(image); err != nil {
		return err
	}
	if o.job != nil {
		have.files = map[string][]byte{
			argumentsPath: []byte(strings.Join(o.job.Arguments, "\x00")), InputPath: o.job.Input,
		}
	}
	return have.write(w)
}

// Static: a program that needs libraries is refused as init. A test whose kernel does not run it
// takes it.
var Static = true

// modules finds the modules that the guest needs, and how many of them it loads at once. Without
// -modules they are looked for where a distribution's package has them, beside /boot.
func (o Options) modules(image *Image) (all []Module, loaded int, err error) {
	dir := o.Modules
	if dir == "" {
		dir = besideBoot(image)
	}
	if dir == "" {
		return nil, 0, nil
	}
	tree, err := OpenTree(dir, image.Release)
	if err != nil {
		return nil, 0, err
	}
	if all, err = tree.Closure(ModuleNames()); err != nil {
		return nil, 0, err
	}
	for _, m := range all {
		if m.release != "" && image.Release != "" && m.release != image.Release {
			return nil, 0, otherRelease(dir, m.release, image.Release)
		}
	}
	if o.job == nil {
		return all, len(all), nil
	}
	loaded = len(all)
	all, err = tree.Closure(append(ModuleNames(), tree.network()...))
	return all, loaded, err
}

// besideBoot returns ROOT/lib/modules/RELEASE for ROOT/boot/vmlinuz-RELEASE if it is there, and
// for a vmlinuz that is among its modules their folder; else "". Where the image does not tell its
// release, its name does.
func besideBoot(image *Image) string {
	dir, name := filepath.Split(image.Path)
	release := image.Release
	if release == "" {
		_, release, _ = strings.Cut(name, "-")
	}
	if release == "" {
		return ""
	}
	for _, below := range []string{"../lib/modules", "../usr/lib/modules"} {
		d := filepath.Join(dir, below, release)
		if info, err := os.Stat(d); err == nil && info.IsDir() {
			return d
		}
	}
	if filepath.Base(dir) == release {
		return filepath.Clean(dir)
	}
	return ""
}

// Booting returns a context for the time until the agents say hello. It ends when the kernel
// has printed nothing for too long, or the machine has.
func (g *Guest) Booting(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		all := time.NewTimer(bootPatience)
		defer all.Stop()
		silence := time.NewTimer(BootSilence)
		defer silence.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-g.Console.heard:
				silence.Reset(BootSilence)
			case <-silence.C:
				cancel(fmt.Errorf("it printed nothing for %v", BootSilence))
			case <-all.C:
				cancel(fmt.Errorf("it was not up in %v", bootPatience))
			case <-g.Local.Ended():
				cancel(errors.New("the machine ended"))
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// LastWords waits for the machine's end and returns what its kernel reported on its console of
// itself, as in a panic. A machine that does not end has said nothing.
func (g *Guest) LastWords(patience time.Duration) []string {
	if !g.Console.waitOver(patience) {
		return nil
	}
	return g.Console.Splats()
}

// Failed is the error for a kernel that did not come up.
func (g *Guest) Failed(err error) error { return g.failed("did not come up", err) }

func (g *Guest) failed(what string, err error) error {
	e := &Error{Text: fmt.Sprintf("the kernel %s %s", g.Image.Path, what), Err: err,
		Cure: "it needs what contrib/linux/config has, and -modules where that is not built in"}
	if g.memory < enoughMemory {
		e.Cure = fmt.Sprintf("give it more memory: -memory %d", enoughMemory)
	}
	g.Console.waitOver(time.Second)
	if splats := g.Console.Splats(); len(splats) > 0 {
		e.Splat = splats[0]
	}
	if tail := g.Console.Tail(failedLines); tail != "" {
		e.Err = fmt.Errorf("%w; the last lines of its console:\n%s", err, tail)
	}
	return e
}

// enoughMemory is what distributions' kernels need, in MB.
const enoughMemory = 128

// failedLines is how much of the console is told when a kernel does not come up.
const failedLines = 20

// Initramfs writes the initramfs for a kernel, or without one for this machine's architecture.
func Initramfs(w io.Writer, o Options) error {
	image := &Image{Arch: runtime.GOARCH}
	if o.Kernel != "" {
		var err error
		if image, err = ReadImage(o.Kernel); err != nil {
			return err
		}
	}
	return o.writeInitramfs(w, image)
}
