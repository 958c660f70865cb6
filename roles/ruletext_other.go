//go:build !linux

package roles

import (
	"errors"

	"pfdivert/pfconf"
)

// ruleText is for Linux; other filters show their rules' text.
func ruleText(pfconf.LoadedRule) (string, error) {
	return "", errors.New("the filter does not show the rule's text")
}
