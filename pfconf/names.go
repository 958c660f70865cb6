package pfconf

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The enumerations of this package are text on every wire and in every file,
// so that a transcript can be read and a renumbering breaks nothing.

// Count is "1 packet" or "26 packets".
func Count[T ~int | ~uint16 | ~uint64](n T, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func nameOf[T ~uint8](names map[T]string, v T) string {
	if s, ok := names[v]; ok {
		return s
	}
	return fmt.Sprintf("?%d", uint8(v))
}

func marshalName[T ~uint8](names map[T]string, v T, what string) ([]byte, error) {
	s, ok := names[v]
	if !ok {
		return nil, fmt.Errorf("no %s has the number %d", what, uint8(v))
	}
	return []byte(s), nil
}

func unmarshalName[T ~uint8](names map[T]string, v *T, b []byte, what string) error {
	for k, s := range names {
		if s == string(b) {
			*v = k
			return nil
		}
	}
	all := slices.Sorted(maps.Values(names))
	return fmt.Errorf("no %s is called %q (known: %s)", what, b, strings.Join(all, ", "))
}
