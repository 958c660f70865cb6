package roles

import (
	"pfdivert/pfconf"
	"pfdivert/roles/twin"
)

// ruleText returns the text of a rule of this program's.
func ruleText(r pfconf.LoadedRule) (string, error) {
	if r.Entry != nil {
		return twin.EntryText(r.Entry, r.IPv6), nil
	}
	return twin.RuleText(r.Expressions)
}
