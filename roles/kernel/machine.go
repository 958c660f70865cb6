package kernel

// machine is how QEMU is told to be a computer of an architecture.
type machine struct {
	qemu string
	args []string
	// cpu is QEMU's -cpu where it emulates the processor; empty for its default.
	cpu string
	// serial are the arguments that make the chardev "console" the console, which Linux calls tty.
	serial []string
	tty    string
	bus    string // behind "virtio-serial-"
	line   string // of the kernel's command line
}

// machines are by Go's names of architectures. QEMU 7.2 and others leave garbage in the flags of a
// cmpxchg16b that it emulates, by which Linux 6.12 and later die in kmem_cache_alloc: without it
// they have another way. With la57 a kernel sets up page tables twice.
var machines = map[string]machine{
	"amd64":   {"qemu-system-x86_64", []string{"-M", "q35"}, "max,la57=off,cx16=off", serial, "ttyS0", "pci", noTimerCheck},
	"386":     {"qemu-system-i386", []string{"-M", "q35"}, "max", serial, "ttyS0", "pci", noTimerCheck},
	"arm64":   {"qemu-system-aarch64", []string{"-M", "virt"}, "cortex-a57", serial, "ttyAMA0", "pci", ""},
	"arm":     {"qemu-system-arm", []string{"-M", "virt,highmem=off"}, "cortex-a15", serial, "ttyAMA0", "pci", ""},
	"riscv64": {"qemu-system-riscv64", []string{"-M", "virt"}, "", serial, "ttyS0", "pci", ""},
	"s390x": {"qemu-system-s390x", []string{"-M", "s390-ccw-virtio"}, "max",
		[]string{"-device", "sclpconsole,chardev=console"}, "ttysclp0", "ccw", ""},
	"mips":     {"qemu-system-mips", []string{"-M", "malta"}, "", serial, "ttyS0", "pci", ""},
	"mipsle":   {"qemu-system-mipsel", []string{"-M", "malta"}, "", serial, "ttyS0", "pci", ""},
	"mips64":   {"qemu-system-mips64", []string{"-M", "malta"}, "MIPS64R2-generic", serial, "ttyS0", "pci", ""},
	"mips64le": {"qemu-system-mips64el", []string{"-M", "malta"}, "MIPS64R2-generic", serial, "ttyS0", "pci", ""},
	"ppc64le":  {"qemu-system-ppc64", []string{"-M", "pseries"}, "", serial, "hvc0", "pci", ""},
	"loong64":  {"qemu-system-loongarch64", []string{"-M", "virt"}, "", serial, "ttyS0", "pci", ""},
}

// noTimerCheck keeps x86 from counting ticks of its timer by loops of the processor, which QEMU on a
// busy machine does not send in time: it would panic (check_timer, arch/x86/kernel/apic/io_apic.c).
const noTimerCheck = "no_timer_check"

var serial = []string{"-serial", "chardev:console"}
