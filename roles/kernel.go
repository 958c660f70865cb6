package roles

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"

	"pfdivert/roles/host"
	"pfdivert/roles/kernel"
	"pfdivert/roles/lab"
)

// kernelFlags are those of a kernel that is booted as host.
func (o *runFlags) kernelFlags(f *flag.FlagSet) {
	f.StringVar(&o.kernel, "kernel", "", "boot the kernel in `IMAGE` (bzImage, Image, vmlinux) in QEMU, and test it")
	f.StringVar(&o.modules, "modules", "", "the kernel's modules are below `DIR`; without it they are looked for beside /boot")
	f.IntVar(&o.memory, "memory", 256, "the kernel's machine has `N` MB of memory")
	f.IntVar(&o.cpus, "cpus", 1, "the kernel's machine has `N` processors")
}

// onlyKernel refuses what goes with other hosts.
func (o runFlags) onlyKernel(getenv func(string) string) error {
	switch {
	case o.hosts != "":
		return hinted{errors.New("-kernel and -hosts name two hosts"), "begin a line of the hosts file with kernel=" + o.kernel}
	case getenv("REMOTE_SSH") != "":
		return hinted{errors.New("-kernel and REMOTE_SSH name two hosts"), "unset REMOTE_SSH, or leave -kernel out"}
	case o.domain != 0:
		return hinted{errors.New("-rdomain is OpenBSD's"), "leave it out with -kernel"}
	}
	return o.checkMachine()
}

// checkMachine refuses a machine that can't be.
func (o runFlags) checkMachine() error {
	if o.memory < 32 || o.memory > 1<<20 || o.cpus < 1 || o.cpus > 256 {
		return hinted{fmt.Errorf("-memory %d -cpus %d: there is no such machine", o.memory, o.cpus), "-memory 256 -cpus 1"}
	}
	return nil
}

// guest returns the flags for a host of a hosts file that is a kernel.
func (h fileHost) guest(o runFlags) (runFlags, bool) {
	if h.kernel == "" {
		return o, false
	}
	o.kernel, o.modules = h.kernel, h.set["modules"]
	for name, to := range map[string]*int{"memory": &o.memory, "cpus": &o.cpus} {
		if text, ok := h.set[name]; ok {
			*to, _ = strconv.Atoi(text) // 0 is refused
		}
	}
	return o, true
}

// reachKernel boots a kernel and reaches the agents in it.
func reachKernel(ctx context.Context, c *call, o runFlags) (*pair, error) {
	if err := o.checkMachine(); err != nil {
		return nil, err
	}
	config := lab.Config{Single: o.single}
	guest, err := kernel.Boot(ctx, kernel.Options{
		Kernel: o.kernel, Modules: o.modules, Memory: o.memory, CPUs: o.cpus, Single: o.single, Dist: host.DistFolders(c.Getenv),
	})
	if err != nil {
		return nil, err
	}
	p := &pair{local: guest.Local, remote: guest.Remote, guest: guest, trips: setupTrips}
	if err := p.dial(ctx, labHeartbeat); err != nil {
		return nil, guest.Failed(err)
	}
	p.inLab(config)
	return p, nil
}

var initramfsRole = Role{
	Name: "initramfs", Usage: "-o FILE [-kernel IMAGE] [-modules DIR]", Summary: "write an initramfs that tests the kernel that boots it",
	Help: `It holds this program as init, and the modules that it needs. What stands behind
'--' on the kernel's command line are the arguments of a run, whose results go to the
console; the last line is 'pfdivert: exit N', and then the machine is switched off:

  qemu-system-x86_64 -nographic -no-reboot -kernel bzImage -initrd FILE \
    -append 'console=ttyS0 panic=-1 -- run -as kselftest'

Exit status: 0 when it is written, 2 otherwise.`,
}

func init() { initramfsRole.run = runInitramfs }

func runInitramfs(_ context.Context, c *call) (int, error) {
	f := c.flags()
	o := kernel.Options{Dist: host.DistFolders(c.Getenv)}
	out := f.String("o", "", "write it to `FILE`")
	f.StringVar(&o.Kernel, "kernel", "", "it is for the kernel in `IMAGE`")
	f.StringVar(&o.Modules, "modules", "", "the kernel's modules are below `DIR`; without it they are looked for beside /boot")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	if *out == "" {
		return exitError, hinted{errors.New("no file is named to write the initramfs to"), "-o FILE"}
	}
	file, err := os.Create(*out)
	if err != nil {
		return exitError, fmt.Errorf("initramfs: %w", err)
	}
	err = kernel.Initramfs(file, o)
	if err = errors.Join(err, file.Close()); err != nil {
		os.Remove(*out)
		return exitError, err
	}
	return exitOK, nil
}
