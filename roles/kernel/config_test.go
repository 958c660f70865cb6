package kernel

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"pfdivert/pfconf/need"
)

// TestConfig: contrib/linux/config has the options of all that a kernel is probed for.
func TestConfig(t *testing.T) {
	text, err := os.ReadFile("../../contrib/linux/config")
	if err != nil {
		t.Fatal(err)
	}
	var options []string
	for _, m := range regexp.MustCompile(`(?m)^CONFIG_(\w+)=y$`).FindAllStringSubmatch(string(text), -1) {
		if slices.Contains(options, m[1]) {
			t.Errorf("CONFIG_%s is there twice", m[1])
		}
		options = append(options, m[1])
	}
	for _, f := range need.Features() {
		for _, c := range f.Config {
			if !slices.Contains(options, c) {
				t.Errorf("CONFIG_%s, for %s, is not in contrib/linux/config", c, f.Name)
			}
		}
	}
	for _, want := range []string{"VIRTIO_CONSOLE", "BLK_DEV_INITRD", "RD_GZIP", "DEVTMPFS"} {
		if !slices.Contains(options, want) {
			t.Errorf("CONFIG_%s, for the machine, is not in contrib/linux/config", want)
		}
	}
}
