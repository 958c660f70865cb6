package pfconf

import "fmt"

// Edit returns the rules without those with the labels in remove and with those of add behind
// them, and leaves rules as it is. A label to remove that is not there and one to add that is are
// errors; one may be removed and added again.
func Edit(rules, add []Rule, remove []string) ([]Rule, error) {
	gone := make(map[string]bool, len(remove))
	for _, l := range remove {
		gone[l] = true
	}
	there := make(map[string]bool, len(rules)+len(add))
	next := make([]Rule, 0, len(rules)+len(add))
	for _, r := range rules {
		if gone[r.Label] {
			delete(gone, r.Label)
			continue
		}
		there[r.Label] = true
		next = append(next, r)
	}
	for l := range gone {
		return nil, fmt.Errorf("there is no rule with the label %s to remove", l)
	}
	for _, r := range add {
		if there[r.Label] {
			return nil, fmt.Errorf("there is a rule with the label %s already", r.Label)
		}
		there[r.Label] = true
		next = append(next, r)
	}
	return next, nil
}
