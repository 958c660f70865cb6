package twin

import (
	"encoding/binary"
	"math/bits"
	"runtime"
)

// bigEndian and pointerBits are the layout of what this program and its kernel exchange. A program
// of 32 bits has another layout than its kernel's own: that of 32 bits (compat_xt_entry).
var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

const pointerBits = bits.UintSize

// align64 is how numbers of 64 bits are aligned in the structures of the kernel's interface: by 4
// on i386 alone. Go aligns them by 4 on all systems of 32 bits.
var align64 = map[bool]int{true: 4, false: 8}[runtime.GOARCH == "386"]
