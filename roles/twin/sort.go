package twin

import "sort"

// sortStable does what slices.SortStableFunc does. The compiler makes a copy of that for every type
// of element, of 6 kB; here it makes one of 100 bytes.
func sortStable[T any](s []T, compare func(a, b T) int) {
	sort.SliceStable(s, func(i, j int) bool { return compare(s[i], s[j]) < 0 })
}
