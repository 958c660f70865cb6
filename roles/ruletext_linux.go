package roles

import "pfdivert/roles/twin"

// ruleText returns the text of a rule of this program's table in nf_tables.
func ruleText(expressions []byte) (string, error) { return twin.RuleText(expressions) }
