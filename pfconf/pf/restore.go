package pf

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// UndoAnchor is the step that Mend knows: put an anchor's rules back. Its
// arguments are the anchor, the routing domain and the rules.
const UndoAnchor = "pf/anchor"

func undo(anchor string, domain int, rules string) pfconf.Undo {
	return pfconf.Undo{Do: UndoAnchor, Args: []string{anchor, strconv.Itoa(domain), rules}}
}

// Mend undoes what a Firewall that was never closed left: it puts the anchor's
// former rules back and removes the states of the rules that it finds there.
// When the anchor holds its former rules there is nothing to do; when it holds rules
// that are not this program's, somebody else has used it since, and it is left alone.
func Mend(ctx context.Context, run Runner, u pfconf.Undo) error {
	if u.Do != UndoAnchor || len(u.Args) != 3 || !anchorName.MatchString(u.Args[0]) {
		return fmt.Errorf("not a step of pf to undo: %q %q", u.Do, u.Args)
	}
	anchor, former := u.Args[0], u.Args[2]
	domain, err := strconv.Atoi(u.Args[1])
	if err != nil {
		return fmt.Errorf("the step %q: %w", u.Do, err)
	}
	c := NewControl(run, domain)
	now, err := c.content(ctx, anchor)
	if err != nil {
		return fmt.Errorf("reading what is in the anchor %s: %w", anchor, err)
	}
	if now == former {
		return nil
	}
	var labels []string
	for _, line := range program.Lines(now) {
		m := labelled.FindStringSubmatch(line)
		if m == nil || !pfconf.ValidLabel(m[1]) {
			return hinted{
				fmt.Errorf("the anchor %s has been changed since by something else: %q", anchor, line),
				"look at `pfctl -a " + anchor + " -s rules`, and empty it when nobody needs it: pfctl -a " + anchor + " -F rules",
			}
		}
		labels = append(labels, m[1])
	}
	err = c.restore(ctx, anchor, former, 10*time.Millisecond)
	_, errKill := c.KillLabels(ctx, labels)
	return errors.Join(err, errKill)
}

var (
	labelled = regexp.MustCompile(` label "([^"]*)"`)
	tableRef = regexp.MustCompile(`<[A-Za-z_][^ >]*>`)
)

// content is what the anchor holds, as text that can be loaded; empty when there is
// no such anchor.
func (c *Control) content(ctx context.Context, anchor string) (string, error) {
	absent := func(line string) bool {
		return line == "pfctl: Anchor does not exist" || line == "pfctl: DIOCGETRULES: Invalid argument" // FreeBSD's
	}
	r, err := c.pfctl(ctx, "", absent, "-a", anchor, "-s", "rules")
	if err != nil {
		return "", err
	}
	if r.Stderr != "" && r.Stdout != "" {
		return "", &Error{program.Failure{Argv: []string{"pfctl", "-a", anchor, "-s", "rules"}, Stderr: r.Stderr}}
	}
	return r.Stdout, nil
}

// restorable tells whether rules that the anchor holds can be put back as they
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
			"empty it (pfctl -a " + anchor + " -F rules), or use another anchor",
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
