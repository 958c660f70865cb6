package pf

import (
	"context"
	"fmt"
	"strings"

	"pfdivert/pfconf"
)

var _ pfconf.Shower = (*Firewall)(nil)

// Show returns the rules with these labels as pfctl prints them, with what they have counted.
func (f *Firewall) Show(ctx context.Context, labels []string) (map[string]string, error) {
	all, err := f.shows.Get(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string, len(labels))
	for _, l := range labels {
		text, ok := all[l]
		if !ok {
			return nil, fmt.Errorf("anchor %s has no rule with the label %s", f.anchor, l)
		}
		found[l] = text
	}
	return found, nil
}

func (f *Firewall) readRules(ctx context.Context) (map[string]string, error) {
	var text string
	for _, list := range f.lists() {
		r, err := f.pfctl(ctx, "", nothing, "-a", f.anchor, "-s", list, "-vv")
		if err != nil {
			return nil, err
		}
		text += r.Stdout
	}
	return parseRules(text), nil
}

// parseRules reads `pfctl -s rules -vv`: a rule begins with '@' and its number, and what it
// has counted is below it. Rules without a label are left out.
func parseRules(out string) map[string]string {
	all := map[string]string{}
	label := ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \n")
		if strings.HasPrefix(line, "@") {
			_, rule, _ := strings.Cut(line, " ")
			label = labelOf(rule)
		}
		switch {
		case label == "" || line == "":
		case all[label] == "":
			all[label] = line
		default:
			all[label] += "\n" + line
		}
	}
	return all
}
