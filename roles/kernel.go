package roles

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"pfdivert/roles/host"
	"pfdivert/roles/kernel"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

const modulesUsage = "the kernel's modules are below `DIR`; without it they are looked for beside /boot"

// kernelFlags are those of a kernel that is booted as host.
func kernelFlags(f *flag.FlagSet, o *testbed.Options) {
	f.StringVar(&o.Kernel, "kernel", "", "boot the kernel in `IMAGE` (bzImage, Image, vmlinux) in QEMU, and test it")
	f.StringVar(&o.Modules, "modules", "", modulesUsage)
	f.IntVar(&o.Memory, "memory", 256, "the kernel's machine has `N` MB of memory")
	f.IntVar(&o.CPUs, "cpus", 1, "the kernel's machine has `N` processors")
}

// filterFlag is how a Linux kernel is given the rules.
func filterFlag(f *flag.FlagSet, o *testbed.Options) {
	f.StringVar(&o.Filter, "filter", "", "give a Linux kernel the rules by `WAY`: nft (as without it), xt, xt-legacy, bpf, "+
		"bpf-lookup; all: side by side")
}

// onKernel runs this role in a machine that has another kernel, with the flags that were given, but
// those of the machine, and the job's arguments behind them. A flag that may be given several times
// must be among those.
func (c *call) onKernel(ctx context.Context, f *flag.FlagSet, machine testbed.Options, job kernel.Job) (int, error) {
	words := []string{c.role.Name}
	f.Visit(func(set *flag.Flag) {
		switch value := set.Value.String(); set.Name {
		case "kernel", "modules", "memory", "cpus":
		default:
			if value != "" {
				words = append(words, "-"+set.Name+"="+value)
			}
		}
	})
	job.Arguments = append(words, job.Arguments...)
	job.Out, job.Err = c.Out, c.Err
	status, err := kernel.Run(ctx, kernel.Options{
		Kernel: machine.Kernel, Modules: machine.Modules, Memory: machine.Memory, CPUs: machine.CPUs,
		Dist: host.DistFolders(c.Getenv),
	}, job)
	if err != nil {
		return exitError, err
	}
	return status, nil
}

var initramfsRole = Role{
	Name: "initramfs", Usage: "-o FILE [-kernel IMAGE] [-modules DIR]",
	Summary: "write an initramfs that tests the kernel that boots it",
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
	f.StringVar(&o.Modules, "modules", "", modulesUsage)
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	if *out == "" {
		return exitError, terminal.WithHint(errors.New("no file is named to write the initramfs to"), "-o FILE")
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
