package pf

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// The steps that Restore knows. UndoAnchor puts an anchor's rules back: its arguments are the
// anchor, the routing domain and the rules, and withRdr where RdrRules is set. UndoLabels removes
// the states of labels, which may be in no anchor any more: its arguments are the routing domain
// and the labels.
const (
	UndoAnchor = "pf/anchor"
	UndoLabels = "pf/labels"
	withRdr    = "rdr"
)

func (c *Control) undo(anchor, rules string) pfconf.Undo {
	args := []string{anchor, strconv.Itoa(c.domain), rules}
	if c.rdrRules {
		args = append(args, withRdr)
	}
	return pfconf.Undo{Do: UndoAnchor, Args: args}
}

// Restore undoes what a Firewall that was never closed left: it puts the anchor's
// former rules back and removes the states of the rules that it finds there.
// When the anchor holds its former rules there is nothing to do; when it holds rules
// that are not this program's, someone else has used it since, and it is left alone.
func Restore(ctx context.Context, run Runner, u pfconf.Undo) error {
	if u.Do == UndoLabels && len(u.Args) > 1 {
		domain, err := strconv.Atoi(u.Args[0])
		if err != nil {
			return fmt.Errorf("the step %q: %w", u.Do, err)
		}
		_, err = NewControl(run, domain).KillLabels(ctx, u.Args[1:])
		return err
	}
	rdrRules := len(u.Args) == 4 && u.Args[3] == withRdr
	if u.Do != UndoAnchor || len(u.Args) != 3 && !rdrRules || !anchorName.MatchString(u.Args[0]) {
		return fmt.Errorf("not a step of pf to undo: %q %q", u.Do, u.Args)
	}
	anchor, former := u.Args[0], u.Args[2]
	domain, err := strconv.Atoi(u.Args[1])
	if err != nil {
		return fmt.Errorf("the step %q: %w", u.Do, err)
	}
	c := NewControl(run, domain)
	c.rdrRules = rdrRules
	now, err := c.content(ctx, anchor)
	if err != nil {
		return fmt.Errorf("reading what is in the anchor %s: %w", anchor, err)
	}
	if now == former {
		return nil
	}
	var labels []string
	for _, line := range program.Lines(now) {
		label := labelOf(line)
		if !pfconf.ValidLabel(label) {
			return hinted{
				fmt.Errorf("the anchor %s has been changed since by something else: %q", anchor, line),
				c.lookAt(anchor),
			}
		}
		labels = append(labels, label)
	}
	err = c.restore(ctx, anchor, former, 10*time.Millisecond)
	slices.Sort(labels)
	_, errKill := c.KillLabels(ctx, slices.Compact(labels))
	return errors.Join(err, errKill)
}

var (
	labelled = regexp.MustCompile(` label "([^"]*)"`)
	tagging  = regexp.MustCompile(`^rdr .* tag (\S+) -> `)
	tableRef = regexp.MustCompile(`<[A-Za-z_][^ >]*>`)
)

// labelOf is the label of a printed rule, of one that redirects (see redirect) its tag, and "" of
// others.
func labelOf(line string) string {
	for _, form := range []*regexp.Regexp{tagging, labelled} {
		if m := form.FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
	return ""
}

// content is what the anchor holds, as text that can be loaded; empty when there is
// no such anchor.
func (c *Control) content(ctx context.Context, anchor string) (string, error) {
	var all string
	for _, list := range c.lists() {
		rules, err := c.rulesOf(ctx, anchor, list)
		if err != nil {
			return "", err
		}
		all += rules
	}
	return all, nil
}

// lookAt is the hint about an anchor that holds what is someone else's.
func (c *Control) lookAt(anchor string) string {
	var looks []string
	for _, list := range c.lists() {
		looks = append(looks, "`pfctl -a "+anchor+" -s "+list+"`")
	}
	return "look at " + strings.Join(looks, " and ") + ", and empty it when no one needs it: " + c.emptying(anchor)
}

// emptying are the commands that empty an anchor.
func (c *Control) emptying(anchor string) string {
	var commands []string
	for _, list := range c.lists() {
		commands = append(commands, "pfctl -a "+anchor+" -F "+list)
	}
	return strings.Join(commands, "; ")
}

// lists are the lists of rules that an anchor has, in the order in which they are loaded, as `pfctl
// -s` knows them.
func (c *Control) lists() []string {
	if c.rdrRules {
		return []string{"nat", "rules"}
	}
	return []string{"rules"}
}

// rulesOf is one of the anchor's lists of rules.
func (c *Control) rulesOf(ctx context.Context, anchor, list string) (string, error) {
	absent := func(line string) bool {
		return line == "pfctl: Anchor does not exist" || line == "pfctl: DIOCGETRULES: Invalid argument" // FreeBSD's
	}
	r, err := c.pfctl(ctx, "", absent, "-a", anchor, "-s", list)
	if err != nil {
		return "", err
	}
	if r.Stderr != "" && r.Stdout != "" {
		return "", &Error{program.Failure{Argv: []string{"pfctl", "-a", anchor, "-s", list}, Stderr: r.Stderr}}
	}
	return r.Stdout, nil
}

// restorable reports whether rules that the anchor holds can be put back as they
// are: pfctl, asked to load them without doing it (-n), must print them again. The
// contents of tables are in no rule, and pf drops a table with the last rule that
// refers to it.
func (c *Control) restorable(ctx context.Context, anchor, rules string) error {
	if rules == "" {
		return nil
	}
	refuse := func(why string) error {
		return hinted{
			fmt.Errorf("the anchor %s holds rules that could not be put back: %s", anchor, why),
			"empty it (" + c.emptying(anchor) + "), or use another anchor",
		}
	}
	for _, line := range program.Lines(rules) {
		if tableRef.MatchString(line) {
			return refuse(fmt.Sprintf("%q refers to a table", line))
		}
	}
	r, err := c.pfctl(ctx, rules, nothing, "-n", "-v", "-o", "none", "-a", anchor, "-f", "-")
	if err != nil {
		return refuse(err.Error())
	}
	if r.Stdout != rules {
		return refuse(fmt.Sprintf("pfctl reads them as %q", r.Stdout))
	}
	return nil
}

// restore puts rules back that the anchor held once, and looks whether they are there.
func (c *Control) restore(ctx context.Context, anchor, rules string, wait time.Duration) error {
	text := rules
	if text == "" {
		text = "\n"
	}
	// -o none: the optimizer had its turn when they were loaded first.
	if _, err := c.loadText(ctx, wait, text, "-o", "none", "-a", anchor, "-f", "-"); err != nil {
		return fmt.Errorf("putting the rules of the anchor %s back: %w", anchor, err)
	}
	now, err := c.content(ctx, anchor)
	if err != nil {
		return fmt.Errorf("looking at the rules put back into the anchor %s: %w", anchor, err)
	}
	if now != rules {
		return fmt.Errorf("the anchor %s held %q and holds %q after they were put back",
			anchor, strings.TrimSpace(rules), strings.TrimSpace(now))
	}
	return nil
}
