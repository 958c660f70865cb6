package twin

import (
	"encoding/binary"
	"math/bits"
)

// bigEndian and pointerBits are the layout of what this program and its kernel exchange. A program
// of 32 bits has another layout than its kernel's own: that of 32 bits (compat_xt_entry).
var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

const pointerBits = bits.UintSize
