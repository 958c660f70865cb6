package nft

import (
	"context"
	"fmt"
	"strings"

	"pfdivert/pfconf"
)

var _ pfconf.Shower = (*Firewall)(nil)

// Show returns the kernel rules of each label, each behind its chain's name, in the words of
// nft(8). That the kernel has them still, with the counters that Counters reads, is known by their
// handles; the counters in the text are those of the beginning.
func (f *Firewall) Show(_ context.Context, labels []string) (map[string]string, error) {
	f.mu.RLock()
	rules := f.rules
	f.mu.RUnlock()
	all := make(map[string]string, len(labels))
	for _, label := range labels {
		l := rules[label]
		if l == nil {
			return nil, fmt.Errorf("show rule %q: no such rule is loaded", label)
		}
		compiled, err := f.config.compile(l.rule)
		if err != nil {
			return nil, fmt.Errorf("show rule %q: %w", label, err)
		}
		var b strings.Builder
		parts := l.parts
		for i, k := range compiled {
			if i > 0 {
				b.WriteByte('\n')
			}
			if k.bpf != nil {
				b.WriteString(k.String())
				continue
			}
			if k.xt != nil && f.config.legacy() {
				fmt.Fprintf(&b, "%s %s %s: %v", legacyTool(l.rule.Family), k.chain.table.name, k.chain.name, k)
				continue
			}
			fmt.Fprintf(&b, "%v %s: %v # handle %d", k.chain.table, k.chain.name, k, parts[0].handle)
			parts = parts[1:]
		}
		if l.rule.Action == pfconf.DivertPacket && !f.config.xt() {
			q := queueRule(queueOf(l.rule), queueWay().xt)
			fmt.Fprintf(&b, "\ninet %s %s: %v", TableName, q.chain.name, q)
		}
		all[label] = b.String()
	}
	return all, nil
}
