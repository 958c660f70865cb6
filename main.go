// Pfdivert proves whether a kernel's packet filter diverts traffic as it
// should. It is one program with several roles, picked by the name that it is
// started under or by its first argument; see 'pfdivert help'.
package main

import (
	"os"

	"pfdivert/roles"
)

// version is set by the linker, see the Makefile.
var version = "unreleased"

func main() {
	os.Exit(roles.Main(version, os.Args, roles.Standard()))
}
