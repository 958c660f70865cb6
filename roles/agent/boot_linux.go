package agent

import (
	"fmt"
	"os"
	"strings"
)

// bootID names the time from one boot to the next (random(4)).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("which boot this is: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func sameBoot(a, b string) bool { return a == b }

// netID names the network namespace, "net:[4026531840]" (namespaces(7)): containers and namespaces
// made by ip-netns(8) share /var/run. The number may come again when the namespace is gone.
func netID() string {
	s, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return "" // no namespaces in this kernel
	}
	return s
}

// netSuffix makes a file's name that of one network namespace.
func netSuffix() string {
	return "-" + strings.Trim(netID(), "net:[]")
}
