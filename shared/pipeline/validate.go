package pipeline

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// validator gathers problems, each with the path of the value it is about.
type validator struct {
	problems []error
	tables   map[string]Processor // of the processors: the first that fills each
	phases   map[string]string    // processor → phase
	mistyped map[string]bool      // paths whose value is there, under a wrong key or in a wrong form
}

func (v *validator) add(path, format string, args ...any) {
	v.problems = append(v.problems, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

// examples are values of the keys that have no default.
var examples = map[string]string{
	"name": "orders", "id": "raw_to_marts", "time_zone": "Europe/Berlin", "class": "OrdersProcessor", "table": "shop_raw.orders",
	"date_column": "day", "key": "[day, order_id]", "order_by": "loaded_at", "phase": "marts", "topic": "shop-marts-complete",
	"warn": "5m", "critical": "15m", "after": "30m", "cron": `"5 * * * *"`,
}

// absent notes a value that a key or an item of a list needs and has not. A key that is mistyped is
// one problem, and is reported as such.
func (v *validator) absent(path, s string) bool {
	if s != "" || v.elsewhere(path) {
		return s == ""
	}
	key := path[strings.LastIndex(path, ".")+1:]
	if example := examples[key]; example != "" {
		v.add(path, "is required, such as %s: %s", key, example)
	} else {
		v.add(path, "is required")
	}
	return true
}

// elsewhere reports whether the value, or a section around it, is there under a mistyped key.
func (v *validator) elsewhere(path string) bool {
	for at := path; at != ""; at = at[:max(strings.LastIndex(at, "."), 0)] {
		if v.mistyped[at] {
			return true
		}
	}
	return false
}

var (
	// Names become document ids, field names and parts of ids joined by _ and ~.
	nameForm    = regexp.MustCompile(`^[a-z][a-z0-9_]{0,99}$`)
	columnForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,299}$`)
	datasetForm = regexp.MustCompile(`^[A-Za-z0-9_]{1,300}$`)
	classForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,199}$`)
	tableForm   = regexp.MustCompile(`^[A-Za-z0-9_]{1,300}\.[A-Za-z0-9_]{1,300}$`)
	// https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names, less room
	// for the suffixes that we add.
	topicForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~+%-]{2,199}$`)
	// https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.services
	serviceForm = regexp.MustCompile(`^([a-z]([a-z0-9-]{0,47}[a-z0-9])?)?$`)
	// Durations that the deployment reads too: Terraform has no parser for the others.
	secondsForm = regexp.MustCompile(`^(\d{1,4}h)?(\d{1,4}m)?(\d{1,6}s)?$`)
)

// form checks a required value against its form.
func (v *validator) form(path, s string, form *regexp.Regexp, what string) {
	if !v.absent(path, s) && !form.MatchString(s) {
		v.add(path, "%q is no %s", clip(s), what)
	}
}

func (v *validator) name(path, s string) {
	v.form(path, s, nameForm, "safe name (lower-case letters, digits and _, a letter first, at most 100)")
}

func (v *validator) column(path, s string) { v.form(path, s, columnForm, "column name") }

func (v *validator) class(path, s string) {
	v.form(path, s, classForm, "class name (letters, digits and _, a letter first, at most 200)")
}

func (v *validator) table(path, s string) {
	v.form(path, s, tableForm, "table of the form dataset.table")
}

func (v *validator) topic(path, s string) {
	if !v.absent(path, s) && (!topicForm.MatchString(s) || strings.HasPrefix(s, "goog")) {
		v.add(path, "%q is no topic name", clip(s))
	}
}

func (v *validator) service(path, s string) {
	if !serviceForm.MatchString(s) {
		v.add(path, "%q is no Cloud Run service name", clip(s))
	}
}

// seconds reads a positive duration of whole hours, minutes and seconds.
func (v *validator) seconds(path, s string) time.Duration {
	if v.absent(path, s) {
		return 0
	}
	if !secondsForm.MatchString(s) {
		v.add(path, "%q is no duration of whole seconds such as 90s, 5m or 1h30m", clip(s))
		return 0
	}
	return v.duration(path, s)
}

func (v *validator) oneOf(path, s string, allowed ...string) {
	switch {
	case s == "" && v.elsewhere(path):
	case s == "":
		v.add(path, "is required: one of %s", strings.Join(allowed, ", "))
	case !slices.Contains(allowed, s):
		v.add(path, "%q is not one of %s%s", clip(s), strings.Join(allowed, ", "), DidYouMean(s, allowed))
	}
}

func (v *validator) unique(path, what, s string, seen map[string]bool) {
	if s != "" && seen[s] {
		v.add(path, "%s %q is declared twice", what, clip(s))
	}
	seen[s] = true
}

// distinct checks each item of a list, and that none is in it twice. It returns the items.
func (v *validator) distinct(path, what string, list []string, check func(at, s string)) map[string]bool {
	seen := map[string]bool{}
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		check(at, s)
		v.unique(at, what, s, seen)
	}
	return seen
}

func (v *validator) datasets(path string, names []string) map[string]bool {
	return v.distinct(path, "dataset", names, func(at, name string) {
		if !datasetForm.MatchString(name) {
			v.add(at, "%q is no dataset", clip(name))
		}
	})
}

func (v *validator) phase(path, s string, phases map[string]map[string]string) {
	if !v.absent(path, s) && phases[s] == nil {
		names := slices.Sorted(maps.Keys(phases))
		v.add(path, "unknown phase %q: phases has %s%s", clip(s), strings.Join(names, ", "), DidYouMean(s, names))
	}
}

// meantProcessor says where a processor is that is not in a transition's upstream phase, or which
// of that phase was probably meant.
func (v *validator) meantProcessor(name string, t *Transition) string {
	if phase := v.phases[name]; phase != "" {
		return fmt.Sprintf("; it is in phase %q", phase)
	}
	return DidYouMean(name, slices.Sorted(maps.Keys(t.kinds)))
}

func (v *validator) zone(path, s string) *time.Location {
	if v.absent(path, s) {
		return time.UTC
	}
	zone, err := time.LoadLocation(s)
	if err != nil || s == "" || s == "Local" {
		v.add(path, "unknown time zone %q: write a name of the tz database, such as Europe/Berlin or UTC", clip(s))
		return time.UTC
	}
	return zone
}

func (v *validator) optionalOffset(c Calendar, path, s string) *Offset {
	if s == "" {
		return nil
	}
	o, err := c.ParseOffset(s)
	if err != nil {
		v.add(path, "%v", err)
		return nil
	}
	return &o
}

func (v *validator) cron(path string, s Schedule, zone *time.Location) {
	if v.absent(path, s.Cron) {
		return
	}
	if strings.Contains(s.Cron, "=") {
		v.add(path, "%q names a time zone; the pipeline's holds", clip(s.Cron))
		return
	}
	c, err := parseCron(s.Cron)
	if err != nil {
		v.add(path, "%v", err)
		return
	}
	if s.allDay() {
		return
	}
	switch wall, repeated := c.unsteady(zone); {
	case wall.IsZero():
	case repeated:
		v.add(path, "%q: the clock of %s shows %s twice: Cloud Scheduler may send the job twice; move it to another hour", clip(s.Cron), zone, wall.Format("2006-01-02 15:04"))
	default:
		v.add(path, "%q: the clock of %s skips %s: Cloud Scheduler leaves the job out; move it to another hour", clip(s.Cron), zone, wall.Format("2006-01-02 15:04"))
	}
}

// clip keeps a hostile value from flooding the report.
func clip(s string) string { return Clip(s, 80) }

// Clip bounds a text for people to some bytes, and cuts no character in two.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// And lists names as a sentence does.
func And(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

func sortedKeys(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }
