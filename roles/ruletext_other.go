//go:build !linux

package roles

import "errors"

// ruleText is for nf_tables; other filters show their rules' text.
func ruleText([]byte) (string, error) {
	return "", errors.New("the filter does not show the rule's text")
}
