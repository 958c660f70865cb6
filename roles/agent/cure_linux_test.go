package agent

import (
	"os/exec"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// What is said to cure a strict reverse path filter works when it is typed, also for an interface
// with a dot in its name, as a VLAN's has.
func TestCureReversePath(t *testing.T) {
	labtest.Need(t)
	labtest.Root(t)
	labtest.Programs(t, "ip", "unshare", "sysctl")
	for _, nic := range []string{"eth7", "eth7.100"} {
		out, err := exec.Command("unshare", "-n", "-m", "sh", "-ec", "mount -t sysfs none /sys; ip link add "+nic+
			" type bridge; echo 1 >/proc/sys/net/ipv4/conf/"+nic+"/rp_filter; "+cureReversePath(nic)+
			"; test $(cat /proc/sys/net/ipv4/conf/"+nic+"/rp_filter) = 2").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", cureReversePath(nic), err, out)
		}
	}
}
