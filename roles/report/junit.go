package report

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"pfdivert/matrix"
)

// WriteJUnit writes the summaries as the XML of Ant's JUnit task: a testsuite for each host, a
// testcase for each target. FAIL and XPASS are failures; ERROR is an error, as is a target that an
// interrupted run did not reach; SKIP is skipped, and so is XFAIL, for which JUnit has no word (its
// message begins with XFAIL). Transcripts are part of their text, because the schemas disagree
// about where output goes. Times are in seconds.
//
// testdata/junit.xsd describes the XML. What it accepts is accepted by both schemas in use: that of
// Ant's task (JUnit.xsd of Windy Road) and that of Jenkins' xUnit plugin (junit-10.xsd). They
// refuse attributes of testsuites, and times with more than milliseconds.
func WriteJUnit(w io.Writer, run Run, summaries []Summary) error {
	var m markup
	m.b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
	m.open("testsuites")
	m.b.WriteByte('\n')
	hosts := run.Tested
	if hosts == nil {
		hosts = []Machine{{Kernel: run.Kernel, System: run.System}}
	}
	of := map[string][]int{}
	for i := range summaries {
		of[summaries[i].Host] = append(of[summaries[i].Host], i)
	}
	var own []Summary
	for i, h := range hosts {
		own = own[:0]
		for _, at := range of[h.Name] {
			own = append(own, summaries[at])
		}
		m.open("testsuite", append([]string{
			"name", cmp.Or(h.Name, "pfdivert"), "package", "pfdivert", "id", strconv.Itoa(i),
			"hostname", cmp.Or(h.Name, "localhost"), "time", fmt.Sprintf("%.3f", run.Seconds),
			// JUnit's times have no zone; consumers take them for UTC.
			"timestamp", run.Started.UTC().Format("2006-01-02T15:04:05"),
		}, junitCounts(own)...)...)
		m.b.WriteString("\n<properties>\n")
		properties := [][2]string{{"kernel", h.Kernel}, {"system", h.System}, {"version", run.Version}}
		if run.Seed != 0 {
			properties = append(properties, [2]string{"seed", strconv.FormatUint(run.Seed, 10)})
		}
		if run.Interrupted {
			properties = append(properties, [2]string{"interrupted", "true"})
		}
		if run.Skipped != "" {
			properties = append(properties, [2]string{"skipped", run.Skipped})
		}
		for _, p := range properties {
			m.empty("property", "name", p[0], "value", p[1])
			m.b.WriteByte('\n')
		}
		m.close("properties")
		for _, o := range own {
			o.junit(&m)
		}
		m.element("system-out", "") // both are required
		m.element("system-err", "")
		m.close("testsuite")
		if _, err := m.b.WriteTo(w); err != nil {
			return err
		}
	}
	m.close("testsuites")
	_, err := m.b.WriteTo(w)
	return err
}

// junitCounts are the attributes that count a suite's cases.
func junitCounts(summaries []Summary) []string {
	counts := map[string]int{}
	for _, o := range summaries {
		counts[o.junitElement()]++
	}
	attributes := []string{"tests", strconv.Itoa(len(summaries))}
	for _, c := range [][2]string{{"failures", "failure"}, {"errors", "error"}, {"skipped", "skipped"}} {
		attributes = append(attributes, c[0], strconv.Itoa(counts[c[1]]))
	}
	return attributes
}

// junitElement is what a case has in it, "" when it passed.
func (o Summary) junitElement() string {
	switch o.Verdict {
	case matrix.Pass:
		return ""
	case matrix.XFail, matrix.Skip:
		return "skipped"
	case matrix.Fail, matrix.XPass:
		return "failure"
	}
	return "error"
}

// junit writes a testcase.
func (o Summary) junit(m *markup) {
	family, rest, _ := strings.Cut(o.Name, "-")
	group, _, _ := strings.Cut(rest, "-")
	class := "pfdivert."
	if o.Host != "" {
		class += strings.ReplaceAll(o.Host, ".", "_") + "." // a dot begins a package
	}
	m.open("testcase", "name", o.Name, "classname", class+family+"-"+group, "time", fmt.Sprintf("%.6f", o.Seconds))
	switch kind := o.junitElement(); {
	case kind == "":
	case o.Verdict == "":
		m.element(kind, "", "type", matrix.Interrupted, "message", notPlayed)
	default:
		attributes := []string{"message", fmt.Sprintf("%s (%s): %s", o.Verdict, o.Reason, o.Detail)}
		if kind != "skipped" {
			attributes = append(attributes, "type", o.Reason)
		}
		m.open(kind, attributes...)
		for _, line := range o.explained() {
			m.lines(line[0] + ": " + line[1] + "\n")
		}
		for _, t := range o.Transcript {
			m.lines(t.Host + " " + t.Name + ":\n" + t.Text)
		}
		m.close(kind)
	}
	m.close("testcase")
}
