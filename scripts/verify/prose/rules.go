package main

import (
	"fmt"
	"regexp"
	"strings"
)

// maxWords is the most that one sentence may have.
const maxWords = 30

// A phrase is one that readers had to decode, and the one to write instead.
type phrase struct {
	old *regexp.Regexp
	use string
}

func words(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?i)\b(` + pattern + `)\b`) }

var phrases = []phrase{
	{words(`(the|our|its|their|his|shadow's) books|books (of|that|are|were|say|read)|in books`), "state, documents"},
	{words(`on record`), "recorded"},
	{words(`next looks?|looks? next|looked at|look of the engine|a look at|each look|every look`), "evaluation, evaluated, next check"},
	{words(`(is|are|was|were|be|been) told|tells? (people|of)|told (once|of|to)`), "notify, notification"},
	{words(`(come|comes|came|coming) again|(come|comes) to nobody`), "is redelivered, is retried, is not retried"},
	{words(`nobody|somebody|whoever|whatever`), "name the subject"},
	{words(`what is there|as it is said|what helps|what came of it|what there is`), "name the object"},
	{words(`hopeless`), "invalid"},
	{words(`right row`), "surviving row"},
	{words(`rooms`), "packages"},
	{words(`there twice|twice there`), "duplicate"},
	{words(`(give|gives|gave|given|giving) up`), "dead-lettered, or end"},
	{words(`taken away`), "revoked"},
	{words(`trust in`), "safe remaining time"},
	{words(`beside`), "next to, alongside, compared with"},
	{words(`held by (a|the) (deadline|person)`), "overdue, on hold"},
	{words(`sets? off (one|no|an|the) alerts?|sets? off nothing`), "fires an alert"},
}

// clause finds headings that are sentences or questions: a reader searches for a noun or a task.
var clause = regexp.MustCompile(`(?i)^(what|who|how|why|when|where|which|whoever|if)\b|\b(is|are|was|were|has|have|does|did|can|must|will|should)\b`)

// relative finds clauses that qualify a noun, which a heading may have.
var relative = regexp.MustCompile(`\b(that|which|whose) .*$`)

// riddle finds sentences whose subject is a clause.
var riddle = regexp.MustCompile(`^(What|Who|Whoever|Whatever) [^?]*$`)

var (
	code     = regexp.MustCompile("`[^`]*`")
	link     = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	boundary = regexp.MustCompile(`[.!?]["')]?\s+`)
	abbrev   = regexp.MustCompile(`\b(e\.g|i\.e|etc|vs|approx)\.`)
)

// check returns what a reader would stumble over in a text.
func check(t text) []string {
	var problems []string
	plain := link.ReplaceAllString(code.ReplaceAllString(t.text, "CODE"), "$1")
	for _, p := range phrases {
		if found := p.old.FindString(plain); found != "" {
			problems = append(problems, fmt.Sprintf("%q: write %s", found, p.use))
		}
	}
	if t.kind == heading {
		if clause.MatchString(relative.ReplaceAllString(plain, "")) {
			problems = append(problems, fmt.Sprintf("heading %q is a clause: write a noun phrase or a task", plain))
		}
		return problems
	}
	ended := boundary.ReplaceAllStringFunc(abbrev.ReplaceAllString(plain, "$1"), func(end string) string { return strings.TrimSpace(end) + "\x00" })
	for s := range strings.SplitSeq(ended, "\x00") {
		if n := len(strings.Fields(s)); n > maxWords {
			problems = append(problems, fmt.Sprintf("a sentence of %d words, %d are allowed: %.60s…", n, maxWords, s))
		}
		if riddle.MatchString(s) && t.kind != comment {
			problems = append(problems, fmt.Sprintf("%.50q: the subject is a clause: name who does what", s))
		}
	}
	return problems
}
